"""The pool before Postgres: it comes back after any outage, waiting is bounded, and nothing of it is ever lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from infra.db import connection_pool
from infra.db.connection_pool import ConnectionPool
from infra.db.pooled import fetch_all
from infra.db.postgres import open_pool
from infra.embedded.ports import free_port
from infra.endpoints import Endpoints
from infra.errors import NoConnection
from infra.settings import PostgresSettings
from tests.fault.proxy import Mode, TcpProxy
from tests.fault.stage import proxied, via

LIMITS = PostgresSettings(pool_size=2, max_overflow=3, max_waiting=4, checkout_timeout_s=0.2, statement_timeout_s=5.0)
PATIENT = LIMITS.model_copy(update={"checkout_timeout_s": 20.0})
PATIENCE_S = 20.0


async def until(wanted: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not wanted():  # noqa: ASYNC110 a pool tells nobody of its numbers
            await asyncio.sleep(0.005)


async def ask(pool: ConnectionPool, within_s: float = PATIENCE_S) -> str:
    """Ask through the pool and say how it went."""
    try:
        async with asyncio.timeout(within_s):
            return str((await fetch_all(pool, b"select 7::bigint", []))[0][0])
    except Exception as error:  # noqa: BLE001 whatever an outage does to a call
        return type(error).__name__


@contextlib.asynccontextmanager
async def load(pool: ConnectionPool, callers: int = 12) -> AsyncIterator[list[str]]:
    """Have callers ask without a pause, more of them than may wait."""
    heard: list[str] = []

    async def go_on() -> None:
        while True:
            heard.append(await ask(pool, 1.0))
            await asyncio.sleep(0.002)

    tasks = [asyncio.create_task(go_on()) for _ in range(callers)]
    try:
        yield heard
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a second of the pool's pauses ten milliseconds long."""
    monkeypatch.setattr(connection_pool, "FIRST_PAUSE_S", connection_pool.FIRST_PAUSE_S / 100)
    monkeypatch.setattr(connection_pool, "LONGEST_PAUSE_S", connection_pool.LONGEST_PAUSE_S / 100)


async def outage(proxy: TcpProxy, pool: ConnectionPool, mode: Mode, tries: int) -> None:
    """Have the server away under load until the pool tried so often, and see it come back whole."""
    async with load(pool) as heard:
        await until(lambda: heard[-5:].count("7") == 5)
        await asyncio.to_thread(proxy.set, mode)
        before = proxy.accepted
        await until(lambda: proxy.accepted - before >= tries)
        assert pool.stats().waiting <= LIMITS.max_waiting
        assert pool.stats().problem is not None
        await asyncio.to_thread(proxy.heal)
        n = len(heard)
        await until(lambda: heard[n:].count("7") > 50)
    await until(lambda: pool.stats().idle == pool.stats().size >= 2)
    assert pool.stats().problem is None
    assert pool.stats().size <= 5


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("seconds", [5, 45, 300])
def test_under_load_the_pool_is_whole_again_after_an_outage_of_any_length(endpoints: Endpoints, seconds: int) -> None:
    async def go(proxy: TcpProxy) -> None:
        async with open_pool(via(endpoints.database_url, proxy), LIMITS) as pool:
            await outage(proxy, pool, Mode.REFUSE, tries=seconds)  # while it is away, one in a second of its clock

    with proxied(endpoints.database_url) as proxy:
        asyncio.run(go(proxy))


def test_under_load_the_pool_is_whole_again_after_the_network_swallowed_everything(endpoints: Endpoints) -> None:
    settings = LIMITS.model_copy(update={"connect_timeout_s": 0.5})

    async def go(proxy: TcpProxy) -> None:
        async with open_pool(via(endpoints.database_url, proxy), settings) as pool:
            await outage(proxy, pool, Mode.BLACK_HOLE, tries=6)

    with proxied(endpoints.database_url) as proxy:
        asyncio.run(go(proxy))


def test_a_server_that_comes_late_is_found_by_a_pool_that_nobody_asks(endpoints: Endpoints) -> None:
    async def go(proxy: TcpProxy) -> None:
        await asyncio.to_thread(proxy.set, Mode.DOWN)
        async with open_pool(via(endpoints.database_url, proxy), LIMITS) as pool:
            await until(lambda: pool.stats().problem is not None)
            await asyncio.to_thread(proxy.heal)
            await until(lambda: pool.stats().idle == 2)

    with proxied(endpoints.database_url) as proxy:
        asyncio.run(go(proxy))


def test_a_call_is_refused_in_time_and_by_number_with_the_reason(endpoints: Endpoints) -> None:
    async def go() -> list[Any]:
        nowhere = f"postgresql://duet@127.0.0.1:{free_port()}/duet"
        async with open_pool(nowhere, LIMITS) as pool:
            await until(lambda: pool.stats().problem is not None)
            return await asyncio.gather(*(pool.getconn() for _ in range(5)), return_exceptions=True)

    refusals = asyncio.run(go())
    assert {type(refusal) for refusal in refusals} == {NoConnection}
    assert str(refusals[4]) == "4 calls wait for a connection of the pool `duet-serving` already."
    assert "came free within 0.2 s: connection failed" in str(refusals[0]) or "refused" in str(refusals[0])


def test_calls_get_connections_in_the_order_in_which_they_came(endpoints: Endpoints) -> None:
    one = PATIENT.model_copy(update={"pool_size": 1, "max_overflow": 0, "max_waiting": 100})
    order: list[int] = []

    async def call(pool: ConnectionPool, number: int) -> None:
        async with pool.connection():
            order.append(number)
            await asyncio.sleep(0)

    async def go() -> None:
        async with open_pool(endpoints.database_url, one) as pool:
            calls = [asyncio.create_task(call(pool, number)) for number in range(10)]
            await asyncio.sleep(0)
            # Who comes while others wait stands behind them, although a connection is just being given back.
            await calls[2]
            calls += [asyncio.create_task(call(pool, number)) for number in range(10, 15)]
            await asyncio.gather(*calls)

    asyncio.run(go())
    assert order == list(range(15))


def test_the_pool_grows_to_its_bound_while_calls_wait_and_no_further(endpoints: Endpoints) -> None:
    async def go() -> None:
        async with open_pool(endpoints.database_url, PATIENT) as pool, contextlib.AsyncExitStack() as held:
            for _ in range(5):
                await held.enter_async_context(pool.connection())
            sixth = asyncio.create_task(pool.getconn())
            await until(lambda: pool.stats().waiting == 1)
            assert (pool.stats().size, pool.stats().most) == (5, 5)
            await held.aclose()
            pool.putconn(await sixth)
            assert (pool.stats().size, pool.stats().idle) == (5, 5)

    asyncio.run(go())


def test_calls_that_are_cancelled_at_any_moment_cost_the_pool_no_connection(endpoints: Endpoints) -> None:
    many = PATIENT.model_copy(update={"max_waiting": 100})

    async def nap(pool: ConnectionPool) -> None:
        await fetch_all(pool, b"select 1 from pg_sleep(0.003)", [])

    async def go() -> None:
        async with open_pool(endpoints.database_url, many) as pool:
            for turn in range(40):
                calls = [asyncio.create_task(nap(pool)) for _ in range(12)]
                await asyncio.sleep(0.0007 * (turn % 9))
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
            await until(lambda: pool.stats().idle == pool.stats().size >= 2)
            assert pool.stats().waiting == 0
            async with contextlib.AsyncExitStack() as held:  # all five can still be lent at once
                for _ in range(5):
                    await held.enter_async_context(pool.connection())

    asyncio.run(go())


def test_connections_that_fell_silent_are_found_out_once_and_all_replaced(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_pool, "PING_AFTER_S", -1.0)  # each is asked before it is lent
    settings = PATIENT.model_copy(update={"checkout_timeout_s": 2.0, "pool_size": 5, "max_overflow": 0})

    async def go(proxy: TcpProxy) -> None:
        async with open_pool(via(endpoints.database_url, proxy), settings) as pool:
            await until(lambda: pool.stats().idle == 5)
            before = proxy.accepted
            await asyncio.to_thread(proxy.set, Mode.BLACK_HOLE)
            with pytest.raises(NoConnection):
                await pool.getconn()
            await asyncio.to_thread(proxy.heal)
            assert await ask(pool) == "7"
            await until(lambda: pool.stats().idle == 5)
            assert proxy.accepted - before >= 5

    with proxied(endpoints.database_url) as proxy:
        asyncio.run(go(proxy))


def test_a_pool_keeps_its_size_and_closes_what_nobody_needed_for_long(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        async with open_pool(endpoints.database_url, PATIENT) as pool:
            async with contextlib.AsyncExitStack() as held:
                for _ in range(5):
                    await held.enter_async_context(pool.connection())
            monkeypatch.setattr(connection_pool, "MAX_IDLE_S", -1.0)
            for _ in range(5):
                assert await ask(pool) == "7"
            assert pool.stats().size == 2
            monkeypatch.setattr(connection_pool, "MAX_LIFETIME_S", -1.0)
            first = (await fetch_all(pool, b"select pg_backend_pid()", []))[0]
            monkeypatch.setattr(connection_pool, "MAX_LIFETIME_S", 3600.0)
            await until(lambda: pool.stats().idle == 2)
            for _ in range(5):
                assert (await fetch_all(pool, b"select pg_backend_pid()", []))[0] != first

    asyncio.run(go())


def test_a_closed_pool_ends_waiting_calls_and_takes_back_what_was_lent(endpoints: Endpoints) -> None:
    async def go() -> None:
        pool = open_pool(endpoints.database_url, PATIENT.model_copy(update={"pool_size": 1, "max_overflow": 0}))
        with pytest.raises(NoConnection, match="is not open"):
            await pool.getconn()
        pool.open()
        lent = await pool.getconn()
        waits = asyncio.create_task(pool.getconn())
        await until(lambda: pool.stats().waiting == 1)
        await pool.close()
        with pytest.raises(NoConnection, match="is closed"):
            await waits
        pool.putconn(lent)
        assert lent.closed
        assert pool.stats().size == 0
        await pool.close()

    asyncio.run(go())
