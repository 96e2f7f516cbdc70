"""Waiting for conditions instead of time, and how busy this machine is with something else."""

import time
from collections.abc import Callable

PATIENCE_S = 60.0
"""Long enough for a machine that does much else; what is waited for usually comes at once."""
SLOWEST = 4.0
_WORK_S = 0.15


def until(
    claim: Callable[[], object], within_s: float = PATIENCE_S, instead: Callable[[], object] = lambda: ""
) -> None:
    """Wait until `claim` holds; fail with what `instead` tells when it does not within the time.

    On a busy machine the time is as much longer as everything there takes.
    """
    began, pause_s = time.monotonic(), 0.01
    while not claim():
        spent_s = time.monotonic() - began
        if spent_s > within_s and spent_s > within_s * slowness():
            raise AssertionError(f"not within {within_s:g} s: {instead()}")
        time.sleep(pause_s)
        pause_s = min(0.2, 1.3 * pause_s)


def slowness() -> float:
    """Return how many times longer than alone a computation takes on this machine now, from 1 to `SLOWEST`.

    Limits of time that a test sets are multiplied by it: what is tested is the order of events, not the machine.
    """
    began, worked = time.monotonic(), time.thread_time()
    while time.thread_time() - worked < _WORK_S:
        pass
    return min(SLOWEST, max(1.0, (time.monotonic() - began) / _WORK_S))
