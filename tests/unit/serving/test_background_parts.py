import asyncio
import time

import numpy as np
import pytest

from feature_repo.people import People
from infra.clock import FixedClock, SystemClock
from serving.errors import FeaturesUnavailable
from serving.features import FIRST_PAUSE_S, OnlineFeatures
from serving.recent_likes import RecentLikes


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


def test_changed_likes_count_before_those_that_were_loaded() -> None:
    likes = RecentLikes.build([(2, [9, 8]), (5, [7])]).upsert(RecentLikes.build([(3, [1])]))
    likes = likes.upsert(RecentLikes.build([(2, [6, 9, 8]), (3, [])]))
    asked = np.array([2, 3, 4, 5])
    expected = [[6, 9, 8], [-1] * 3, [-1] * 3, [7, -1, -1]]
    assert likes.latest(asked, 3).tolist() == expected
    assert likes.aligned(asked).latest(asked, 3).tolist() == expected
    assert likes.aligned(asked).liked.dtype == np.int32
    assert RecentLikes.build([(1, [2**40])]).aligned(asked).liked.dtype == np.int64
