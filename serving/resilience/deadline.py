"""One absolute, monotonic deadline per request: set where the request came in, and handed down.

A stage asks for a share of what is left when it begins, so time that one of them saves is there for the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from infra.clock import Clock
from serving.errors import InvalidRequest

HEADER = b"x-deadline-ms"
SHORTEST_MS = 10
_DIGITS = 9


@dataclass(frozen=True)
class Deadline:
    """The moment `at_s` (monotonic seconds) after which an answer is late."""

    at_s: float
    clock: Clock

    @classmethod
    def after(cls, seconds: float, clock: Clock) -> Self:
        """Return the deadline that lies so many seconds ahead."""
        return cls(clock.monotonic() + seconds, clock)

    def remaining_s(self) -> float:
        """Return the seconds left; 0 when it is over."""
        return max(self.at_s - self.clock.monotonic(), 0.0)

    def share(self, fraction: float) -> float:
        """Return `fraction` of the seconds left."""
        return self.remaining_s() * fraction


def asked_ms(headers: Mapping[bytes, bytes], longest_ms: int) -> int | None:
    """Return the budget that the client's `X-Deadline-Ms` names, None without one; raises InvalidRequest."""
    value = headers.get(HEADER)
    if value is None:
        return None
    if value.isdigit() and len(value) <= _DIGITS and SHORTEST_MS <= int(value) <= longest_ms:
        return int(value)
    between = f"must be a whole number of milliseconds from {SHORTEST_MS} to {longest_ms}"
    raise InvalidRequest(f"`X-Deadline-Ms` {between}.", [{"field": "X-Deadline-Ms", "message": between}])
