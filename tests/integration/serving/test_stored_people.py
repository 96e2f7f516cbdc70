import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg
import pytest
import redis

from feature_repo.layout import ACTIVITY, PROFILE, VIEWS
from feature_repo.store import apply_catalogue, materialize, materialize_people, open_feature_store
from infra.endpoints import Endpoints
from infra.settings import Settings
from serving.errors import FeaturesLost, FeaturesUnavailable
from serving.people.stored_people import StoredPeople
from tests.clocks import FixedClock
from tests.feature_rows import put_features

LIKES_SENT = ACTIVITY.index("likes_sent_7d")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A Feast project of this test's own: what another test has materialised until when does not count."""
    features = settings.features.model_copy(update={"project": f"people_{uuid4().hex}"})
    return settings.model_copy(update={"features": features})


@pytest.fixture
def filled(
    settings: Settings, endpoints: Endpoints, connection: psycopg.Connection[Any], redis_client: redis.Redis
) -> datetime:
    """Features of people 1 and 2 in the online store, as of the instant returned."""
    at = datetime(2026, 5, 31, tzinfo=UTC)
    for layout in VIEWS:
        for user_id in (1, 2):
            put_features(connection, layout, user_id, at, **({"likes_sent_7d": 9} if layout is ACTIVITY else {}))
    connection.commit()
    store = open_feature_store(settings, endpoints)
    apply_catalogue(store)
    materialize(store, at + timedelta(hours=1))
    return at


def test_people_come_from_the_online_store(
    filled: datetime, settings: Settings, endpoints: Endpoints, clock: FixedClock
) -> None:
    stored = StoredPeople(settings, endpoints, clock)
    assert stored.one(1).activity[0, LIKES_SENT] == 9
    assert len(stored.one(3)) == 0
    assert stored.many(np.array([1, 2, 3])).user_ids.tolist() == [1, 2]
    assert len(stored.many(np.empty(0, np.int64))) == 0


def test_reads_that_are_cancelled_under_load_never_give_one_person_s_features_to_another(
    filled: datetime, settings: Settings, endpoints: Endpoints, clock: FixedClock
) -> None:
    stored = StoredPeople(settings, endpoints, clock)

    async def go() -> int:
        answered = 0
        await stored.one_async(1)
        try:
            for turn in range(40):
                asked = [1, 3, 1, 3, 1, 3]  # person 1 has features, and nobody else
                reads = [asyncio.create_task(stored.one_async(user_id)) for user_id in asked]
                for _ in range(turn % 9):
                    await asyncio.sleep(0)
                for read in reads[:3]:
                    read.cancel()
                for user_id, read in zip(asked, reads, strict=True):
                    with contextlib.suppress(asyncio.CancelledError):
                        assert len(await read) == (user_id == 1)
                        answered += 1
        finally:
            await stored.aclose()
        return answered

    assert asyncio.run(go()) >= 40 * 3


def test_until_when_the_store_was_filled_is_known_as_soon_as_it_is(
    filled: datetime, settings: Settings, endpoints: Endpoints, clock: FixedClock
) -> None:
    stored = StoredPeople(settings, endpoints, clock)
    assert stored.filled_at() == filled + timedelta(hours=1)
    materialize(open_feature_store(settings, endpoints), filled + timedelta(hours=2))
    assert stored.filled_at() == filled + timedelta(hours=2)


def test_a_store_that_was_emptied_is_told_from_one_that_was_never_filled(
    filled: datetime, settings: Settings, endpoints: Endpoints, clock: FixedClock, redis_client: redis.Redis
) -> None:
    stored = StoredPeople(settings, endpoints, clock)
    redis_client.flushdb()
    with pytest.raises(FeaturesLost, match="was emptied"):
        stored.filled_at()
    store = open_feature_store(settings, endpoints)
    materialize_people(store, [1], filled + timedelta(hours=2))  # one person more makes no full store
    with pytest.raises(FeaturesLost):
        stored.filled_at()
    materialize(store, filled + timedelta(hours=3))
    assert stored.filled_at() == filled + timedelta(hours=3)
    assert stored.many(np.array([1, 2])).activity[:, LIKES_SENT].tolist() == [9, 9]


def test_a_person_who_was_evicted_is_found_missing_and_comes_back_with_the_next_filling(
    filled: datetime, settings: Settings, endpoints: Endpoints, clock: FixedClock, redis_client: redis.Redis
) -> None:
    stored = StoredPeople(settings, endpoints, clock)
    everybody = np.array([1, 2, 3])  # nothing was ever written of 3
    stored.require(everybody)
    (key,) = [key for key in redis_client.scan_iter() if (2).to_bytes(8, "little") in key]
    redis_client.delete(key)
    stored.require(np.array([1, 3]))
    with pytest.raises(FeaturesLost, match="has lost 1 of 2 people who were looked at"):
        stored.require(everybody)
    with pytest.raises(FeaturesLost, match="was emptied"):  # no mark: the next filling is one of everybody
        stored.filled_at()
    materialize(open_feature_store(settings, endpoints), filled + timedelta(hours=2))
    stored.require(everybody)
    assert stored.filled_at() == filled + timedelta(hours=2)


def test_somebody_whose_first_row_was_written_after_the_last_filling_is_not_missed(
    filled: datetime,
    settings: Settings,
    endpoints: Endpoints,
    clock: FixedClock,
    connection: psycopg.Connection[Any],
) -> None:
    put_features(connection, PROFILE, 3, filled, created=filled + timedelta(hours=2))
    connection.commit()
    StoredPeople(settings, endpoints, clock).require(np.array([1, 2, 3]))


def test_without_redis_the_reason_is_said(
    filled: datetime, settings: Settings, endpoints: Endpoints, clock: FixedClock
) -> None:
    stored = StoredPeople(settings, replace(endpoints, redis_url="redis://127.0.0.1:9/0"), clock)
    with pytest.raises(FeaturesUnavailable, match="cannot be read"):
        stored.many(np.array([1, 2]))
