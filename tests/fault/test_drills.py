"""The drills of the runbook on the served app, with a real Prometheus: each alert fires, and is quiet again after."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime

import psycopg
import pytest
import redis

from infra.db.postgres import connect
from infra.endpoints import Endpoints
from registry.measurements import Measure, StoredMeasurement, keep_measurement
from tests.fault.proxy import Fault, Mode
from tests.fault.stage import ASKERS, Stage, staged
from tests.prometheus import Prometheus, watching
from tests.serving_world import insert_person
from tests.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

FIRES_WITHIN_S = 90.0
CALM = {"SERVING__CACHE__ENABLED": "true", "SERVING__CACHE__TTL_S": "0.01", "SERVING__NEWCOMERS": "0"}
"""Answers are looked for in the cache and never found, and nobody is searched beside the index."""


@pytest.fixture(scope="module")
def stage(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(endpoints, tmp_path_factory.mktemp("drills"), **CALM) as stage:
        yield stage


@pytest.fixture(scope="module")
def prometheus(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with watching(stage.service.port, tmp_path_factory.mktemp("prometheus")) as prometheus:
        yield prometheus


@contextmanager
def broken(stage: Stage, dependency: str, fault: Fault) -> Iterator[None]:
    stage.set(dependency, fault)
    try:
        yield
    finally:
        stage.heal()


@contextmanager
def locked(stage: Stage, table: str) -> Iterator[None]:
    with connect(stage.endpoints.database_url) as connection:
        connection.execute(psycopg.sql.SQL("lock table {} in access exclusive mode").format(
            psycopg.sql.Identifier("duet", table)
        ))  # fmt: skip
        yield
        connection.rollback()


@contextmanager
def measured(stage: Stage, measure: Measure, value: float, well: float) -> Iterator[None]:
    with connect(stage.endpoints.database_url, autocommit=True) as connection:
        keep_measurement(connection, StoredMeasurement(measure, value, "a drill", datetime.now(UTC)))
        yield
        keep_measurement(connection, StoredMeasurement(measure, well, "a drill", datetime.now(UTC)))


@contextmanager
def emptied(stage: Stage) -> Iterator[None]:
    """Take everything out of Redis, and put it back at the end."""
    with redis.Redis.from_url(stage.endpoints.redis_url) as client:
        kept = {key: client.dump(key) for key in client.scan_iter()}
        client.flushdb()
        yield
        for key, value in kept.items():
            client.restore(key, 0, value, replace=True)


@contextmanager
def somebody_new(stage: Stage) -> Iterator[None]:
    newcomer = max(ASKERS) + 1000
    with connect(stage.endpoints.database_url, autocommit=True) as connection:
        insert_person(connection, newcomer)
        yield
        connection.execute("delete from duet.users where user_id = %s", [newcomer])


@contextmanager
def held(stage: Stage) -> Iterator[None]:
    """Hold every worker, so that none answers and none ends."""
    workers = stage.service.workers()
    for worker in workers:
        worker.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGCONT)


@contextmanager
def a_crowd(stage: Stage, askers: int) -> Iterator[None]:
    with stage.crowd(writes=(), askers=askers, pause_s=0.0):
        yield


DRILLS: dict[str, tuple[Callable[[Stage], AbstractContextManager[None]], set[str]]] = {
    "asking for many people once each, and doing nothing": (
        lambda stage: a_crowd(stage, 8),
        {"DuetCacheHitsFew", "DuetNoInteractions"},
    ),
    "stopping Redis": (
        lambda stage: broken(stage, "redis", Fault(Mode.DOWN)),
        {"DuetStagesDegraded", "DuetBreakerOpen"},
    ),
    "locking the table of people": (
        lambda stage: locked(stage, "users"),
        {"DuetEmptyAnswers", "DuetDegradedAnswers"},
    ),
    "stopping Postgres": (
        lambda stage: broken(stage, "postgres", Fault(Mode.DOWN)),
        {"DuetEmptyAnswers", "DuetPoolExhausted"},
    ),
    "slowing Postgres down": (
        lambda stage: broken(stage, "postgres", Fault(Mode.DELAY, 0.15)),
        {"DuetLatencyOverBudget", "DuetBudgetBurns", "DuetBudgetWillNotLast"},
    ),
    "locking the table of impressions": (lambda stage: locked(stage, "impressions"), {"DuetNoImpressions"}),
    "emptying Redis": (emptied, {"DuetFeaturesLost"}),
    "a drift that was measured": (
        lambda stage: measured(stage, Measure.DRIFT_PSI, 0.4, 0.1),
        {"DuetDrift"},
    ),
    "a sample ratio that was measured": (
        lambda stage: measured(stage, Measure.SAMPLE_RATIO_P, 0.00001, 0.5),
        {"DuetSampleRatio"},
    ),
    "somebody new without a place": (somebody_new, {"DuetNewcomersLeftOut"}),
    "more calls than there is time for": (
        lambda stage: a_crowd(stage, 200),
        {"DuetOverloaded", "DuetBudgetBurnsFast"},
    ),
    "holding every worker": (held, {"DuetServingDown", "DuetServingGone"}),
}


@pytest.mark.parametrize("drill", DRILLS)
def test_an_alert_of_a_drill_fires_and_is_quiet_again(stage: Stage, prometheus: Prometheus, drill: str) -> None:
    break_it, wanted = DRILLS[drill]

    def firing() -> set[str]:
        return prometheus.firing(but_of="mlflow")  # there is none on this stage

    until(lambda: not wanted & firing(), FIRES_WITHIN_S, lambda: f"before: {firing()}")
    seen: set[str] = set()

    def all_fired() -> bool:
        seen.update(firing())
        return wanted <= seen

    with stage.crowd(writes=(), pause_s=0.02), break_it(stage):
        until(all_fired, FIRES_WITHIN_S, lambda: f"fired: {seen}")
    until(lambda: not wanted & firing(), FIRES_WITHIN_S, lambda: f"after: {firing()}")
