"""SIGKILL, and nothing else until the process is gone: a killed process takes a moment to die."""

import os
import signal
import time

from infra.embedded.processes import identity


def kill(pid: int) -> None:
    known_as = identity(pid)
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while known_as is not None and identity(pid) == known_as:
        assert time.monotonic() < until, f"process {pid} survives SIGKILL"
        time.sleep(0.01)
