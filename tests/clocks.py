"""A clock that tests move."""

from datetime import UTC, datetime, timedelta


class FixedClock:
    """A clock that moves only when told to."""

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
