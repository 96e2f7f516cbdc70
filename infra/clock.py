"""The only place that reads the wall clock; everything else receives a `Clock`.

Wall time is always aware and in UTC. Durations are measured on the monotonic clock, never by subtracting wall times.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
"""No interaction, profile or visit is older: what claims to be is a zero, a wrong unit or a typing error."""


class Clock(Protocol):
    """Tell wall time and monotonic time."""

    def now(self) -> datetime:
        """Return the aware UTC wall time."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """Return the aware UTC wall time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        return time.monotonic()


class FixedClock:
    """A clock that moves only when told to, for tests and for replaying the past."""

    def __init__(self, at: datetime) -> None:
        if at.tzinfo is None:
            raise ValueError(f"FixedClock needs an aware time, got `{at.isoformat()}`: add a time zone.")
        self._at = at.astimezone(UTC)
        self._monotonic_s = 0.0

    def now(self) -> datetime:
        """Return the aware UTC wall time it was set to."""
        return self._at

    def monotonic(self) -> float:
        """Return seconds advanced so far."""
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by `seconds`; going back raises ValueError."""
        if seconds < 0:
            raise ValueError(f"A clock cannot go back by {seconds} s.")
        self._at += timedelta(seconds=seconds)
        self._monotonic_s += seconds
