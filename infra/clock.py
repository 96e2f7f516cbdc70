"""The only place that reads the wall clock; everything else receives a `Clock`.

Wall time is always aware and in UTC. Durations are measured on the monotonic clock, never by subtracting wall times.
"""

import time
from datetime import UTC, datetime
from typing import Protocol

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
"""No interaction, profile or visit is older: what claims to be is a zero, a wrong unit or a typing error."""


def in_utc(instant: datetime) -> datetime:
    """Return the same instant in UTC; what a person wrote without a zone is UTC already."""
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


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
