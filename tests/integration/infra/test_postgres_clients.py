"""Clients of Postgres: timeouts that hold, errors without passwords, and many rows in and out."""

import asyncio
import contextlib
import threading
import uuid
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.db import pooled
from infra.db.migrate import HEAD, LOCK, SCHEMAS, current, upgrade
from infra.db.pooled import fetch_all
from infra.db.postgres import connect, open_pool, read_table
from infra.embedded.ports import free_port
from infra.endpoints import Endpoints
from infra.errors import MigrationError, ServerUnavailable
from infra.settings import PostgresSettings, Settings


def test_a_server_that_is_not_there_is_one_sentence_without_the_password() -> None:
    port = free_port()
    with pytest.raises(ServerUnavailable) as caught:
        connect(f"postgresql://duet:hunter2@127.0.0.1:{port}/duet")
    assert str(caught.value).startswith(f"PostgreSQL at `127.0.0.1:{port}/duet` cannot be reached: ")
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_statement_timeout_holds_beside_the_options_of_the_url(endpoints: Endpoints) -> None:
    url = endpoints.database_url + "?options=-csearch_path%3Dduet"
    with connect(url, statement_timeout_s=0.05) as connection:
        assert connection.execute("show search_path").fetchone() == ("duet",)
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("select pg_sleep(5)")


def test_work_in_the_background_takes_one_core_and_requests_are_planned_once(endpoints: Endpoints) -> None:
    with connect(endpoints.database_url, statement_timeout_s=5.0, parallel=False) as connection:
        assert connection.execute("show max_parallel_workers_per_gather").fetchone() == ("0",)
        assert connection.execute("show statement_timeout").fetchone() == ("5s",)
    settings = PostgresSettings(pool_size=1, checkout_timeout_s=10)

    async def planned() -> object:
        async with open_pool(endpoints.database_url, settings) as pool, pool.connection() as connection:
            return await (await connection.execute("show plan_cache_mode")).fetchone()

    assert asyncio.run(planned()) == ("force_generic_plan",)


def test_a_table_tells_null_from_empty_and_keeps_commas_and_line_breaks(connection: psycopg.Connection) -> None:
    texts = [None, "", "a,b", 'say "hi"', "two\nlines"]
    with connection.cursor() as cursor:
        cursor.executemany("insert into duet.users (user_id, bio) values (%s, %s)", list(enumerate(texts, start=1)))
    table = read_table(
        connection,
        "select user_id, bio, visible from duet.users where user_id <= %(most)s order by user_id",
        {"most": 5},
        types={"user_id": pa.int64(), "bio": pa.string()},
    )
    assert table["bio"].to_pylist() == texts
    assert table["visible"].to_pylist() == [True] * 5


def test_a_pool_replaces_connections_that_the_server_dropped(endpoints: Endpoints) -> None:
    settings = PostgresSettings(pool_size=1, max_overflow=1, checkout_timeout_s=10)

    async def survive() -> int:
        async with open_pool(endpoints.database_url, settings, application_name=f"duet-{uuid.uuid4()}") as pool:
            with connect(endpoints.database_url, autocommit=True) as killer:
                killer.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s", (pool.name,)
                )
            async with pool.connection() as connection:
                row = await (await connection.execute("select 1")).fetchone()
                return int(row[0])

    assert asyncio.run(survive()) == 1


def test_a_pool_stops_slow_statements(endpoints: Endpoints) -> None:
    settings = PostgresSettings(pool_size=1, statement_timeout_s=0.05, checkout_timeout_s=10)

    async def sleep() -> None:
        async with open_pool(endpoints.database_url, settings) as pool, pool.connection() as connection:
            await connection.execute("select pg_sleep(5)")

    with pytest.raises(psycopg.errors.QueryCanceled):
        asyncio.run(sleep())


@pytest.fixture
def empty_database(endpoints: Endpoints) -> str:
    """A database without any of Duet's schemas."""
    name = f"empty_{uuid.uuid4().hex}"
    with connect(endpoints.database_url, autocommit=True) as connection:
        connection.execute(psycopg.sql.SQL("create database {}").format(psycopg.sql.Identifier(name)))
    return endpoints.database_url.rpartition("/")[0] + f"/{name}"


def test_many_processes_may_migrate_an_empty_database_at_once(empty_database: str) -> None:
    failures: list[Exception] = []

    def migrate() -> None:
        try:
            upgrade(empty_database)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong must fail the test, not its thread
            failures.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert current(empty_database) == HEAD


def test_a_role_that_may_create_nothing_can_use_a_migrated_database(endpoints: Endpoints) -> None:
    role = f"reader_{uuid.uuid4().hex}"
    with connect(endpoints.database_url, autocommit=True) as connection:
        name = psycopg.sql.Identifier(role)
        connection.execute(psycopg.sql.SQL("create role {} login password 'reader'").format(name))
        connection.execute(psycopg.sql.SQL("grant {} to current_user").format(name))  # to drop what it owns at the end
        for schema in SCHEMAS:
            schema_name = psycopg.sql.Identifier(schema)
            connection.execute(psycopg.sql.SQL("grant usage on schema {} to {}").format(schema_name, name))
        connection.execute(psycopg.sql.SQL("grant select on duet.alembic_version to {}").format(name))
        place = endpoints.database_url.partition("@")[2]
        upgrade(f"postgresql://{role}:reader@{place}")
        connection.execute(psycopg.sql.SQL("drop owned by {}").format(name))
        connection.execute(psycopg.sql.SQL("drop role {}").format(name))


def test_waiting_for_another_migration_is_bounded(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.db.migrate.LOCK_WAIT_S", 1)
    with connect(empty_database, autocommit=True) as holder:
        holder.execute("select pg_advisory_lock(%s)", (LOCK,))
        with pytest.raises(MigrationError, match="Another process has been migrating"):
            upgrade(empty_database)


def test_a_role_that_may_create_nothing_is_told_so_on_an_empty_database(empty_database: str) -> None:
    role = f"closed_{uuid.uuid4().hex}"
    with connect(empty_database, autocommit=True) as connection:
        connection.execute(
            psycopg.sql.SQL("create role {} login password 'closed'").format(psycopg.sql.Identifier(role))
        )
    with pytest.raises(MigrationError, match="The schemas of Duet cannot be created: permission denied"):
        upgrade(f"postgresql://{role}:closed@{empty_database.partition('@')[2]}")


def test_a_connection_that_the_server_ended_is_replaced_without_failing_a_call(
    endpoints: Endpoints, settings: Settings
) -> None:
    async def go() -> list[Any]:
        async with open_pool(endpoints.database_url, settings.postgres) as pool:
            mine = await fetch_all(pool, b"select pg_backend_pid()", [])
            with connect(endpoints.database_url, autocommit=True) as other:
                other.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where application_name = 'duet-serving' and datname = current_database()"
                )
            return [mine, *await asyncio.gather(*(fetch_all(pool, b"select $1::bigint", [7]) for _ in range(12)))]

    mine, *answers = asyncio.run(go())
    assert mine
    assert answers == [[(7,)]] * 12


def test_calls_that_are_cancelled_in_the_middle_never_give_their_answer_to_another(
    endpoints: Endpoints, settings: Settings
) -> None:
    limits = settings.postgres.model_copy(update={"pool_size": 3, "max_overflow": 0, "checkout_timeout_s": 10.0})

    async def ask(pool: Any, number: int) -> int:
        nap = "select $1::bigint from pg_sleep(0.002)"
        return int((await fetch_all(pool, nap.encode(), [number]))[0][0])

    async def go() -> int:
        answered = 0
        async with open_pool(endpoints.database_url, limits) as pool:
            for turn in range(12):
                calls = {number: asyncio.create_task(ask(pool, number)) for number in range(turn * 8, turn * 8 + 8)}
                await asyncio.sleep(0.001 * (turn % 5))
                for number in list(calls)[:4]:
                    calls[number].cancel()
                for number, call in calls.items():
                    with contextlib.suppress(asyncio.CancelledError):
                        assert await call == number
                        answered += 1
        return answered

    assert asyncio.run(go()) >= 12 * 4


def test_a_statement_that_failed_is_read_again_on_the_same_connection(endpoints: Endpoints, settings: Settings) -> None:
    limits = settings.postgres.model_copy(update={"pool_size": 1, "max_overflow": 0, "checkout_timeout_s": 10.0})
    inverse = b"select 6 / $1::bigint, pg_backend_pid()"

    async def go() -> list[tuple[Any, ...]]:
        async with open_pool(endpoints.database_url, limits) as pool:
            rows = await fetch_all(pool, inverse, [1])
            with pytest.raises(psycopg.errors.DivisionByZero):
                await fetch_all(pool, inverse, [0])
            return [*rows, *await fetch_all(pool, inverse, [2]), *await fetch_all(pool, inverse, [3])]

    answers = asyncio.run(go())
    assert [answer for answer, _ in answers] == [6, 3, 2]
    assert len({process for _, process in answers}) == 1


@given(ids=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=50))
@hypothesis_settings(max_examples=30, deadline=None)
def test_ids_travel_both_ways_as_they_are(ids: list[int]) -> None:
    array = np.array(ids, dtype=np.int64)
    sent = pooled.Int64ArrayDumper(np.ndarray).dump(array)
    assert np.array_equal(pooled.Int64ArrayLoader(1016).load(sent), array)
