"""What keeps a machine from training unasked: every schedule says why it does nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import psycopg
import pytest

from pipelines.definitions import SCHEDULES, build_definitions
from pipelines.features.schedules import nightly_materialize_features
from pipelines.release.schedules import weekly_retrain
from pipelines.resources import Platform
from pipelines.results.changes import ReadHorizon, anything_changed, changed_people, look
from pipelines.retrieval.schedules import nightly_rebuild_index
from tests.horizon import until_all_was_seen

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
Db = psycopg.Connection[Any]


def tick(
    schedule: dg.ScheduleDefinition, platform: Platform, instance: dg.DagsterInstance
) -> tuple[str | None, dict[str, Any]]:
    """Return why a schedule skips, or what it asks for."""
    with dg.build_schedule_context(
        instance=instance, resources={"platform": platform}, scheduled_execution_time=NOW
    ) as context:
        data = schedule.evaluate_tick(context)
    requests = data.run_requests or []
    return data.skip_message, dict(requests[0].run_config) if requests else {}


def person(connection: Db, user_id: int) -> None:
    connection.execute("insert into duet.users (user_id, created_at) values (%s, %s)", (user_id, NOW))
    connection.commit()


def promoted(connection: Db) -> None:
    connection.execute(
        "insert into duet.promotions (release, model, version, to_stage, actor, way)"
        " values ('e1-i1-r1', 'duet-index', 1, 'Production', 'somebody', 'cli')"
    )
    connection.commit()


def made(instance: dg.DagsterInstance, asset: str) -> None:
    """Let a run have made the asset just now."""

    @dg.asset(name=asset)
    def anything() -> None:
        """Do nothing."""

    assert dg.materialize([anything], instance=instance).success


@pytest.mark.parametrize("schedule", [nightly_rebuild_index, weekly_retrain], ids=lambda each: each.name)
def test_nothing_heavy_starts_before_a_release_was_promoted(
    schedule: dg.ScheduleDefinition, platform: Platform, instance: dg.DagsterInstance, connection: Db
) -> None:
    person(connection, 1)
    why, asked = tick(schedule, platform, instance)
    assert why == "no release is in Production: a person promotes the first one with `duet promote`"
    assert asked == {}


@pytest.mark.parametrize(
    ("schedule", "asset", "stage"),
    [(nightly_rebuild_index, "candidate_index", "Production"), (weekly_retrain, "embeddings", "Staging")],
    ids=["index", "retrain"],
)
def test_nothing_heavy_starts_without_new_data(
    schedule: dg.ScheduleDefinition,
    asset: str,
    stage: str,
    platform: Platform,
    instance: dg.DagsterInstance,
    connection: Db,
) -> None:
    promoted(connection)
    assert f"there is no `{asset}` yet" in str(tick(schedule, platform, instance)[0])
    made(instance, asset)
    assert "nothing has changed since" in str(tick(schedule, platform, instance)[0])
    person(connection, 1)
    why, asked = tick(schedule, platform, instance)
    assert why is None
    assert asked["ops"]["promoted_release"]["config"]["stage"] == stage


def test_a_retraining_leaves_an_experiment_alone(
    platform: Platform, instance: dg.DagsterInstance, connection: Db
) -> None:
    promoted(connection)
    made(instance, "embeddings")
    person(connection, 1)
    connection.execute("insert into duet.experiments (name, salt, state) values ('taste', 's', 'shadow')")
    connection.commit()
    assert "the experiment `taste` runs on the release in Staging" in str(tick(weekly_retrain, platform, instance)[0])


def test_the_first_features_are_a_persons_decision(platform: Platform, instance: dg.DagsterInstance) -> None:
    assert "there are no features yet" in str(tick(nightly_materialize_features, platform, instance)[0])
    made(instance, "online_features")
    why, asked = tick(nightly_materialize_features, platform, instance)
    assert why is None
    assert asked["ops"]["features"]["config"]["history"] is False


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: each.name)
def test_a_schedule_waits_for_its_own_last_run(
    schedule: dg.ScheduleDefinition, platform: Platform, instance: dg.DagsterInstance
) -> None:
    job = build_definitions(platform).resolve_job_def(schedule.job_name)
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    why, asked = tick(schedule, platform, instance)
    assert why == f"`{schedule.job_name}` has not finished yet: run {run.run_id[:8]}"
    assert asked == {}


def look_past(connection: Db) -> ReadHorizon:
    """Return a look that saw every row."""
    until_all_was_seen(connection)
    found = look(connection)
    connection.commit()
    return found


def test_a_person_has_changed_who_was_edited_or_took_part_in_something(connection: Db) -> None:
    for user_id in range(1, 6):
        person(connection, user_id)
    before = look_past(connection)
    assert changed_people(connection, before) == []
    assert not anything_changed(connection, before)
    connection.execute("update duet.users set bio = 'new' where user_id = 1")
    connection.execute(
        "insert into duet.interactions (event_id, actor_id, target_id, kind, occurred_at)"
        " values (gen_random_uuid(), 2, 3, 'message', %s)",
        (NOW - timedelta(days=400),),
    )
    connection.commit()
    assert sorted(changed_people(connection, before)) == [1, 2, 3]
    assert len(changed_people(connection, before, limit=1)) == 1
    after = look_past(connection)
    assert not anything_changed(connection, after)
    connection.execute("delete from duet.users where user_id = 5")
    connection.commit()
    assert anything_changed(connection, after)
    assert changed_people(connection, after) == []


def test_a_change_that_was_committed_late_is_seen_by_the_next_look(connection: Db, platform: Platform) -> None:
    person(connection, 1)
    until_all_was_seen(connection)
    with platform.connection() as slow:
        slow.execute("update duet.users set bio = 'slow' where user_id = 1")
        during = look(connection)
        connection.commit()
        assert changed_people(connection, during) == []
        connection.commit()
    assert changed_people(connection, during) == [1]
