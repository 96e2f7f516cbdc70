"""A circuit breaker: calls to a dependency that keeps failing, or keeps being slow, are refused at once for a while.

It keeps time on the monotonic clock. A call that exceeds its time limit failed; a call that was cancelled from outside
says nothing, and so does one whose limit was too short to be fair. After a pause exactly one call may try again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final, TypeVar

import psycopg

from infra import tracing
from infra.clock import Clock
from infra.metrics import ServingMetrics
from infra.settings import BreakerSettings
from serving.errors import BreakerOpen

T = TypeVar("T")
_BUCKETS: Final = 10


class Dependency(StrEnum):
    """What a breaker stands in front of."""

    POSTGRES = "postgres"
    POSTGRES_WRITES = "postgres_writes"  # apart from reads: a full disk ends writes and leaves answers as they were
    REPLICA = "replica"
    ONLINE_STORE = "online_store"
    REDIS = "redis"
    MLFLOW = "mlflow"
    RANKER_SERVICE = "ranker_service"


class BreakerState(StrEnum):
    """Whether calls pass: all, one that tries, or none."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


class Result(StrEnum):
    """How a call through a breaker ended."""

    SUCCESS = "success"
    SLOW = "slow"
    FAILURE = "failure"
    TIMEOUT = "timeout"
    NEUTRAL = "neutral"
    REFUSED = "refused"


STATE_SHOWN: Final = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


def every_failure_counts(error: Exception) -> bool:
    """Say that any error is the dependency's."""
    del error
    return True


class Breaker:
    """The breaker of one dependency; `blames` says which errors are its fault, others count as success."""

    def __init__(
        self,
        name: str,
        settings: BreakerSettings,
        clock: Clock,
        metrics: ServingMetrics,
        blames: Callable[[Exception], bool] = every_failure_counts,
    ) -> None:
        self.name = name
        self._settings = settings
        self._clock = clock
        self._blames = blames
        self._window = _Window(settings.window_s)
        self._state = BreakerState.CLOSED
        self._opened_s = 0.0
        self._probing = False
        # Calls that began before the last change of state say nothing about the time after it.
        self._epoch = 0
        self._gauge = metrics.breaker_state.labels(name)
        self._gauge.set(0)
        self._counts = {result: metrics.breaker_calls.labels(name, result.value) for result in Result}

    @property
    def state(self) -> BreakerState:
        """Return the state; an open breaker whose pause is over is half open."""
        if self._state is BreakerState.OPEN and self._pause_left_s() <= 0:
            return BreakerState.HALF_OPEN
        return self._state

    def note(self) -> None:
        """Put the state into the metrics: without any calls an open breaker becomes half open unnoticed."""
        self._gauge.set(STATE_SHOWN[self.state])

    async def call(self, operation: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        """Await the operation for at most `timeout_s`; raises BreakerOpen, TimeoutError, or what it raised."""
        epoch = self._enter()
        began_s = self._clock.monotonic()
        fair = timeout_s >= self._settings.fair_timeout_ms / 1000
        result = Result.NEUTRAL  # stays so when the call is cancelled from outside
        limit = asyncio.timeout(timeout_s)
        try:
            with tracing.span(self.name):
                async with limit:
                    answer = await operation()
            slow = fair and self._clock.monotonic() - began_s >= self._settings.slow_share * timeout_s
            result = Result.SLOW if slow else Result.SUCCESS
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                result = Result.TIMEOUT if fair else Result.NEUTRAL
            else:
                result = Result.FAILURE if self._blames(error) else Result.SUCCESS
            raise
        finally:
            self._leave(epoch, result)
        return answer

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Count how the block ends, however long it takes; raises BreakerOpen instead of it while calls are cut off."""
        epoch = self._enter()
        result = Result.NEUTRAL  # stays so when the block is cancelled, or ends by an error that is nobody's fault
        try:
            yield
            result = Result.SUCCESS
        except Exception as error:
            if self._blames(error):
                result = Result.FAILURE
            raise
        finally:
            self._leave(epoch, result)

    def _enter(self) -> int:
        if self._state is BreakerState.OPEN and self._pause_left_s() <= 0:
            self._become(BreakerState.HALF_OPEN)
        if self._state is BreakerState.OPEN or self._probing:
            self._counts[Result.REFUSED].inc()
            raise BreakerOpen(
                f"Calls to {self.name} failed a moment ago and are not tried again yet.",
                retry_after_s=max(self._pause_left_s(), 0.0),
            )
        self._probing = self._state is BreakerState.HALF_OPEN
        return self._epoch

    def _leave(self, epoch: int, result: Result) -> None:
        self._counts[result].inc()
        if epoch != self._epoch:
            return
        if self._state is BreakerState.HALF_OPEN:
            self._probing = False
            if result is not Result.NEUTRAL:
                self._become(BreakerState.CLOSED if result is Result.SUCCESS else BreakerState.OPEN)
        elif result is not Result.NEUTRAL:
            self._window.note(self._clock.monotonic(), result)
            if result is not Result.SUCCESS and self._too_bad():
                self._become(BreakerState.OPEN)

    def _too_bad(self) -> bool:
        n, failed, slow = self._window.sums(self._clock.monotonic())
        limits = self._settings
        return n >= limits.min_calls and (failed >= limits.failure_rate * n or slow >= limits.slow_rate * n)

    def _become(self, state: BreakerState) -> None:
        self._state = state
        self._epoch += 1
        self._probing = False
        self._window.clear()
        if state is BreakerState.OPEN:
            self._opened_s = self._clock.monotonic()
        self._gauge.set(STATE_SHOWN[state])

    def _pause_left_s(self) -> float:
        return (
            self._opened_s + self._settings.open_s - self._clock.monotonic()
            if self._state is BreakerState.OPEN
            else 0.0
        )


def breakers(settings: BreakerSettings, clock: Clock, metrics: ServingMetrics) -> dict[Dependency, Breaker]:
    """Return a closed breaker for each dependency."""
    return {name: Breaker(name, settings, clock, metrics, blames=_blames_the_server) for name in Dependency}


def _blames_the_server(error: Exception) -> bool:
    # An id that nobody has, or one that is taken, is the client's doing.
    return not isinstance(error, psycopg.IntegrityError | psycopg.DataError)


class _Window:
    """Counts of the last `window_s` seconds in a few buckets: calls, failed ones, slow or timed-out ones."""

    def __init__(self, window_s: float) -> None:
        self._bucket_s = window_s / _BUCKETS
        self._buckets: dict[int, list[int]] = {}

    def note(self, at_s: float, result: Result) -> None:
        bucket = self._buckets.setdefault(int(at_s / self._bucket_s), [0, 0, 0])
        bucket[0] += 1
        bucket[1] += result in (Result.FAILURE, Result.TIMEOUT)
        bucket[2] += result in (Result.SLOW, Result.TIMEOUT)
        if len(self._buckets) > _BUCKETS:
            self._forget(at_s)

    def sums(self, at_s: float) -> tuple[int, int, int]:
        self._forget(at_s)
        rows = self._buckets.values()
        return sum(r[0] for r in rows), sum(r[1] for r in rows), sum(r[2] for r in rows)

    def clear(self) -> None:
        self._buckets.clear()

    def _forget(self, at_s: float) -> None:
        oldest = int(at_s / self._bucket_s) - _BUCKETS
        for number in [number for number in self._buckets if number <= oldest]:
            del self._buckets[number]
