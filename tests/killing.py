"""SIGKILL, and nothing else until the process is gone: a killed process takes a moment to die."""

import contextlib
import os
import signal
import time

from infra.embedded.processes import identity


def kill(pid: int) -> None:
    known_as = identity(pid)
    with contextlib.suppress(ProcessLookupError):  # a child of one killed just before may have followed it by itself
        os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while known_as is not None and identity(pid) == known_as:
        assert time.monotonic() < until, f"process {pid} survives SIGKILL"
        time.sleep(0.01)
