import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from infra.db import postgres
from infra.endpoints import Endpoints
from infra.settings import Settings
from serving.logs import row_log
from serving.logs.impressions import INSERT_ANSWERS, INSERT_IMPRESSIONS, Answered, Impression
from serving.logs.row_log import BATCH, RowLog
from tests.serving_world import START

REQUEST_ID = UUID(int=7)


class Way:
    """The way to Postgres: a pool that can be cut off, before a statement or after its commit."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.fails: BaseException | None = None
        self.fails_after: BaseException | None = None
        self.fates = {"stored": 0, "lost": 0}

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        if self.fails is not None:
            raise self.fails
        async with self.pool.connection() as connection:
            yield connection
        if self.fails_after is not None:
            failure, self.fails_after = self.fails_after, None
            raise failure

    def log(self, max_queued: int = 1000) -> RowLog[Impression]:
        way: Any = self
        return RowLog(way, "impressions", INSERT_IMPRESSIONS, self.count, max_queued)

    def count(self, fate: str, rows: int) -> None:
        self.fates[fate] += rows


Use = Callable[[Way], Coroutine[Any, Any, None]]
On = Callable[[Use], dict[str, int]]


@pytest.fixture
def on(connection: psycopg.Connection[Any], endpoints: Endpoints, settings: Settings) -> On:
    connection.commit()

    def on(use: Use) -> dict[str, int]:
        async def go() -> dict[str, int]:
            limits = settings.postgres.model_copy(update={"pool_size": 2, "max_overflow": 0, "checkout_timeout_s": 2.0})
            async with postgres.open_pool(endpoints.database_url, limits) as pool:
                way = Way(pool)
                await use(way)
                return way.fates

        return asyncio.run(go())

    return on


def impression(position: int, request_id: UUID = REQUEST_ID, **changes: Any) -> Impression:
    row = Impression(request_id, 1, 2, position, 0.5, 1.0, "retrieval", "e1-i1-r1", "champion", 1, START)
    return row._replace(**changes)


def rows_of(connection: psycopg.Connection[Any]) -> list[Any]:
    connection.rollback()
    return connection.execute(
        "select position, score, propensity, source, release, variant, level, shown_at from duet.impressions"
        " order by position"
    ).fetchall()


def test_every_column_arrives_as_it_was(on: On, connection: psycopg.Connection[Any]) -> None:
    async def use(way: Way) -> None:
        log = way.log()
        strange = impression(2, release=None, score=-1e-7, variant='a "b", \\{}', propensity=float("nan"))
        log.add([impression(1), strange])
        assert await log.flush()

    assert on(use) == {"stored": 2, "lost": 0}
    first, second = rows_of(connection)
    assert first == (1, 0.5, 1.0, "retrieval", "e1-i1-r1", "champion", 1, START)
    assert (second[3:6], second[1]) == (("retrieval", None, 'a "b", \\{}'), pytest.approx(-1e-7))
    assert second[2] != second[2]


def test_many_are_written_in_several_batches(on: On, connection: psycopg.Connection[Any]) -> None:
    async def use(way: Way) -> None:
        log = way.log()
        log.add([impression(1, uuid4()) for _ in range(2 * BATCH + 1)])
        assert await log.flush()

    assert on(use) == {"stored": 2 * BATCH + 1, "lost": 0}
    assert len(rows_of(connection)) == 2 * BATCH + 1


def test_a_busy_log_leaves_what_fills_no_batch_for_the_next(on: On, connection: psycopg.Connection[Any]) -> None:
    async def use(way: Way) -> None:
        log = way.log()
        log.add([impression(1, uuid4()) for _ in range(BATCH + 1)])
        assert await log.flush(BATCH)
        assert way.fates == {"stored": BATCH, "lost": 0}
        assert await log.flush()

    assert on(use) == {"stored": BATCH + 1, "lost": 0}


def test_a_repeated_request_id_is_counted_as_lost(on: On, connection: psycopg.Connection[Any]) -> None:
    async def use(way: Way) -> None:
        log = way.log()
        for places in ([1, 2], [2]):
            log.add([impression(place) for place in places])
            await log.flush()

    assert on(use) == {"stored": 2, "lost": 1}


@pytest.mark.parametrize("failure", [psycopg.OperationalError("gone"), ConnectionResetError(), TimeoutError()])
def test_a_short_outage_loses_nothing(on: On, connection: psycopg.Connection[Any], failure: BaseException) -> None:
    async def use(way: Way) -> None:
        log = way.log()
        way.fails = failure
        log.add([impression(1)])
        assert not await log.flush()
        log.add([impression(2)])
        assert way.fates == {"stored": 0, "lost": 0}
        way.fails = None
        assert await log.flush()

    assert on(use) == {"stored": 2, "lost": 0}
    assert len(rows_of(connection)) == 2


def test_rows_whose_acknowledgement_was_lost_are_stored_once_and_counted_once(
    on: On, connection: psycopg.Connection[Any]
) -> None:
    async def use(way: Way) -> None:
        log = way.log()
        way.fails_after = psycopg.OperationalError("server closed the connection unexpectedly")
        log.add([impression(1), impression(2)])
        assert not await log.flush()
        assert await log.flush()

    assert on(use) == {"stored": 2, "lost": 0}
    assert len(rows_of(connection)) == 2


def test_a_long_outage_loses_only_what_the_queue_cannot_hold_and_counts_it(on: On) -> None:
    async def use(way: Way) -> None:
        log = way.log(max_queued=10)
        way.fails = psycopg.OperationalError("gone")
        log.add([impression(place) for place in range(1, 9)])
        await log.flush()
        log.add([impression(place) for place in range(9, 12)])
        assert way.fates == {"stored": 0, "lost": 3}
        way.fails = None
        await log.flush()

    assert on(use) == {"stored": 8, "lost": 3}


def test_rows_that_postgres_refuses_do_not_hold_up_the_next(on: On, connection: psycopg.Connection[Any]) -> None:
    async def use(way: Way) -> None:
        log = way.log()
        log.add([impression(-1, uuid4()) for _ in range(BATCH)])
        log.add([impression(1)])
        assert await log.flush()

    assert on(use) == {"stored": 1, "lost": BATCH}
    assert len(rows_of(connection)) == 1


def test_what_is_queued_is_written_when_the_process_stops(on: On, connection: psycopg.Connection[Any]) -> None:
    async def use(way: Way) -> None:
        log = way.log()
        log.add([impression(1)])
        task = asyncio.create_task(log.run())
        log.close()
        await task

    assert on(use) == {"stored": 1, "lost": 0}
    assert len(rows_of(connection)) == 1


def test_a_stopping_process_does_not_wait_for_ever_and_counts_what_it_leaves(
    on: On, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_log, "CLOSE_S", 0.3)

    async def use(way: Way) -> None:
        log = way.log()
        way.fails = psycopg.OperationalError("gone")
        log.add([impression(1)])
        task = asyncio.create_task(log.run())
        log.close()
        async with asyncio.timeout(5):
            await task

    assert on(use) == {"stored": 0, "lost": 1}


def test_every_column_of_an_answer_arrives_as_it_was(on: On, connection: psycopg.Connection[Any]) -> None:
    plain = Answered(
        REQUEST_ID,
        1,
        "taste",
        "challenger",
        "champion",
        "e1-i1-r1",
        1,
        "challenger_failed",
        10,
        12.5,
        True,
        False,
        START,
    )
    bare = plain._replace(request_id=UUID(int=8), experiment=None, release=None, reason=None, failed=True, cached=False)

    async def use(way: Way) -> None:
        pool: Any = way
        log = RowLog[Answered](pool, "answers", INSERT_ANSWERS, way.count)
        log.add([plain, bare])
        assert await log.flush()

    assert on(use) == {"stored": 2, "lost": 0}
    connection.rollback()
    rows = connection.execute("select * from duet.answers order by request_id").fetchall()
    assert rows == [tuple(plain), tuple(bare)]
