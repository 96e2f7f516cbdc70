"""Drills of the runbook on the served app, with a real Prometheus: servers fail, or more call than can be answered."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
import redis
from psycopg import sql

from infra.db.postgres import connect
from infra.endpoints import Endpoints
from registry.measurements import Measure, StoredMeasurement, keep_measurement
from tests.fault.drilling import Cause, drill, held, locked
from tests.fault.proxy import Fault, Mode
from tests.fault.stage import ASKERS, Stage, staged
from tests.prometheus import Prometheus, watching
from tests.serving_world import insert_person

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

TOLD = {
    # Answers are looked for in the cache and never found, and nobody is searched beside the index.
    "SERVING__CACHE__ENABLED": "true",
    "SERVING__CACHE__TTL_S": "0.01",
    "SERVING__NEWCOMERS": "0",
    # What is slow is late: it is not given up before.
    "SERVING__DEADLINE_MS": "4000",
}
SHORTENED = {"duet_population_loaded_timestamp_seconds > 900": "duet_population_loaded_timestamp_seconds > 9"}


@pytest.fixture(scope="module")
def stage(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(endpoints, tmp_path_factory.mktemp("drills"), **TOLD) as stage:
        yield stage


@pytest.fixture(scope="module")
def prometheus(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with watching(stage.service.port, tmp_path_factory.mktemp("prometheus"), shortened=SHORTENED) as prometheus:
        yield prometheus


@contextmanager
def broken(stage: Stage, dependency: str, fault: Fault) -> Iterator[None]:
    stage.set(dependency, fault)
    try:
        yield
    finally:
        stage.heal()


@contextmanager
def refused(stage: Stage, *tables: str) -> Iterator[None]:
    """Take from the role of the services its right to write into tables of its own."""
    names = sql.SQL(", ").join(sql.Identifier("duet", table) for table in tables)
    with connect(stage.endpoints.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("revoke insert on {} from current_user").format(names))
        try:
            yield
        finally:
            connection.execute(sql.SQL("grant insert on {} to current_user").format(names))


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
def a_crowd(stage: Stage, askers: int) -> Iterator[None]:
    with stage.crowd(writes=(), askers=askers, pause_s=0.0):
        yield


DRILLS: dict[str, tuple[Callable[[Stage], Cause], set[str]]] = {
    "asking for many people once each, and doing nothing": (
        lambda stage: a_crowd(stage, 8),
        {"DuetCacheHitsFew", "DuetNoInteractions"},
    ),
    "stopping Redis": (
        lambda stage: broken(stage, "redis", Fault(Mode.DOWN)),
        {"DuetStagesDegraded", "DuetBreakerOpen"},
    ),
    "locking the table of people": (
        lambda stage: locked(stage.endpoints.database_url, "users"),
        {"DuetEmptyAnswers", "DuetDegradedAnswers"},
    ),
    "stopping Postgres": (
        lambda stage: broken(stage, "postgres", Fault(Mode.DOWN)),
        {"DuetEmptyAnswers", "DuetPoolExhausted", "DuetPopulationStale"},
    ),
    "slowing Postgres down": (
        lambda stage: broken(stage, "postgres", Fault(Mode.DELAY, 0.15)),
        {"DuetLatencyOverBudget", "DuetBudgetBurns", "DuetBudgetWillNotLast"},
    ),
    "locking the table of impressions": (
        lambda stage: locked(stage.endpoints.database_url, "impressions"),
        {"DuetNoImpressions"},
    ),
    "refusing what is logged": (
        lambda stage: refused(stage, "impressions", "answers"),
        {"DuetNoImpressions", "DuetImpressionsLost", "DuetAnswersNotLogged"},
    ),
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
    "holding every worker": (lambda stage: held(stage.service.workers()), {"DuetServingDown", "DuetServingGone"}),
}


@contextmanager
def meanwhile(stage: Stage, cause: Cause) -> Iterator[None]:
    with stage.crowd(writes=(), pause_s=0.02), cause:
        yield


@pytest.mark.parametrize("named", DRILLS)
def test_an_alert_of_a_drill_fires_and_is_quiet_again(stage: Stage, prometheus: Prometheus, named: str) -> None:
    cause, alerts = DRILLS[named]
    drill(prometheus, alerts, meanwhile(stage, cause(stage)), but_of="mlflow")  # there is none on this stage
