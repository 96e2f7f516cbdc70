"""Measures how far the consumer of streams is behind: from serving, so that a consumer that is away is noticed."""

import asyncio
from typing import Final

import redis
from redis.asyncio import Redis

from infra import redis as infra_redis
from infra.clock import Clock
from infra.endpoints import Endpoints
from infra.metrics import ServingMetrics
from infra.settings import Settings
from serving.api.health import StreamLag, StreamsReport
from serving.resilience.background import Closing
from serving.streams.consumer import REDIS_S, redis_of
from serving.streams.group import OUTCOMES, StreamGroup

EVERY_S: Final = 5.0


def open_watcher(
    settings: Settings, endpoints: Endpoints, closing: Closing, *, clock: Clock, metrics: ServingMetrics
) -> "StreamWatcher | None":
    """Return what measures the streams of the settings, None where there are none; `closing` will close it."""
    wanted = settings.stream
    if not wanted.enabled:
        # A panel shows nought, and no gap. Otherwise none is shown before it is measured: it would look like a change.
        for stream in (wanted.interactions, wanted.people):
            metrics.stream_waiting.labels(stream).set(0)
            metrics.stream_oldest.labels(stream).set(0)
            for outcome in OUTCOMES:
                metrics.stream_settled.labels(stream, outcome).set(0)
        return None
    client = infra_redis.connect_async(redis_of(settings, endpoints), settings.redis, socket_timeout_s=REDIS_S)
    closing.add("streams", client.aclose)
    return StreamWatcher(settings, client, clock=clock, metrics=metrics)


class StreamWatcher:
    """Looks at both streams every few seconds."""

    def __init__(self, settings: Settings, client: Redis, *, clock: Clock, metrics: ServingMetrics) -> None:
        wanted = settings.stream
        self._groups = [StreamGroup(client, stream, wanted) for stream in (wanted.interactions, wanted.people)]
        self._clock, self._metrics = clock, metrics
        self._lags: dict[str, StreamLag] = {}
        self._problem: str | None = None

    def report(self) -> StreamsReport:
        """Return what health says."""
        return StreamsReport(status="on", lags=self._lags, message=self._problem)

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            try:
                await self.measure()
                self._problem = None
            except (redis.RedisError, OSError, TimeoutError) as error:
                self._problem = f"The streams could not be looked at: {type(error).__name__}."
            await asyncio.sleep(EVERY_S)

    async def measure(self) -> None:
        """Measure once; raises errors of Redis."""
        for group in self._groups:
            lag = await group.lag()
            oldest_s = 0.0
            if lag.oldest_at is not None:
                oldest_s = max(0.0, (self._clock.now() - lag.oldest_at).total_seconds())
            self._lags[group.stream] = StreamLag(
                waiting=lag.waiting, oldest_s=round(oldest_s, 3), dead_letters=lag.settled["dead_letter"]
            )
            self._metrics.stream_waiting.labels(group.stream).set(lag.waiting)
            self._metrics.stream_oldest.labels(group.stream).set(oldest_s)
            for outcome, n in lag.settled.items():
                self._metrics.stream_settled.labels(group.stream, outcome).set(n)
