"""Bounds how many calls one worker works on at once; the rest wait shortly or are refused at once.

A service that takes every call finishes none in time. Past the bound a call waits in a short queue, and is refused
before it waits in vain: when the queue is full, or when places have lately come free too slowly for it. Refusing needs
neither the body nor the database.

How many places there are follows what the event loop can do. Where calls hold their place for too long because they
wait for each other's computing (the machine is slow just now, or has other work), all of them would be late: fewer are
let in, and as many answers come, in time. Waiting for a slow dependency takes no place away.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from infra.clock import Clock
from infra.metrics import ServingMetrics
from serving.errors import Overloaded

_SMOOTHING = 0.05
_FEWEST = 2
_LATE_SHARE = 0.1
"""Of the calls that ended in a period, how many may have been late before there is less room."""
_SHRINK = 0.5, 0.9
"""What is left of the room after a period in which too many were late, at least and at most."""
_GROW = 1.0
_OF_THE_LOOP = 0.05
"""An answer takes twenty turns of the event loop or so: from this share of its time in one turn, it is the loop that
it waits for."""
_PERIOD_S = 0.1
_SURE = 0.75
"""Of the longest wait, what a call may expect to wait: most that hoped for more would be refused after waiting."""
_OUTCOMES = ("admitted", "queued", "refused")


class Limiter:
    """Places for calls: `max_concurrency` at once, `max_queued` waiting, each at most `queue_timeout_s`.

    There are fewer places, never more, while calls hold theirs for longer than `longest_s` because of the event loop.
    """

    def __init__(
        self,
        *,
        max_concurrency: int,
        max_queued: int,
        queue_timeout_s: float,
        clock: Clock,
        metrics: ServingMetrics,
        longest_s: float = math.inf,
    ) -> None:
        self._most = max_concurrency
        self._room = float(max_concurrency)
        self._longest_s = longest_s
        self._max_queued = max_queued
        self._queue_timeout_s = queue_timeout_s
        self._clock = clock
        self._admissions = {outcome: metrics.admissions.labels(outcome) for outcome in _OUTCOMES}
        self._shown_in_flight = metrics.in_flight
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._held_s = 0.0
        self._period = _Period(clock.monotonic())
        self.in_flight = 0

    @property
    def places(self) -> int:
        """Return how many calls may be worked on at once just now."""
        return int(self._room)

    @property
    def queued(self) -> int:
        """Return how many calls wait."""
        return len(self._waiting)

    def refuse_in_vain(self) -> None:
        """Raise Overloaded when a call that came now would not get a place in time."""
        refusal = self.in_vain()
        if refusal is not None:
            raise refusal

    def in_vain(self) -> Overloaded | None:
        """Return, counted, the refusal of a call that came now when it would not get a place in time."""
        if self.in_flight < self.places and not self._waiting:
            return None
        # Places come free every `held / max` seconds: the last in the queue waits once for each before it.
        expected_s = self._held_s / self.places * (len(self._waiting) + 1)
        if len(self._waiting) >= self._max_queued or expected_s > _SURE * self._queue_timeout_s:
            return self._refusal(expected_s)
        return None

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place for the block; raises Overloaded."""
        await self._take()
        began = self._clock.monotonic()
        turn_s = 0.0
        try:
            await asyncio.sleep(0)
            turn_s = self._clock.monotonic() - began
            yield
        finally:
            ended = self._clock.monotonic()
            self._held_s += _SMOOTHING * (ended - began - self._held_s)
            self.in_flight -= 1
            self._adapt(ended, ended - began, turn_s)
            self._admit()

    def _adapt(self, now: float, held_s: float, turn_s: float) -> None:
        """Count a call that ended now; at the end of a period make or take room."""
        period = self._period
        period.note(held_s, turn_s, late=held_s > self._longest_s)
        if now - period.began_s < _PERIOD_S:
            return
        self._period = _Period(now)
        if period.too_late():
            self._room = max(self._room * period.left(self._longest_s), min(_FEWEST, self._most))
        else:
            self._room = min(self._room + _GROW, self._most)

    async def _take(self) -> None:
        if self.in_flight < self.places and not self._waiting:
            self.in_flight += 1
            self._shown_in_flight.set(self.in_flight)
            self._admissions["admitted"].inc()
            return
        self.refuse_in_vain()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await turn
        except TimeoutError:
            self._leave(turn)
            raise self._refusal(self._queue_timeout_s) from None
        except asyncio.CancelledError:
            self._leave(turn)
            raise
        self._admissions["queued"].inc()

    def _leave(self, turn: "asyncio.Future[None]") -> None:
        if turn.done() and not turn.cancelled():  # it got its place just when the call gave up
            self.in_flight -= 1
            self._admit()
        elif turn in self._waiting:
            self._waiting.remove(turn)

    def _admit(self) -> None:
        """Give every free place to the call that waits longest: none that comes later may take it before."""
        while self._waiting and self.in_flight < self.places:
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)
        self._shown_in_flight.set(self.in_flight)

    def _refusal(self, expected_s: float) -> Overloaded:
        self._admissions["refused"].inc()
        return Overloaded(
            "More calls arrive than can be answered in time: try again.", retry_after_s=max(1, math.ceil(expected_s))
        )


class _Period:
    """What the calls that ended in a stretch of time say of the room there is."""

    def __init__(self, began_s: float) -> None:
        self.began_s = began_s
        self._ended = 0
        self._late = 0
        self._held_s = 0.0
        self._turns_s = 0.0

    def note(self, held_s: float, turn_s: float, *, late: bool) -> None:
        self._ended += 1
        self._late += late
        self._held_s += held_s
        self._turns_s += turn_s

    def too_late(self) -> bool:
        """Say whether too many were late, and the event loop is why."""
        return self._late > _LATE_SHARE * self._ended and self._turns_s > _OF_THE_LOOP * self._held_s

    def left(self, longest_s: float) -> float:
        """Return the share of the room in which calls would be in time."""
        least, most = _SHRINK
        return min(max(longest_s * self._ended / self._held_s, least), most)
