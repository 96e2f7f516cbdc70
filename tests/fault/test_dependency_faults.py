"""Faults 1, 2 and 3: Postgres or Redis breaks in every way a network can, under load, and heals.

And 8: clients hang up in the middle of reads of both; nobody ever gets another person's answer.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from random import Random

import psycopg
import pytest

from infra.endpoints import Endpoints
from tests.fault.crowd import read_reply, request
from tests.fault.proxy import Fault, Mode, each_hard
from tests.fault.stage import ASKERS, FEW, Stage, staged
from tests.waiting import until

pytestmark = pytest.mark.timeout(400)

HANG_UPS = 400
LATE_REASONS = {"eligibility_unavailable", "deadline_exceeded"}


@pytest.fixture(scope="module")
def running(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(endpoints, tmp_path_factory.mktemp("broken")) as stage:
        yield stage


@pytest.fixture
def stage(running: Stage) -> Iterator[Stage]:
    running.heal()
    yield running
    running.heal()


@each_hard("postgres")
def test_without_postgres_answers_are_empty_in_time_and_say_why_and_it_recovers_alone(
    stage: Stage, fault: Fault
) -> None:
    with stage.crowd() as crowd:
        crowd.until_whole()
        stage.set("postgres", fault)
        seen = crowd.settled(lambda answer: answer.level == 4, "empty answers", share=1.0)
        stage.heal()
        crowd.until_whole()
    stage.judge(crowd.answers)
    stage.judge_written(crowd)
    stage.judge_times(seen)
    assert {answer.body["reason"] for answer in seen} <= LATE_REASONS


@each_hard("redis")
def test_without_redis_answers_stay_at_level_one_and_name_the_features_and_it_recovers_alone(
    stage: Stage, fault: Fault
) -> None:
    with stage.crowd() as crowd:
        crowd.until_whole()
        before = len(crowd.written)  # those may still have met the end of the fault before this one
        stage.set("redis", fault)
        seen = crowd.settled(
            lambda answer: answer.level == 1 and "features" in answer.body["degraded"], "answers without features"
        )
        stage.heal()
        crowd.until_whole()
    stage.judge(crowd.answers)
    stage.judge_written(crowd)
    stage.judge_times(seen)
    assert all(answer.level == 4 or "features" in answer.body["degraded"] for answer in seen)
    written = crowd.written[before:]
    refused = [one for one in written if not one.is_acknowledged]
    assert len(refused) <= FEW * len(written), "writes do not need Redis"


@pytest.mark.parametrize(
    "slow",
    [
        ("postgres", "redis"),
        pytest.param(("postgres",), marks=pytest.mark.long),
        pytest.param(("redis",), marks=pytest.mark.long),
    ],
    ids=" and ".join,
)
def test_a_network_that_is_a_little_slow_costs_at_most_quality(stage: Stage, slow: tuple[str, ...]) -> None:
    with stage.crowd() as crowd:
        crowd.until_whole()
        for dependency in slow:
            stage.set(dependency, Fault(Mode.DELAY, 0.02))
        crowd.watch(1.0)  # what was asked before is answered
        seen = crowd.watch(1.0)
        stage.heal()
        crowd.until_whole()
    stage.judge(crowd.answers)
    stage.judge_written(crowd)
    stage.judge_times(seen)


def test_a_network_that_comes_and_goes_does_not_confuse_anybody(stage: Stage) -> None:
    with stage.crowd() as crowd:
        crowd.until_whole()
        for mode in (Mode.BLACK_HOLE, Mode.PASS, Mode.REFUSE, Mode.PASS, Mode.DOWN) * 2:
            stage.postgres.set(mode)
            stage.redis.set(mode)
            time.sleep(0.15)
        stage.heal()
        crowd.until_whole()
    stage.judge(crowd.answers)
    stage.judge_written(crowd)


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


@pytest.mark.parametrize(
    "delayed",
    [pytest.param("postgres", marks=pytest.mark.long), pytest.param("redis", marks=pytest.mark.long), "both"],
)
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
        leavers.join(120)
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

    def at_rest() -> bool:
        health, states = stage.health(), connections_of_the_pool(stage)
        pool = health["pools"]["primary"]
        return (
            pool["waiting"] == 0
            and pool["idle"] == pool["size"]
            and {state for state, _ in states} == {"idle"}
            and sum(n for _, n in states) == pool["size"]
            and health["limiter"]["in_flight"] == 0
        )

    until(at_rest, instead=lambda: f"{stage.health()}, Postgres says {connections_of_the_pool(stage)}")
    assert stage.health()["pools"]["primary"]["size"] <= 30
    assert stage.redis.links <= 64
