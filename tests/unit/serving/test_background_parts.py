import asyncio
import time
from datetime import UTC, datetime

import numpy as np
import pytest

from feature_repo.people import People
from feature_repo.population import Population
from infra.clock import FixedClock, SystemClock
from infra.metrics import serving_metrics
from serving.errors import FeaturesUnavailable
from serving.features import FIRST_PAUSE_S, OnlineFeatures
from serving.population_source import Snapshot
from serving.recent_likes import RecentLikes
from serving.snapshot import RELOAD_EVERY, SnapshotKeeper
from tests.serving_fakes import people_of, person


def test_one_person_is_read_off_the_event_loop() -> None:
    features = OnlineFeatures(lambda user_id: People.build([user_id]), SystemClock())
    assert asyncio.run(features.read(7, 5.0)).user_ids.tolist() == [7]
    features.close()


def test_a_store_that_fails_is_left_alone_for_a_while(clock: FixedClock) -> None:
    calls = []

    def broken(user_id: int) -> People:
        calls.append(user_id)
        raise ConnectionError("refused")

    features = OnlineFeatures(broken, clock)
    for _ in range(3):
        with pytest.raises(FeaturesUnavailable):
            asyncio.run(features.read(7, 5.0))
    assert calls == [7]
    clock.advance(FIRST_PAUSE_S)
    with pytest.raises(FeaturesUnavailable):
        asyncio.run(features.read(8, 5.0))
    clock.advance(FIRST_PAUSE_S)  # the second pause is longer
    with pytest.raises(FeaturesUnavailable):
        asyncio.run(features.read(9, 5.0))
    assert calls == [7, 8]


def test_a_store_that_does_not_answer_is_not_waited_for() -> None:
    features = OnlineFeatures(lambda _: time.sleep(0.5) or People.empty(), SystemClock())

    async def read() -> float:
        began = time.monotonic()
        with pytest.raises(FeaturesUnavailable):
            await features.read(7, 0.05)
        return time.monotonic() - began

    assert asyncio.run(read()) < 0.45
    features.close()


def snapshot_of(*user_ids: int) -> Snapshot:
    population = Population.build(people_of([person(user_id) for user_id in user_ids]))
    return Snapshot(population, RecentLikes.nobody(), {}, datetime(2026, 6, 1, tzinfo=UTC), None)


class Source:
    """Counts loads and refreshes, and fails when told to."""

    def __init__(self) -> None:
        self.loads = self.refreshes = 0
        self.refilled = self.down = False

    def load(self) -> Snapshot:
        self.loads += 1
        if self.down:
            raise ConnectionError("postgresql://duet:hunter2@db")
        return snapshot_of(1, 2)

    def refresh(self, snapshot: Snapshot) -> tuple[Snapshot, bool]:
        self.refreshes += 1
        if self.down:
            raise ConnectionError("gone")
        return snapshot, self.refilled


def keeper_of(source: Source, clock: FixedClock) -> SnapshotKeeper:
    return SnapshotKeeper(
        load=source.load, refresh=source.refresh, refresh_s=60, clock=clock, metrics=serving_metrics()
    )


def test_the_population_is_loaded_once_and_then_refreshed(clock: FixedClock) -> None:
    source = Source()
    keeper = keeper_of(source, clock)
    for _ in range(3):
        asyncio.run(keeper.step())
    assert (source.loads, source.refreshes) == (1, 2)
    assert keeper.current is not None
    clock.advance(5)
    assert keeper.age_s() == 5


def test_a_refilled_online_store_is_read_again_now_and_next_time(clock: FixedClock) -> None:
    source = Source()
    keeper = keeper_of(source, clock)
    asyncio.run(keeper.step())
    source.refilled = True
    asyncio.run(keeper.step())
    source.refilled = False
    asyncio.run(keeper.step())
    asyncio.run(keeper.step())
    assert (source.loads, source.refreshes) == (3, 2)


def test_now_and_then_everybody_is_read_again(clock: FixedClock) -> None:
    source = Source()
    keeper = keeper_of(source, clock)
    for _ in range(RELOAD_EVERY + 2):
        asyncio.run(keeper.step())
    assert source.loads == 2


def test_a_failed_refresh_keeps_what_is_there_and_says_so_without_secrets(clock: FixedClock) -> None:
    source = Source()
    keeper = keeper_of(source, clock)
    source.down = True
    asyncio.run(keeper.step())
    assert keeper.current is None
    assert keeper.tried.is_set()
    assert keeper.age_s() is None
    source.down = False
    asyncio.run(keeper.step())
    source.down = True
    asyncio.run(keeper.step())
    assert keeper.current is not None
    assert keeper.problem is not None
    assert "hunter2" not in keeper.problem
    source.down = False
    asyncio.run(keeper.step())
    assert keeper.problem is None


def test_recent_likes_of_people_without_any_are_filled_up() -> None:
    likes = RecentLikes.build([(2, [9, 8, 7]), (5, [])])
    assert likes.of(np.array([5, 2, 3]), 2, but=1).tolist() == [[-1] * 3, [9, 8, -1], [-1] * 3]
    assert RecentLikes.nobody().of(np.array([1]), 2, but=1).tolist() == [[-1] * 3]


def test_a_recent_like_of_the_one_who_asks_leaves_the_comparison_as_it_was() -> None:
    before, after = RecentLikes.build([(2, [9, 8, 7])]), RecentLikes.build([(2, [1, 9, 8, 7])])
    two = np.array([2])
    for last in (1, 2, 3, 20):
        kept = [ids[ids >= 0].tolist() for likes in (before, after) for ids in likes.of(two, last, but=1)]
        assert kept == [[9, 8, 7][:last]] * 2
