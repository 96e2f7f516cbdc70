"""Writes rows in batches and off the request path: impressions and answers, the only honest base for evaluation.

The queue is bounded and never waits. While the database is away rows stay in it and are sent again, so a short outage
loses nothing; when it is full, or the database refuses what the rows say, they are lost, counted in the metric and
named in a log line. An answer is never held up by its own log.

Columns travel as array literals. Of 500 rows, psycopg's own lists of values cost 14 us of processor a row and held the
event loop for 10 ms at a time, COPY into a temporary table 10 us, literals 5 us; 2,000 rows as lists held it for 85 ms.
A row of an answer, whose values hardly repeat, costs 7 us, and 1.5 us more to make and queue.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

import psycopg
import structlog

from infra.db.connection_pool import ConnectionPool
from infra.errors import NoConnection

STORED: Final = "stored"
LOST: Final = "lost"
FATES: Final = (STORED, LOST)
MAX_QUEUED: Final = 50_000
BATCH: Final = 250
FLUSH_S: Final = 1.0
MAX_PAUSE_S: Final = 5.0
CLOSE_S: Final = 3.0
"""Of a stopping process, the longest time for what is still queued."""
_WRITE_S: Final = 5.0
# The database or the way to it is away: the same rows may be stored later. All else is about the rows themselves.
_PASSING = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,  # the primary has just become a replica
    NoConnection,
    TimeoutError,
    OSError,
)
_log = structlog.get_logger(__name__)
Row = TypeVar("Row", bound=tuple[Any, ...])


class RowLog(Generic[Row]):
    """Collects rows and writes them with `insert`, which takes one array literal for each column.

    `count` receives (one of `FATES`, rows); `what` names the rows in log lines.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        what: str,
        insert: bytes,
        count: Callable[[str, int], None],
        max_queued: int = MAX_QUEUED,
    ) -> None:
        self._pool = pool
        self._what = what
        self._insert = insert
        self._count = count
        self._max_queued = max_queued
        self._queued: deque[Row] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._outage: str | None = None

    def add(self, rows: Sequence[Row]) -> None:
        """Queue rows; never waits, drops them when the queue is full."""
        if len(self._queued) + len(rows) > self._max_queued:
            self._lose(len(rows), f"the queue is full; the database: {self._outage or 'too slow'}")
            return
        self._queued.extend(rows)
        if len(self._queued) >= BATCH and self._outage is None:
            self._wake.set()

    async def run(self) -> None:
        """Write batches until `close`, then what is left, for a while."""
        pause_s = FLUSH_S
        while not self._closing:
            least = BATCH
            try:
                await asyncio.wait_for(self._wake.wait(), pause_s)
            except TimeoutError:
                least = 1
            self._wake.clear()
            pause_s = FLUSH_S if await self.flush(least) else min(2 * pause_s, MAX_PAUSE_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while not await self.flush():  # noqa: ASYNC110 nothing tells when a database is back
                    await asyncio.sleep(FLUSH_S / 5)
        if self._queued:
            self._lose(len(self._queued), f"the process ends; the database: {self._outage or 'too slow'}")
            self._queued.clear()

    def close(self) -> None:
        """Make `run` write what is left and return."""
        self._closing = True
        self._wake.set()

    async def flush(self, least: int = 1) -> bool:
        """Write all that is queued while there are `least` rows; False when the database is away, and the rest waits.

        Under load rows arrive while others are written: a statement for each few of them would cost more than they do.
        """
        while len(self._queued) >= least:
            batch = list(islice(self._queued, BATCH))
            try:
                async with asyncio.timeout(_WRITE_S), self._pool.connection() as connection:
                    stored = (await connection.execute(self._insert, _columns(batch))).rowcount
            except _PASSING as error:
                if self._outage is None:
                    _log.warning("rows_wait", what=self._what, rows=len(self._queued), why=type(error).__name__)
                self._outage = type(error).__name__
                return False
            except psycopg.Error as error:
                self._drop(len(batch))
                self._lose(len(batch), type(error).__name__)
                continue
            self._drop(len(batch))
            # After a failure the same rows may have arrived before the answer was lost: they are there, all the same.
            known = 0 if self._outage is None else len(batch) - stored
            self._outage = None
            self._count(STORED, stored + known)
            if stored + known < len(batch):
                self._lose(len(batch) - stored, "the request id was used before")
            await asyncio.sleep(0)
        return True

    def _drop(self, n: int) -> None:
        for _ in range(n):
            self._queued.popleft()

    def _lose(self, rows: int, why: str) -> None:
        self._count(LOST, rows)
        _log.warning("rows_lost", what=self._what, rows=rows, why=why)


def _columns(batch: Sequence[tuple[Any, ...]]) -> list[str]:
    return [_array(column) for column in zip(*batch, strict=True)]


def _array(values: Sequence[Any]) -> str:
    """Return values as a literal of a Postgres array."""
    different = dict.fromkeys(values)
    if 2 * len(different) > len(values):
        return "{" + ",".join(map(_element, values)) + "}"
    literals = {value: _element(value) for value in different}
    return "{" + ",".join(map(literals.__getitem__, values)) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, (float, int)):
        return str(value)
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, datetime):
        return f'"{value}"'
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
