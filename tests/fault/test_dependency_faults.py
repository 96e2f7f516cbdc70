"""Faults 1, 2 and 3: Postgres or Redis breaks in every way a network can, under load, and heals."""

import time
from collections.abc import Iterator

import pytest

from infra.endpoints import Endpoints
from tests.fault.proxy import Fault, Mode
from tests.fault.stage import FEW, Stage, staged

pytestmark = pytest.mark.timeout(400)

HARD = [
    Fault(Mode.DOWN),
    Fault(Mode.REFUSE),
    Fault(Mode.BLACK_HOLE),
    Fault(Mode.DELAY, 2.0),
    Fault(Mode.DRIP, 200),
    Fault(Mode.CUT, 30),
    Fault(Mode.RESET, 30),
]
"""Nothing useful arrives in time."""
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


@pytest.mark.parametrize("fault", HARD, ids=str)
def test_without_postgres_answers_are_empty_in_time_and_say_why_and_it_recovers_alone(
    stage: Stage, fault: Fault
) -> None:
    with stage.crowd() as crowd:
        crowd.until_whole()
        stage.postgres.set(fault.mode, fault.amount)
        time.sleep(1)
        seen = crowd.watch(1.0)
        stage.heal()
        crowd.until_whole()
    stage.judge(crowd.answers)
    stage.judge_written(crowd)
    stage.judge_times(seen)
    assert {answer.level for answer in seen} == {4}
    assert {answer.body["reason"] for answer in seen} <= LATE_REASONS


@pytest.mark.parametrize("fault", HARD, ids=str)
def test_without_redis_answers_stay_at_level_one_and_name_the_features_and_it_recovers_alone(
    stage: Stage, fault: Fault
) -> None:
    with stage.crowd() as crowd:
        crowd.until_whole()
        before = len(crowd.written)  # those may still have met the end of the fault before this one
        stage.redis.set(fault.mode, fault.amount)
        time.sleep(1)
        seen = crowd.watch(1.0)
        stage.heal()
        crowd.until_whole()
    stage.judge(crowd.answers)
    stage.judge_written(crowd)
    stage.judge_times(seen)
    stage.judge_level(seen, 1)
    assert all("features" in answer.body["degraded"] for answer in seen)
    written = crowd.written[before:]
    refused = [one for one in written if one.status != 201]
    assert len(refused) <= FEW * len(written), "writes do not need Redis"


@pytest.mark.parametrize("dependency", ["postgres", "redis"])
def test_a_network_that_is_a_little_slow_costs_at_most_quality(stage: Stage, dependency: str) -> None:
    with stage.crowd() as crowd:
        crowd.until_whole()
        getattr(stage, dependency).set(Mode.DELAY, 0.02)
        time.sleep(1)
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
