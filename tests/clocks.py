"""A clock that tests move, and an event loop that moves it."""

import asyncio
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


class LeapingLoop(asyncio.SelectorEventLoop):
    """An event loop in which no wait takes time: where nothing is ready, the clock leaps to what is due next.

    Only for code without threads: the loop does not wait for them while something is due.
    """

    def __init__(self, clock: FixedClock) -> None:
        super().__init__()
        self._clock = clock
        select = self._selector.select

        def leap(timeout: float | None = None) -> object:
            ready = select(0 if timeout else timeout)
            if timeout and not ready:
                clock.advance(timeout)
            return ready

        self._selector.select = leap

    def time(self) -> float:
        """Return the seconds that the clock was advanced."""
        return self._clock.monotonic()
