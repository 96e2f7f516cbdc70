import asyncio
import time

import numpy as np
import pytest

from feature_repo.population.people import People
from infra.settings import BreakerSettings
from registry.scoring.recent_likes import RecentLikes
from serving.errors import FeaturesUnavailable
from serving.recommend.features import OnlineFeatures
from tests.serving_fakes import closed_breaker


def test_one_person_is_read() -> None:
    async def read(user_id: int) -> People:
        return People.build([user_id])

    features = OnlineFeatures(read, closed_breaker())
    assert asyncio.run(features.read(7, 5.0)).user_ids.tolist() == [7]


def test_a_store_that_fails_is_left_alone_for_a_while() -> None:
    calls = []

    async def broken(user_id: int) -> People:
        calls.append(user_id)
        raise ConnectionError("refused")

    features = OnlineFeatures(broken, closed_breaker())
    limit = BreakerSettings().min_calls
    for number in range(limit + 3):
        with pytest.raises(FeaturesUnavailable) as refused:
            asyncio.run(features.read(number, 5.0))
        assert not refused.value.late
    assert calls == list(range(limit))


def test_a_store_that_does_not_answer_is_not_waited_for() -> None:
    async def hangs(user_id: int) -> People:
        await asyncio.sleep(5)
        return People.build([user_id])

    async def read() -> float:
        began = time.monotonic()
        with pytest.raises(FeaturesUnavailable) as refused:
            await OnlineFeatures(hangs, closed_breaker()).read(7, 0.05)
        assert refused.value.late
        return time.monotonic() - began

    assert asyncio.run(read()) < 2


def test_recent_likes_of_people_without_any_are_filled_up() -> None:
    likes = RecentLikes.build([(2, [9, 8, 7]), (5, [])])
    assert likes.latest(np.array([5, 2, 3]), 2).tolist() == [[-1] * 2, [9, 8], [-1] * 2]
    assert RecentLikes.nobody().latest(np.array([1]), 2).tolist() == [[-1] * 2]


def test_changed_likes_count_before_those_that_were_loaded() -> None:
    likes = RecentLikes.build([(2, [9, 8]), (5, [7])]).upsert(RecentLikes.build([(3, [1])]))
    likes = likes.upsert(RecentLikes.build([(2, [6, 9, 8]), (3, [])]))
    asked = np.array([2, 3, 4, 5])
    expected = [[6, 9, 8], [-1] * 3, [-1] * 3, [7, -1, -1]]
    assert likes.latest(asked, 3).tolist() == expected
    assert likes.aligned(asked).latest(asked, 3).tolist() == expected
    assert likes.aligned(asked).liked.dtype == np.int32
    assert RecentLikes.build([(1, [2**40])]).aligned(asked).liked.dtype == np.int64
