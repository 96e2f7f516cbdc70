"""Bounds how many calls one worker works on at once; the rest wait shortly or are refused at once.

A service that takes every call finishes none in time. Past the bound a call waits in a short queue, and is refused
before it waits in vain: when the queue is full, or when places have lately come free too slowly for it. Refusing needs
neither the body nor the database.
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


class Limiter:
    """Places for calls: `max_concurrency` at once, `max_queued` waiting, each at most `queue_timeout_s`."""

    def __init__(
        self, *, max_concurrency: int, max_queued: int, queue_timeout_s: float, clock: Clock, metrics: ServingMetrics
    ) -> None:
        self._max = max_concurrency
        self._max_queued = max_queued
        self._queue_timeout_s = queue_timeout_s
        self._clock = clock
        self._metrics = metrics
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._held_s = 0.0
        self.in_flight = 0

    @property
    def queued(self) -> int:
        """Return how many calls wait."""
        return len(self._waiting)

    def refuse_in_vain(self) -> None:
        """Raise Overloaded when a call that came now would not get a place in time."""
        if self.in_flight < self._max:
            return
        # Places come free every `held / max` seconds: the last in the queue waits once for each before it.
        expected_s = self._held_s / self._max * (len(self._waiting) + 1)
        if len(self._waiting) >= self._max_queued or expected_s > self._queue_timeout_s:
            raise self._refusal(expected_s)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place for the block; raises Overloaded."""
        await self._take()
        began = self._clock.monotonic()
        try:
            yield
        finally:
            self._held_s += _SMOOTHING * (self._clock.monotonic() - began - self._held_s)
            self._give()

    async def _take(self) -> None:
        if self.in_flight < self._max:
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
        self._metrics.admissions.labels(outcome).inc()
        if not handed_over:
            self.in_flight += 1
            self._metrics.in_flight.set(self.in_flight)

    def _leave(self, turn: "asyncio.Future[None]") -> None:
        if turn.done() and not turn.cancelled():
            self._give()  # the place was handed over just when the call gave up
        elif turn in self._waiting:
            self._waiting.remove(turn)

    def _give(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)  # the place goes over: nobody new can slip in between
                return
        self.in_flight -= 1
        self._metrics.in_flight.set(self.in_flight)

    def _refusal(self, expected_s: float) -> Overloaded:
        self._metrics.admissions.labels("refused").inc()
        return Overloaded(
            "More calls arrive than can be answered in time: try again.", retry_after_s=max(1, math.ceil(expected_s))
        )
