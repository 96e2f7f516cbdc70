"""Drift beyond the limit asks for a retraining: once a release, with a rest in between, never into an experiment."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import psycopg
import pytest

from pipelines.resources import Platform
from pipelines.upkeep.drift.sensors import retrain_on_drift
from tests.clocks import FixedClock

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
Db = psycopg.Connection[Any]


def measured(instance: dg.DagsterInstance, release: str, worst_psi: float) -> None:
    """Let a run have measured drift."""

    @dg.asset(name="drift")
    def anything() -> dg.MaterializeResult[Any]:
        told = {"release": release, "worst": "age_gap", "worst_psi": worst_psi, "beyond": worst_psi > 0.25}
        return dg.MaterializeResult(metadata=told)

    assert dg.materialize([anything], instance=instance).success


def promoted(connection: Db, release: str) -> None:
    connection.execute(
        "insert into duet.promotions (release, model, version, to_stage, actor, way)"
        " values (%s, 'duet-index', 1, 'Production', 'somebody', 'cli')",
        (release,),
    )
    connection.commit()


def tick(platform: Platform, instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult | str:
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"platform": platform})
    found = retrain_on_drift(context)
    if isinstance(found, dg.SkipReason):
        return str(found.skip_message)
    assert isinstance(found, dg.SensorResult)
    return found


@pytest.fixture
def ready(platform: Platform, instance: dg.DagsterInstance, connection: Db) -> None:
    """A release in Production that was trained before somebody came."""

    @dg.asset(name="embeddings")
    def anything() -> None:
        """Do nothing."""

    promoted(connection, "e1-i1-r1")
    assert dg.materialize([anything], instance=instance).success
    connection.execute("insert into duet.users (user_id) values (1)")
    connection.commit()


def test_drift_beyond_the_limit_asks_for_a_retraining_into_staging(
    platform: Platform, instance: dg.DagsterInstance, ready: None
) -> None:
    assert tick(platform, instance) == "drift was never measured: run the job `measure_drift`"
    measured(instance, "e1-i1-r1", 0.2)
    assert tick(platform, instance) == "drift is 0.2, within the limit"
    measured(instance, "e1-i1-r1", 0.4)
    found = tick(platform, instance)
    assert isinstance(found, dg.SensorResult)
    (request,) = found.run_requests or []
    assert request.run_key == "drift-e1-i1-r1"
    asked = request.run_config["ops"]["promoted_release"]["config"]
    assert asked == {
        "stage": "Staging",
        "reason": "drift: `age_gap` has moved by 0.400 since e1-i1-r1 was trained",
    }


def test_a_second_retraining_waits(
    platform: Platform, instance: dg.DagsterInstance, ready: None, clock: FixedClock, connection: Db
) -> None:
    measured(instance, "e1-i1-r1", 0.4)
    first = tick(platform, instance)
    assert isinstance(first, dg.SensorResult)
    promoted(connection, "e2-i2-r2")
    assert tick(platform, instance) == "drift was measured of e1-i1-r1, but e2-i2-r2 is in Production"
    measured(instance, "e2-i2-r2", 0.4)
    clock.advance(86_400)
    assert "a retraining was asked for at 2026-06-01 12:00 UTC" in str(tick(platform, instance, first.cursor))
    clock.advance(7 * 86_400)
    again = tick(platform, instance, first.cursor)
    assert isinstance(again, dg.SensorResult)
    assert [request.run_key for request in again.run_requests or []] == ["drift-e2-i2-r2"]


def test_an_experiment_is_left_alone(
    platform: Platform, instance: dg.DagsterInstance, ready: None, connection: Db
) -> None:
    measured(instance, "e1-i1-r1", 0.4)
    connection.execute("insert into duet.experiments (name, salt, state) values ('taste', 's', 'running')")
    connection.commit()
    assert "the experiment `taste` runs on the release in Staging" in str(tick(platform, instance))
