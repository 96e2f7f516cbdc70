"""Fault 8: clients hang up in the middle of reads of Redis and Postgres; nobody ever gets another person's answer."""

import asyncio
import threading
import time
from collections.abc import Iterator
from random import Random

import psycopg
import pytest

from infra.endpoints import Endpoints
from tests.fault.crowd import read_reply, request
from tests.fault.proxy import Mode
from tests.fault.stage import ASKERS, Stage, staged

pytestmark = pytest.mark.timeout(300)

HANG_UPS = 400
PATIENCE_S = 15.0


@pytest.fixture(scope="module")
def stage(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(endpoints, tmp_path_factory.mktemp("cancelled")) as stage:
        yield stage


async def hang_up(port: int, chance: Random) -> None:
    """Ask, wait a random moment that may fall into any stage of the answer, and reset the connection."""
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request("/v1/recommendations", {"user_id": chance.choice(ASKERS), "limit": 50}))
                try:
                    async with asyncio.timeout(chance.uniform(0.0, 0.06)):
                        await read_reply(reader)
                except (TimeoutError, asyncio.IncompleteReadError):
                    pass
            finally:
                writer.transport.abort()
    except OSError:
        pass


async def hang_up_often(port: int, n: int, seed: int) -> None:
    chance = Random(seed)  # noqa: S311 - moments, not secrets
    for _ in range(n // 8):
        await asyncio.gather(*(hang_up(port, chance) for _ in range(8)))


def connections_of_the_pool(stage: Stage) -> list[tuple[str, int]]:
    """Return the state of each connection that the service's pool has at the server, with a count."""
    with psycopg.connect(stage.endpoints.database_url) as own:
        return own.execute(
            "select state, count(*)::int from pg_stat_activity"
            " where application_name = 'duet-serving' and datname = current_database() group by state"
        ).fetchall()


@pytest.mark.parametrize("delayed", ["postgres", "redis", "both"])
def test_clients_that_hang_up_mid_read_never_cause_an_answer_that_belongs_to_another_person(
    stage: Stage, delayed: str
) -> None:
    stage.heal()
    with stage.crowd() as crowd:
        crowd.until_whole()
        for name in ("postgres", "redis") if delayed == "both" else (delayed,):
            getattr(stage, name).set(Mode.DELAY, 0.02)
        leavers = threading.Thread(target=lambda: asyncio.run(hang_up_often(stage.service.port, HANG_UPS, 1)))
        leavers.start()
        leavers.join(60)
        assert not leavers.is_alive()
        stage.heal()
        crowd.until_whole()
        healed = time.monotonic()
        crowd.watch(0.5)
    # Those who hang up are a load of their own: others may be told to come again, and nothing else.
    told_to_wait = [answer for answer in crowd.answers if answer.status == 503]
    assert all(answer.body["error"]["code"] == "overloaded" for answer in told_to_wait)
    stage.judge([answer for answer in crowd.answers if answer.status != 503])
    stage.judge_written(crowd)
    stage.judge_level(crowd.since(healed), 1)


def test_afterwards_the_pool_has_its_size_again_and_no_connection_leaks(stage: Stage) -> None:
    stage.heal()
    until = time.monotonic() + PATIENCE_S
    while True:
        pool, states = stage.health()["pools"]["primary"], connections_of_the_pool(stage)
        if (
            pool["waiting"] == 0
            and pool["idle"] == pool["size"]
            and {state for state, _ in states} == {"idle"}
            and sum(n for _, n in states) == pool["size"]
            and stage.health()["limiter"]["in_flight"] == 0
        ):
            break
        assert time.monotonic() < until, f"the pool says {pool}, Postgres says {states}"
        time.sleep(0.1)
    assert pool["size"] <= 30
    assert stage.redis.links <= 64
