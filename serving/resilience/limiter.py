"""Bounds how many calls one worker works on at once; the rest wait shortly or are refused at once.

A service that takes every call finishes none in time. Past the bound a call waits in a short queue, and is refused
before it waits in vain: when the queue is full, or when places have lately come free too slowly for it. Refusing needs
neither the body nor the database.

How many places there are follows the event loop: where calls compute for so long between each other's steps that all
of them would be late, fewer are let in, so that those are in time. Waiting for a slow dependency takes no place away.
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
_FEWEST = 4
_SHRINK, _GROW = 0.9, 0.25
_OUTCOMES = ("admitted", "queued", "refused")


class Limiter:
    """Places for calls: `max_concurrency` at once, `max_queued` waiting, each at most `queue_timeout_s`.

    There are fewer places, never more, while a turn of the event loop takes longer than `longest_turn_s`.
    """

    def __init__(
        self,
        *,
        max_concurrency: int,
        max_queued: int,
        queue_timeout_s: float,
        clock: Clock,
        metrics: ServingMetrics,
        longest_turn_s: float = math.inf,
    ) -> None:
        self._most = max_concurrency
        self._room = float(max_concurrency)
        self._longest_turn_s = longest_turn_s
        self._max_queued = max_queued
        self._queue_timeout_s = queue_timeout_s
        self._clock = clock
        self._admissions = {outcome: metrics.admissions.labels(outcome) for outcome in _OUTCOMES}
        self._shown_in_flight = metrics.in_flight
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._held_s = 0.0
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
        if self.in_flight < self.places:
            return
        # Places come free every `held / max` seconds: the last in the queue waits once for each before it.
        expected_s = self._held_s / self.places * (len(self._waiting) + 1)
        if len(self._waiting) >= self._max_queued or expected_s > self._queue_timeout_s:
            raise self._refusal(expected_s)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place for the block; raises Overloaded."""
        await self._take()
        began = self._clock.monotonic()
        try:
            await asyncio.sleep(0)
            self._adapt(self._clock.monotonic() - began)
            yield
        finally:
            self._held_s += _SMOOTHING * (self._clock.monotonic() - began - self._held_s)
            self._give()

    def _adapt(self, turn_s: float) -> None:
        """Make or take room after a turn of the event loop that lasted so long."""
        if turn_s > self._longest_turn_s:
            self._room = max(self._room * _SHRINK, min(_FEWEST, self._most))
        else:
            self._room = min(self._room + _GROW, self._most)

    async def _take(self) -> None:
        if self.in_flight < self.places:
            self._enter("admitted")
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
        self._enter("queued", handed_over=True)

    def _enter(self, outcome: str, *, handed_over: bool = False) -> None:
        self._admissions[outcome].inc()
        if not handed_over:
            self.in_flight += 1
            self._shown_in_flight.set(self.in_flight)

    def _leave(self, turn: "asyncio.Future[None]") -> None:
        if turn.done() and not turn.cancelled():
            self._give()  # the place was handed over just when the call gave up
        elif turn in self._waiting:
            self._waiting.remove(turn)

    def _give(self) -> None:
        while self._waiting and self.in_flight <= self.places:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)  # the place goes over: nobody new can slip in between
                return
        self.in_flight -= 1
        self._shown_in_flight.set(self.in_flight)

    def _refusal(self, expected_s: float) -> Overloaded:
        self._admissions["refused"].inc()
        return Overloaded(
            "More calls arrive than can be answered in time: try again.", retry_after_s=max(1, math.ceil(expected_s))
        )
