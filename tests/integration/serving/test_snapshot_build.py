"""The process that writes the snapshot, on real Postgres and Redis, and keepers that map what it wrote."""

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg
import pytest
import redis
from pydantic import SecretStr

from feature_repo.layout import ACTIVITY, PROFILE, VIEWS
from feature_repo.store import apply_catalogue, materialize, open_feature_store
from infra.clock import SystemClock
from infra.db.postgres import connect
from infra.endpoints import Endpoints
from infra.metrics import serving_metrics
from infra.settings import Settings
from serving.errors import BuildFailed
from serving.people.stored_people import StoredPeople
from serving.snapshots.build_process import BuildProcess
from serving.snapshots.fresh_changes import FreshChanges
from serving.snapshots.generations import Generation, Generations, source_of
from serving.snapshots.population_source import PopulationSnapshot
from serving.snapshots.snapshot import SnapshotKeeper
from tests.feature_rows import put_features
from tests.serving_world import insert_people, insert_person, interact
from tests.waiting import until

LIKES_SENT = ACTIVITY.index("likes_sent_7d")
AGE_MIN = PROFILE.index("age_min")
PATIENCE_S = 60.0


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A Feast project of this test's own."""
    features = settings.features.model_copy(update={"project": f"people_{uuid4().hex}"})
    return settings.model_copy(update={"features": features})


@pytest.fixture
def generations(settings: Settings, endpoints: Endpoints) -> Generations:
    return Generations(settings.data_dir / "snapshot", source_of(settings, endpoints))


@pytest.fixture
def builds(settings: Settings, endpoints: Endpoints, generations: Generations) -> Iterator[BuildProcess]:
    process = BuildProcess(settings, endpoints, generations)
    yield process
    process.close()


def built(builds: BuildProcess, generations: Generations) -> Generation:
    assert builds.start()
    until(lambda: not builds.running())
    newest = generations.newest()
    assert newest is not None
    return newest


def fill(connection: psycopg.Connection[Any], settings: Settings, endpoints: Endpoints, likes_sent: float) -> None:
    """Put features of person 2 into the online store."""
    now = SystemClock().now()
    for layout in VIEWS:
        put_features(connection, layout, 2, now, **({"likes_sent_7d": likes_sent} if layout is ACTIVITY else {}))
    connection.commit()
    materialize(open_feature_store(settings, endpoints), SystemClock().now())


def one(snapshot: PopulationSnapshot | None, user_id: int) -> Any:
    assert snapshot is not None
    position = snapshot.population.positions([user_id])
    return snapshot.population.rows(position[position >= 0])


def test_generations_follow_postgres_and_the_online_store(
    connection: psycopg.Connection[Any],
    redis_client: redis.Redis,
    settings: Settings,
    endpoints: Endpoints,
    generations: Generations,
    builds: BuildProcess,
) -> None:
    insert_people(connection, 6)
    interact(connection, 1, [2, 4])
    first = built(builds, generations)
    assert first.problem is not None  # there is no catalogue yet
    assert len(first.snapshot.population) == 6

    apply_catalogue(open_feature_store(settings, endpoints))
    fill(connection, settings, endpoints, likes_sent=9)
    second = built(builds, generations)
    assert second.problem is None
    assert second.snapshot.filled_at is not None
    assert one(second.snapshot, 2).activity[0, LIKES_SENT] == 9

    connection.execute("update duet.users set age_min = 44 where user_id = 2")
    connection.execute("update duet.users set visible = false where user_id = 3")
    connection.execute("delete from duet.users where user_id = 6")
    interact(connection, 5, 2)
    third = built(builds, generations).snapshot
    assert one(third, 2).profile[0, AGE_MIN] == 44
    assert one(third, 2).activity[0, LIKES_SENT] == 9
    assert third.population.base.user_ids.tolist() == [1, 2, 4, 5]
    assert third.recent_likes.latest(np.array([1, 5]), 2).tolist() == [[4, 2], [2, -1]]

    fill(connection, settings, endpoints, likes_sent=11)
    assert one(built(builds, generations).snapshot, 2).activity[0, LIKES_SENT] == 11


def test_secrets_that_the_builder_has_no_use_for_do_not_stop_it(
    connection: psycopg.Connection[Any], settings: Settings, endpoints: Endpoints, generations: Generations
) -> None:
    insert_people(connection, 6)
    away = SecretStr("https://alerts.example.org/hooks/planted")
    replica = SecretStr("postgresql://duet:planted@replica.example.org/duet")
    groups = {
        "alerts": settings.alerts.model_copy(update={"webhook_url": away}),
        "postgres": settings.postgres.model_copy(update={"read_replica_url": replica}),
    }
    builds = BuildProcess(settings.model_copy(update=groups), endpoints, generations)
    assert b"planted" not in builds._told
    assert len(built(builds, generations).snapshot.population) == 6


def test_a_builder_that_is_killed_or_left_alone_frees_its_right_and_leaves_nothing_to_read(
    connection: psycopg.Connection[Any],
    settings: Settings,
    endpoints: Endpoints,
    generations: Generations,
    builds: BuildProcess,
) -> None:
    insert_people(connection, 6)
    other = BuildProcess(settings, endpoints, generations)
    assert builds.start()
    assert not other.start()
    process = builds._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(BuildFailed, match="status -9"):
        until(lambda: not builds.running())
    assert generations.numbers() == []

    assert other.start()
    orphan = other._process
    assert orphan is not None
    assert orphan.stdin is not None
    orphan.stdin.close()  # as the kernel does when the worker dies
    with pytest.raises(BuildFailed, match="status 1"):
        until(lambda: not other.running())
    assert generations.numbers() == []
    assert len(built(builds, generations).snapshot.population) == 6


def test_two_keepers_share_one_generation_and_both_follow_changes(
    connection: psycopg.Connection[Any], settings: Settings, endpoints: Endpoints, generations: Generations
) -> None:
    insert_people(connection, 8)

    def keeper() -> SnapshotKeeper:
        changes = FreshChanges()

        def refresh(snapshot: PopulationSnapshot, *, thorough: bool) -> PopulationSnapshot:
            with connect(endpoints.database_url, autocommit=True) as own:
                return changes.applied(own, snapshot, thorough=thorough)

        stored = StoredPeople(settings, endpoints, SystemClock())
        return SnapshotKeeper(
            generations=generations,
            builds=BuildProcess(settings, endpoints, generations),
            refresh=refresh,
            filled_at=stored.filled_at,
            require=stored.require,
            settings=settings.serving,
            clock=SystemClock(),
            metrics=serving_metrics(),
        )

    async def live() -> None:
        keepers = [keeper(), keeper()]
        await asyncio.gather(*(each.step() for each in keepers))
        assert generations.numbers() == [1]
        insert_person(connection, 77)
        connection.execute("update duet.users set visible = false where user_id = 3")
        connection.execute("update duet.users set age_min = 44 where user_id = 2")
        connection.commit()
        await asyncio.gather(*(each.step() for each in keepers))
        for each in keepers:
            assert len(one(each.current, 77)) == 1
            assert len(one(each.current, 3)) == 0
            assert one(each.current, 2).profile[0, AGE_MIN] == 44
            each.close()

    asyncio.run(live())
