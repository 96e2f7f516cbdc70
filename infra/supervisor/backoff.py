"""How long to wait before a process that died is started again: longer each time, and short again after good health."""

from dataclasses import dataclass

FIRST_S = 1.0
LONGEST_S = 60.0
RESET_AFTER_S = 300.0


@dataclass
class Backoff:
    """The waits of one process; there is no last attempt.

    Attributes:
        attempts: starts since the process was last healthy for `RESET_AFTER_S`.
        healthy_since: when it became healthy, None while it is not; seconds of the caller's monotonic clock.
    """

    attempts: int = 0
    healthy_since: float | None = None

    def healthy(self, now: float) -> None:
        """Note that the process is healthy; only the first call after a failure counts."""
        if self.healthy_since is None:
            self.healthy_since = now

    def failed(self, now: float) -> float:
        """Note that the process failed and return the seconds to wait before it is started again."""
        if self.healthy_since is not None and now - self.healthy_since >= RESET_AFTER_S:
            self.attempts = 0
        self.healthy_since = None
        self.attempts += 1
        return float(min(LONGEST_S, FIRST_S * 2 ** min(self.attempts - 1, 10)))
