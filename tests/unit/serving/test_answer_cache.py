import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from infra.metrics import serving_metrics
from infra.settings import Settings
from registry.release import Release
from serving.api.recommendation_models import Filters
from serving.cache.answer_cache import AnswerCache, CacheLook, Tier
from serving.errors import UnknownUser
from serving.experiments.assignment import Assignment, Variant
from serving.reasons import Reason
from serving.recommend.answers import Answer
from tests.cached_towns import HARMS, LATER, ask, ids, twice, with_cache
from tests.clocks import FixedClock
from tests.serving_fakes import Town, make_town
from tests.serving_world import load_town, write_artifacts


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return load_town(write_artifacts(tmp_path_factory.mktemp("release"), range(1, 101)))


@pytest.fixture
def town(settings: Settings, clock: FixedClock, release: Release) -> Town:
    return with_cache(make_town(settings, clock, n=100, release=release))


def looks(tier: Tier, look: CacheLook) -> float:
    return float(serving_metrics().cache_reads.labels(tier.value, look.value)._value.get())


def test_the_second_answer_shows_the_first_list_again_under_its_own_id(town: Town) -> None:
    hits = looks(Tier.MEMORY, CacheLook.HIT)
    first, second = twice(town)
    assert (first.cached, second.cached) == (False, True)
    assert second.items == first.items
    assert (second.level, second.release, second.order) == (1, first.release, first.order)
    assert second.request_id != first.request_id
    assert looks(Tier.MEMORY, CacheLook.HIT) == hits + 1


def test_a_cached_answer_asks_postgres_once_and_nobody_else(town: Town) -> None:
    twice(town, town.people.asked.clear)
    assert town.people.asked == ["standing"]
    assert town.features.reads == 1


def test_every_showing_logs_its_own_impressions(town: Town) -> None:
    first, second = twice(town)
    logged = [(row.request_id, row.target_id, row.position) for row in town.impressions]
    assert logged == [
        (answer.request_id, item.user_id, item.position) for answer in (first, second) for item in answer.items
    ]


def test_a_cached_answer_is_timed_by_what_it_did(town: Town) -> None:
    assert set(twice(town)[1].timings_ms) == {"safety", "total"}


@pytest.mark.parametrize("harm", HARMS)
def test_whoever_may_not_be_shown_any_more_is_replaced_by_the_next_of_the_list(town: Town, harm: str) -> None:
    seen: list[int] = []

    async def go() -> Answer:
        recommender = town.recommender()
        seen.extend(ids(await ask(recommender)))
        HARMS[harm](town, seen[3])
        return await ask(recommender)

    answer = asyncio.run(go())
    assert answer.cached
    assert seen[3] not in ids(answer)
    assert ids(answer)[:9] == seen[:3] + seen[4:]
    assert len(set(ids(answer))) == 10
    assert [item.position for item in answer.items] == list(range(1, 11))


def test_what_the_requester_does_makes_the_next_answer_new(town: Town) -> None:
    stale = looks(Tier.MEMORY, CacheLook.STALE)
    _, second = twice(town, lambda: town.people.decided.update({1: {98}}))
    assert not second.cached
    assert 98 not in ids(second)
    assert looks(Tier.MEMORY, CacheLook.STALE) == stale + 1


def test_a_separation_by_somebody_else_makes_the_next_answer_new(town: Town) -> None:
    first, second = twice(town, lambda: town.people.separated.add(frozenset({100, 1})))
    assert 100 in ids(first)
    assert not second.cached
    assert 100 not in ids(second)


def test_a_changed_preference_of_the_requester_makes_the_next_answer_new(town: Town) -> None:
    _, second = twice(town, lambda: town.people.update(1, LATER, seeking=["woman"]))
    assert not second.cached
    assert not second.items


def test_a_requester_who_was_deleted_is_unknown_and_not_answered_from_the_cache(town: Town) -> None:
    with pytest.raises(UnknownUser):
        twice(town, lambda: town.people.rows.pop(1))


def test_without_postgres_a_kept_list_is_not_shown(town: Town) -> None:
    _, second = twice(town, lambda: setattr(town.people, "down", True))
    assert (second.level, second.items, second.cached) == (4, [], False)
    assert second.reason == Reason.ELIGIBILITY_UNAVAILABLE


def test_when_too_few_of_the_list_are_left_it_is_made_anew(town: Town) -> None:
    short = looks(Tier.MEMORY, CacheLook.SHORT)
    _, second = twice(town, lambda: town.people.hidden.update(range(40, 101, 2)))
    assert not second.cached
    assert len(second.items) == 10
    assert max(ids(second)) < 40
    assert looks(Tier.MEMORY, CacheLook.SHORT) == short + 1


def test_interactions_drop_what_this_process_keeps(town: Town) -> None:
    town.people.asked.clear()

    def forget() -> None:
        assert town.cache is not None
        town.cache.forget(1)
        town.people.asked.clear()

    assert not twice(town, forget)[1].cached
    assert town.people.asked == ["requester", "standing"]


@pytest.mark.parametrize(
    "other",
    [
        {"limit": 11},
        {"user_id": 3},
        {"filters": Filters(age_min=20)},
        {"filters": Filters(interests_any=["hiking"])},
        {"explain": True},
    ],
)
def test_another_question_has_another_answer(town: Town, other: dict[str, Any]) -> None:
    async def go() -> Answer:
        recommender = town.recommender()
        await ask(recommender)
        return await ask(recommender, **other)

    assert not asyncio.run(go()).cached


def test_the_order_of_interests_makes_no_other_question(town: Town) -> None:
    async def go() -> Answer:
        recommender = town.recommender()
        await ask(recommender, filters=Filters(interests_any=["hiking", "chess"]))
        return await ask(recommender, filters=Filters(interests_any=["chess", "hiking"]))

    assert asyncio.run(go()).cached


def test_another_release_and_another_arm_have_answers_of_their_own(town: Town, release: Release) -> None:
    town.challenger = replace(release, versions=replace(release.versions, ranker=9))
    arms = iter([Variant.CHAMPION, Variant.CHALLENGER, Variant.CHALLENGER, Variant.CHAMPION])
    town.assign = lambda _user_id, _override: Assignment(next(arms), "fit")

    async def go() -> list[Answer]:
        recommender = town.recommender()
        return [await ask(recommender) for _ in range(4)]

    answers = asyncio.run(go())
    assert [answer.cached for answer in answers] == [False, False, True, True]
    assert [answer.release for answer in answers] == ["e1-i1-r1", "e1-i1-r9", "e1-i1-r9", "e1-i1-r1"]
    assert [answer.variant.value for answer in answers] == ["champion", "challenger", "challenger", "champion"]
    assert {answer.experiment for answer in answers} == {"fit"}
    assert {row.variant for row in town.impressions} == {"champion", "challenger"}


def test_without_a_challenger_the_champion_answers_and_says_so(town: Town) -> None:
    town.assign = lambda _user_id, _override: Assignment(Variant.CHALLENGER, "fit")
    first, _ = twice(town)
    assert (first.variant, first.release) == (Variant.CHAMPION, "e1-i1-r1")


@pytest.mark.parametrize("worse", [{"release": None}, {"population": None}])
def test_answers_below_the_best_level_are_not_kept(town: Town, worse: dict[str, Any]) -> None:
    for name, value in worse.items():
        setattr(town, name, value)
    assert not twice(town)[1].cached


def test_an_answer_that_had_to_do_without_features_is_not_kept(town: Town) -> None:
    town.features.down = True
    assert not twice(town)[1].cached


def test_an_answer_ends_with_its_time_and_with_the_day(town: Town, clock: FixedClock) -> None:
    ttl_s = town.settings.serving.cache.ttl_s
    assert twice(town, lambda: clock.advance(ttl_s * 0.9))[1].cached
    assert not twice(town, lambda: clock.advance(ttl_s))[1].cached


def test_people_grow_older_over_night_so_no_answer_does(town: Town, clock: FixedClock) -> None:
    midnight = (clock.now() + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    clock.advance((midnight - clock.now()).total_seconds() - 1)
    assert not twice(town, lambda: clock.advance(2.0))[1].cached


def test_answers_made_at_once_do_not_end_at_once(settings: Settings, clock: FixedClock) -> None:
    shares = iter([0.0, 0.5, 1.0])
    cache = AnswerCache(settings, clock, serving_metrics(), lambda: next(shares))
    assert [cache.expires_at(1000.0) for _ in range(3)] == pytest.approx([1600.0, 1570.0, 1540.0])
