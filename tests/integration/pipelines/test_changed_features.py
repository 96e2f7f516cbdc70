"""Between two full materialisations, only those who changed are computed, and to the same bits."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import dagster as dg
import numpy as np
import psycopg
import pytest
import redis

from feature_repo.layout import ACTIVITY, PROFILE
from infra.endpoints import Endpoints
from infra.settings import Settings
from pipelines.features.changed import last_look
from pipelines.features.sensors import frequent_materialize_features
from pipelines.ingest.world.world_import import import_synthetic
from pipelines.resources import Platform
from pipelines.runs.running import Listener, open_instance, run_job
from tests.clocks import FixedClock
from tests.horizon import until_all_was_seen

pytestmark = [
    pytest.mark.timeout(400),
    # Libraries' own deprecations inside a whole run are not ours to mend.
    pytest.mark.filterwarnings("default"),
]

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
EDITED, LIKER, LIKED = 7, 8, 9
CHANGED = [EDITED, LIKER, LIKED]
Db = psycopg.Connection[Any]


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def platform(
    settings: Settings, endpoints: Endpoints, connection: Db, redis_client: redis.Redis, clock: FixedClock
) -> Iterator[Platform]:
    """A platform on a world of sixty that ended yesterday; no step here asks MLflow."""
    connection.commit()
    import_synthetic(
        connection, people=60, seed=3, data_dir=settings.data_dir, clock=FixedClock(NOW - timedelta(days=1))
    )
    until_all_was_seen(connection)
    features = settings.features.model_copy(update={"project": f"changed_{uuid4().hex}"})
    settings = settings.model_copy(update={"features": features})
    made = Platform(settings, replace(endpoints, mlflow_url="http://127.0.0.1:9"), clock)
    yield made
    made.close()


def tick(platform: Platform) -> dg.RunRequest | dg.SkipReason:
    with open_instance(platform) as instance:
        context = dg.build_sensor_context(instance=instance, resources={"platform": platform})
        found = frequent_materialize_features(context)
        assert isinstance(found, dg.RunRequest | dg.SkipReason)
        return found


def online(platform: Platform) -> Any:
    from feature_repo.store import open_feature_store, read_people

    with platform.connection() as connection:
        ids = [row[0] for row in connection.execute("select user_id from duet.users order by 1")]
    return read_people(open_feature_store(platform.settings, platform.endpoints), ids)


def written(platform: Platform) -> dict[str, int]:
    with platform.connection() as connection:
        return {
            name: connection.execute(f"select count(*) from features.user_{name}").fetchall()[0][0]  # noqa: S608
            for name in ("profile", "activity", "reciprocity")
        }


def test_only_those_who_changed_are_computed_and_to_the_bits_of_everybody(
    platform: Platform, clock: FixedClock
) -> None:
    from feature_repo.store import online_until, open_feature_store

    assert "there are no features yet" in str(tick(platform))
    run_job(platform, "materialize_features", {}, 1, Listener())
    assert "nobody has changed since" in str(tick(platform))
    before, rows = online(platform), written(platform)
    announced = online_until(open_feature_store(platform.settings, platform.endpoints))

    clock.advance(600)
    with platform.connection() as connection:
        connection.execute("update duet.users set max_distance_km = 90 where user_id = %s", (EDITED,))
        connection.execute(
            "insert into duet.interactions (event_id, actor_id, target_id, kind, occurred_at)"
            " values (gen_random_uuid(), %s, %s, 'superlike', %s)",
            (LIKER, LIKED, clock.now() - timedelta(seconds=1)),
        )
        until_all_was_seen(connection)
    asked = tick(platform)
    assert isinstance(asked, dg.RunRequest)
    assert asked.job_name == "materialize_changes"
    run_job(platform, "materialize_changes", {}, 1, Listener())
    assert "nobody has changed since" in str(tick(platform))

    after = online(platform)
    assert {name: count - rows[name] for name, count in written(platform).items()} == {
        "profile": 1,
        "activity": 3,
        "reciprocity": 3,
    }
    at = after.positions(np.array(CHANGED))
    assert after.profile[at[0], PROFILE.index("max_distance_km")] == 90
    sent = ACTIVITY.index("likes_sent_7d")
    assert after.activity[at[1], sent] >= before.activity[at[1], sent]
    assert after.activity[at[1], ACTIVITY.index("decisions_sent")] == (
        before.activity[at[1], ACTIVITY.index("decisions_sent")] + 1
    )
    others = np.setdiff1d(np.arange(len(after)), at)
    for one, other in zip(after.take(others).views, before.take(others).views, strict=True):
        assert one.tobytes() == other.tobytes()
    # Whoever holds everybody in memory is not made to read them anew for three.
    assert online_until(open_feature_store(platform.settings, platform.endpoints)) == announced

    run_job(platform, "materialize_features", {}, 1, Listener())
    full = online(platform)
    for one, other in zip(after.take(at).views, full.take(at).views, strict=True):
        assert one.tobytes() == other.tobytes()


def test_an_emptied_online_store_is_filled_with_everybody_by_the_next_look_at_changes(
    platform: Platform, redis_client: redis.Redis
) -> None:
    run_job(platform, "materialize_features", {}, 1, Listener())
    before = online(platform)
    redis_client.flushdb()
    assert len(online(platform)) == 0
    asked = tick(platform)
    assert isinstance(asked, dg.RunRequest)
    assert asked.job_name == "materialize_changes"
    run_job(platform, "materialize_changes", {}, 1, Listener())
    for one, other in zip(before.views, online(platform).views, strict=True):
        assert one.tobytes() == other.tobytes()
    assert "nobody has changed since" in str(tick(platform))


def test_a_run_that_broke_off_is_done_again_and_one_long_after_is_announced(
    platform: Platform, clock: FixedClock
) -> None:
    from feature_repo.store import online_until, open_feature_store

    run_job(platform, "materialize_features", {}, 1, Listener())
    with platform.connection() as connection:
        connection.execute("update duet.users set max_distance_km = 90 where user_id = %s", (EDITED,))
        until_all_was_seen(connection)
    clock.advance(3_600)
    seen = last_look(platform.results)
    run_job(platform, "materialize_changes", {}, 1, Listener())
    assert online_until(open_feature_store(platform.settings, platform.endpoints)) == clock.now()
    pointer = platform.results.root / "changed_features" / "current.json"
    pointer.unlink()  # as if the process had ended before its last act
    assert last_look(platform.results) == seen
    rows = written(platform)
    run_job(platform, "materialize_changes", {}, 1, Listener())
    assert written(platform) == rows
    assert pointer.is_file()
