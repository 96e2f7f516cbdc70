"""Whether something that starts still makes progress: its log grows, or its processes use the processor.

A limit of time alone gives up on a database that recovers, or on a service that loads a million people on a busy
machine, minutes before it is ready. So a start is given up when it has made no progress for its whole limit, and at
the latest after `MOST` times the limit, because an endless loop makes progress for ever.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

MOST = 10
BUSY_SHARE = 0.05
LOOK_EVERY_S = 1.0


class Progress:
    """Watches one start.

    Args:
        limit_s: how long it may go without progress.
        log: its log file.
        processes: returns the processes of the start; those that are gone do not matter.
    """

    def __init__(self, limit_s: float, log: Path, processes: Callable[[], Iterable[psutil.Process]]) -> None:
        self._limit_s = limit_s
        self._log = log
        self._processes = processes
        self._began = self._moved = self._looked = time.monotonic()
        self._seen = (self._size(), self._used())

    @property
    def is_late(self) -> bool:
        """Tell whether the start takes longer than its limit."""
        return time.monotonic() - self._began > self._limit_s

    def given_up(self) -> str | None:
        """Return for how long there was no progress, in words, once that is too long; else None."""
        now = time.monotonic()
        interval = now - self._looked
        if interval >= min(LOOK_EVERY_S, self._limit_s / 4):
            size, used = self._size(), self._used()
            if size != self._seen[0] or used - self._seen[1] > BUSY_SHARE * interval:
                self._moved = now
            self._looked, self._seen = now, (size, used)
        if now - self._moved > self._limit_s:
            return f"after {now - self._began:.0f} s, the last {now - self._moved:.0f} s of them without progress"
        if now - self._began > MOST * self._limit_s:
            return f"after {now - self._began:.0f} s, {MOST} times its limit"
        return None

    def _size(self) -> int:
        with suppress(OSError):
            return self._log.stat().st_size
        return 0

    def _used(self) -> float:
        used = 0.0
        for process in self._processes():
            with suppress(psutil.Error):
                times = process.cpu_times()
                used += times.user + times.system
        return used


def family(pid: int) -> list[psutil.Process]:
    """Return the process `pid` and everything it started, as far as it lives."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []
