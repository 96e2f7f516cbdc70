"""How a serving process treats the event loop that answers: nothing in the background may hold it up for long."""

import gc
import os
import signal
import sys
from typing import Final

SWITCH_S: Final = 0.0005
"""How long a thread may keep the interpreter from another that wants it. Python's own 5 ms would be paid each time that
the loop lets go of it, and an answer does so dozens of times: a release being loaded would double the tail."""


def share_fairly() -> None:
    """Let the event loop have the interpreter back soon, and the cores: linear algebra beside it uses one."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    sys.setswitchinterval(SWITCH_S)
    threadpool_limits(limits=1, user_api="blas")


def settle() -> None:
    """Take everything loaded so far out of the garbage collector's sight: its pauses were the tail."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


def end() -> None:
    """Have this process end in order, as if it had been told to from outside: its starter begins another."""
    os.kill(os.getpid(), signal.SIGTERM)
