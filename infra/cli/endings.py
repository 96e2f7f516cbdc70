"""Ends a command in order when a signal asks for it, also where the interpreter forgets the request.

What a signal handler raises comes up wherever the main thread happens to be. In a finalizer, which the garbage
collector may run between any two lines, Python reports it and goes on as if nothing had been asked.
"""

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Final, Protocol

AGAIN_S: Final = 0.05


class _Dropped(Protocol):
    """What `sys.unraisablehook` is given; its own type exists for type checkers only."""

    exc_type: type[BaseException]
    exc_value: BaseException | None
    exc_traceback: TracebackType | None
    err_msg: str | None
    object: object


def end_in_order() -> None:
    """Let SIGTERM unwind the main thread, and let neither that nor Ctrl-C be lost in a finalizer.

    The servers that only this command keeps alive must not outlive it. Call it once, in the main thread.
    """
    signal.signal(signal.SIGTERM, _unwind)
    others = sys.unraisablehook

    def ask_again(dropped: _Dropped) -> None:
        asked = dropped.exc_value
        if (
            not isinstance(asked, SystemExit | KeyboardInterrupt)
            or threading.current_thread() is not threading.main_thread()
        ):
            others(dropped)
            return

        def raise_again(_number: int, _frame: FrameType | None) -> None:
            raise type(asked)(*asked.args)

        # Not from here: an exception in this hook is dropped as well.
        signal.signal(signal.SIGALRM, raise_again)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)

    sys.unraisablehook = ask_again


def _unwind(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)
