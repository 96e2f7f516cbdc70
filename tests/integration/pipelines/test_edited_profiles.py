"""What the features step keeps and drops.

An edited profile reaches the online store while training still sees the one before; rows nobody can see any more go.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pandas as pd
import psycopg
import pytest
import redis

from feature_repo.layout import ACTIVITY_TTL_DAYS, CONTEXT_COLUMNS, PROFILE, RANKING_FEATURES
from infra.endpoints import Endpoints
from infra.settings import Settings
from pipelines.ingest.world.world_import import import_synthetic
from pipelines.resources import Platform
from pipelines.runs.running import Listener, run_job
from tests.clocks import FixedClock

pytestmark = [
    pytest.mark.timeout(300),
    # Libraries' own deprecations inside a whole run are not ours to mend.
    pytest.mark.filterwarnings("default"),
]

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
EDITED, OTHER = 7, 8


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def platform(
    settings: Settings,
    endpoints: Endpoints,
    connection: psycopg.Connection[Any],
    redis_client: redis.Redis,
    clock: FixedClock,
) -> Iterator[Platform]:
    """A platform on a world of sixty that ended five months before the clock; no step here asks MLflow."""
    connection.commit()
    import_synthetic(
        connection,
        people=60,
        seed=3,
        data_dir=settings.data_dir,
        clock=FixedClock(datetime(2026, 1, 1, tzinfo=UTC)),
    )
    features = settings.features.model_copy(update={"project": f"edited_{uuid4().hex}"})
    settings = settings.model_copy(update={"features": features})
    made = Platform(settings, replace(endpoints, mlflow_url="http://127.0.0.1:9"), clock)
    yield made
    made.close()


def materialise(platform: Platform) -> None:
    run_job(platform, "materialize_features", {}, 1, Listener())


def online(platform: Platform) -> float:
    """Return the wish for distance that serving reads."""
    from feature_repo.store import open_feature_store, read_people

    people = read_people(open_feature_store(platform.settings, platform.endpoints), [EDITED])
    return float(people.profile[0, PROFILE.index("max_distance_km")])


def bio_length_at(platform: Platform, *instants: datetime) -> list[float]:
    """Return the length of the text about the edited person that a training row of each instant holds."""
    from feature_repo.store import historical_ranking_features, open_feature_store

    pairs = pd.DataFrame({"requester_id": OTHER, "candidate_id": EDITED, "event_timestamp": pd.to_datetime(instants)})
    pairs[list(CONTEXT_COLUMNS)] = 0.0
    rows = historical_ranking_features(open_feature_store(platform.settings, platform.endpoints), pairs)
    return [float(value) for value in rows[:, RANKING_FEATURES.index("candidate_bio_length")]]


def stored(platform: Platform) -> list[tuple[Any, ...]]:
    with platform.connection() as connection:
        return connection.execute(
            # As text: a missing number equals itself.
            "select 'profile', user_id, event_timestamp, p::text from features.user_profile p union all "
            "select 'attributes', user_id, event_timestamp, a::text from features.user_attributes a "
            "order by 1, 2, 3"
        ).fetchall()


def test_an_edit_reaches_serving_and_leaves_the_past_alone(platform: Platform, clock: FixedClock) -> None:
    with platform.connection() as connection:
        connection.execute("update duet.users set max_distance_km = 40, bio = 'short' where user_id = %s", (EDITED,))
    materialise(platform)
    first = stored(platform)
    assert online(platform) == 40

    clock.advance(3600)
    materialise(platform)
    assert stored(platform) == first  # nobody was edited

    clock.advance(3600)
    with platform.connection() as connection:
        connection.execute(
            "update duet.users set max_distance_km = 90, bio = 'a longer story' where user_id = %s", (EDITED,)
        )
    materialise(platform)
    assert online(platform) == 90
    added = [row for row in stored(platform) if row not in first]
    assert [(row[0], row[1], row[2]) for row in added] == [("profile", EDITED, NOW + timedelta(hours=2))]
    assert len(stored(platform)) == len(first) + 1
    before, after = NOW + timedelta(hours=1), NOW + timedelta(hours=3)
    assert bio_length_at(platform, before, after) == [len("short"), len("a longer story")]


def test_features_that_no_join_can_see_are_pruned_by_the_features_step(platform: Platform) -> None:
    materialise(platform)
    pointer = platform.results.require("features")
    assert pointer.t0 is not None
    assert pointer.t0 < pointer.as_of
    limit = pointer.t0 - timedelta(days=ACTIVITY_TTL_DAYS)
    with platform.connection() as connection:
        connection.execute("delete from features.user_activity where user_id = %s", (OTHER,))
        for user_id, at in ((EDITED, limit - timedelta(days=1)), (EDITED, limit), (OTHER, limit - timedelta(days=1))):
            connection.execute(
                "insert into features.user_activity (user_id, event_timestamp) values (%s, %s)", (user_id, at)
            )
        # Somebody who did nothing since, so that no newer row follows.
        connection.execute("delete from duet.interactions where actor_id = %s or target_id = %s", (OTHER, OTHER))
    materialise(platform)
    with platform.connection() as connection:
        left = connection.execute(
            "select user_id, event_timestamp from features.user_activity where event_timestamp <= %s order by 1",
            (limit,),
        ).fetchall()
    assert left == [(EDITED, limit), (OTHER, limit - timedelta(days=1))]
