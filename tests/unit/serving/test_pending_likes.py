import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from infra.settings import Settings
from registry.models.ranker import ListPolicy, Order
from registry.release import Release
from registry.scoring.recent_likes import RecentLikes
from registry.scoring.retrieval import Factors, Origin
from serving.api.recommendation_models import Filters, RecommendationRequest
from serving.people.people_store import PendingLikes
from serving.reasons import CandidateSource
from serving.recommend.answers import Answer
from serving.recommend.pool import KnownRequester
from serving.recommend.stages.ranking import pair_context
from tests.clocks import FixedClock
from tests.serving_fakes import Town, make_town, people_of, person
from tests.serving_world import load_town, write_artifacts

NOBODY = np.empty(0, np.int64)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return load_town(write_artifacts(tmp_path_factory.mktemp("release"), range(1, 41)))


@pytest.fixture
def town(settings: Settings, clock: FixedClock, release: Release) -> Town:
    return make_town(settings, clock, release=release)


def ask(town: Town, **request: Any) -> Answer:
    asked = RecommendationRequest(user_id=1, limit=100, **request)
    return asyncio.run(town.recommender().recommend(asked, UUID(int=1)))


def waiting(*user_ids: int, liked_by: tuple[int, ...] = ()) -> dict[int, PendingLikes]:
    ids = np.array(user_ids, dtype=np.int64)
    return {1: PendingLikes(np.array([*user_ids, *liked_by], dtype=np.int64), ids)}


def known(answer: Answer) -> dict[int, float | None]:
    return {item.user_id: item.p_liked_back for item in answer.items}


@pytest.mark.parametrize("level", [1, 2])
def test_whoever_waits_is_found_and_named_as_such(town: Town, level: int) -> None:
    if level == 2:
        town.release = None
    town.people.pending = waiting(4, 2)
    answer = ask(town)
    assert answer.level == level
    found = [item.user_id for item in answer.items if CandidateSource.LIKED_YOU in item.sources]
    assert sorted(found) == [2, 4]


def test_the_answer_of_whoever_waits_is_known_and_counts_in_the_order(town: Town) -> None:
    before = ask(town)
    town.people.pending = waiting(4)
    after = ask(town)
    assert known(after) == {**known(before), 4: 1.0}
    four = next(item for item in after.items if item.user_id == 4)
    assert four.score == four.p_like
    assert four.position < next(item.position for item in before.items if item.user_id == 4)


def test_somebody_who_changed_their_mind_waits_no_more(town: Town) -> None:
    before = ask(town)
    town.people.pending = waiting(liked_by=(4,))
    after = ask(town)
    assert known(after)[4] == known(before)[4] != 1.0
    assert all(CandidateSource.LIKED_YOU not in item.sources for item in after.items)


@pytest.mark.parametrize("level", [1, 2])
def test_whoever_waits_passes_the_same_hard_filters(town: Town, level: int) -> None:
    if level == 2:
        town.release = None
    town.people.pending = waiting(2, 3, 4, 6, 8, 10, 999, 1)
    town.people.decided[1] = {2}
    town.people.separated = {frozenset({1, 4})}
    town.people.hidden = {6}
    town.people.rows[8] = person(8, age_min=60)
    answer = ask(town, filters=Filters(interests_any=["chess"]))
    assert not {1, 2, 3, 4, 6, 8, 999} & set(known(answer))
    assert all(town.people.rows[user_id]["interests"] == ["chess"] for user_id in known(answer))


def test_the_retrieval_order_stays_what_it_is(town: Town, release: Release) -> None:
    town.release = replace(release, ranker=replace(release.ranker, policy=ListPolicy(Order.RETRIEVAL)))
    before = ask(town)
    town.people.pending = waiting(4)
    after = ask(town)
    assert (before.order, after.order) == ("retrieval", "retrieval")
    assert [item.user_id for item in before.items] == [item.user_id for item in after.items]


def test_the_ranker_is_told_in_the_direction_that_training_uses(release: Release) -> None:
    people = people_of([person(user_id) for user_id in (1, 2, 4, 6)])
    requester = KnownRequester(
        1, people.take([0]), np.array([1]), NOBODY, NOBODY, PendingLikes(np.array([4, 6]), np.array([6]))
    )
    factors = Factors(release.embedding.chooser[0], release.embedding.chosen[0], Origin.FITTED)
    context = pair_context(
        release, requester, factors, None, people.take([1, 2, 3]), others=RecentLikes.nobody(), at=0.0
    )
    assert context.liked_requester.tolist() == [0.0, 1.0, 1.0]
    assert context.liked_candidate.tolist() == [0.0, 0.0, 0.0]
    assert context.reversed().liked_requester.tolist() == [0.0, 0.0, 0.0]


def test_a_like_in_somebodys_recent_taste_does_not_tell_that_it_waits(town: Town) -> None:
    town.recent_likes = RecentLikes.build([(2, [9, 7]), (4, [9])])
    before = ask(town)
    town.recent_likes = RecentLikes.build([(2, [9, 7]), (4, [1, 9])])
    assert ask(town).items == before.items
