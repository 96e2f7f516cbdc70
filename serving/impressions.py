"""Logs what was shown, in batches and off the request path: the only honest base for evaluation.

The queue is bounded and never waits: when it is full, or the database refuses a batch, the rows are lost, counted in
the metric and named in a log line. An answer is never held up by its own log.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import structlog
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

MAX_QUEUED = 20_000
MAX_BATCH = 2_000
FLUSH_S = 1.0

_INSERT = b"""
INSERT INTO duet.impressions
    (request_id, user_id, target_id, position, score, propensity, source, release, variant, level, shown_at)
SELECT * FROM unnest(
    %s::uuid[], %s::bigint[], %s::bigint[], %s::smallint[], %s::real[], %s::real[], %s::text[], %s::text[],
    %s::text[], %s::smallint[], %s::timestamptz[])
ON CONFLICT DO NOTHING
"""
_log = structlog.get_logger(__name__)


class Impression(NamedTuple):
    """One person shown at one position; `propensity` is the probability that exploration put them there."""

    request_id: UUID
    user_id: int
    target_id: int
    position: int
    score: float
    propensity: float
    source: str
    release: str | None
    variant: str
    level: int
    shown_at: datetime


class ImpressionLog:
    """Collects impressions and writes them; `count` receives ("stored" or "lost", rows)."""

    def __init__(self, pool: AsyncConnectionPool[Any], count: Callable[[str, int], None]) -> None:
        self._pool = pool
        self._count = count
        self._queued: list[Impression] = []
        self._wake = asyncio.Event()
        self._closing = False

    def add(self, impressions: Sequence[Impression]) -> None:
        """Queue impressions; never waits, drops them when the queue is full."""
        if len(self._queued) + len(impressions) > MAX_QUEUED:
            self._lose(len(impressions), "the queue is full")
            return
        self._queued.extend(impressions)
        if len(self._queued) >= MAX_BATCH:
            self._wake.set()

    async def run(self) -> None:
        """Write batches until `close`, then what is left."""
        while not self._closing:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), FLUSH_S)
            self._wake.clear()
            await self.flush()

    def close(self) -> None:
        """Make `run` write what is left and return."""
        self._closing = True
        self._wake.set()

    async def flush(self) -> None:
        """Write everything that is queued now."""
        while self._queued:
            batch, self._queued = self._queued[:MAX_BATCH], self._queued[MAX_BATCH:]
            try:
                async with self._pool.connection() as connection:
                    written = await connection.execute(_INSERT, [list(column) for column in zip(*batch, strict=True)])
            except (psycopg.Error, PoolTimeout, TooManyRequests, OSError) as error:
                self._lose(len(batch), type(error).__name__)
                return
            self._count("stored", written.rowcount)
            if written.rowcount < len(batch):
                self._lose(len(batch) - written.rowcount, "the request id was used before")

    def _lose(self, rows: int, why: str) -> None:
        self._count("lost", rows)
        _log.warning("impressions_lost", rows=rows, why=why)
