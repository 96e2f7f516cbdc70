import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import structlog

from infra.settings import Settings
from registry.models.ranker import ListPolicy
from registry.release import Release
from serving.api import responses
from serving.api.recommendation_models import Filters, RecommendationRequest, Recommendations
from serving.errors import LevelUnavailable, UnknownUser
from serving.reasons import Reason
from serving.recommend.answers import Answer
from tests.clocks import FixedClock
from tests.serving_fakes import Town, make_town, person
from tests.serving_world import START, load_town, write_artifacts

LATER = START + timedelta(minutes=1)
REQUEST_ID = UUID("00000000-0000-4000-8000-000000000001")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return load_town(write_artifacts(tmp_path_factory.mktemp("release"), range(1, 41)))


@pytest.fixture
def town(settings: Settings, clock: FixedClock, release: Release) -> Town:
    return make_town(settings, clock, release=release)


def ask(town: Town, user_id: int = 1, **request: Any) -> Answer:
    return asyncio.run(town.recommender().recommend(RecommendationRequest(user_id=user_id, **request), REQUEST_ID))


def ids(answer: Answer) -> list[int]:
    return [item.user_id for item in answer.items]


def test_a_healthy_answer_is_of_level_one_and_in_the_order_of_the_ranker(town: Town) -> None:
    answer = ask(town, limit=10)
    assert (answer.level, answer.reason, answer.message, answer.release) == (1, None, None, "e1-i1-r1")
    assert all(user_id % 2 == 0 for user_id in ids(answer))
    assert ids(answer)[0] >= 34
    assert [item.score for item in answer.items] == sorted((item.score for item in answer.items), reverse=True)
    assert [item.position for item in answer.items] == list(range(1, 11))


@pytest.mark.parametrize("request_of", [{}, {"explain": True, "limit": 3}, {"limit": 100}])
def test_what_leaves_is_what_the_documented_model_says(town: Town, request_of: dict[str, Any]) -> None:
    answer = ask(town, **request_of)
    body = responses.ok(answer).body
    documented = Recommendations.model_validate_json(body)
    assert json.loads(documented.model_dump_json()) == json.loads(body)
    assert [item.user_id for item in documented.items] == ids(answer)


def test_an_empty_answer_is_what_the_documented_model_says(town: Town) -> None:
    town.people.down = True
    body = responses.ok(ask(town)).body
    assert Recommendations.model_validate_json(body).reason is Reason.ELIGIBILITY_UNAVAILABLE


def test_the_score_is_the_product_of_both_directions(town: Town) -> None:
    items = ask(town).items
    assert items
    for item in items:
        assert item.p_like is not None
        assert item.p_liked_back is not None
        assert item.score == pytest.approx(item.p_like * item.p_liked_back, rel=1e-5)


def test_both_directions_are_told_apart(town: Town) -> None:
    first = ask(town, user_id=1, limit=1).items[0]
    assert first.p_like is not None
    assert first.p_liked_back is not None
    assert first.p_like > first.p_liked_back


def test_an_explanation_names_the_strongest_features(town: Town) -> None:
    explanation = ask(town, limit=1, explain=True).items[0].explanation
    assert explanation is not None
    assert explanation.p_like[0].feature == "score_forward"
    assert explanation.p_liked_back[0].feature == "score_backward"  # the same feature, from the side of who asks
    assert ask(town, limit=1).items[0].explanation is None


def test_at_level_three_the_propensity_knows_both_draws(town: Town) -> None:
    town.release = town.population = None
    town.people.drawn_with = 0.25
    answer = ask(town, limit=5)
    assert answer.level == 3
    assert [shown.propensity for shown in town.impressions] == pytest.approx([0.25 * 5 / 20] * 5)  # of twenty men


def test_an_answer_says_that_people_may_lack_their_features(town: Town) -> None:
    assert ask(town).degraded == []
    town.features_lost = True
    assert ask(town).degraded == ["features"]


def test_the_answer_has_no_more_than_limit_people(town: Town) -> None:
    assert len(ask(town, limit=3).items) == 3
    assert len(ask(town, limit=100).items) == 20


def test_somebody_whom_nobody_suits_gets_a_short_answer_of_the_best_level(town: Town) -> None:
    town.people.rows[1002] = person(1002, age_min=99, age_max=99)
    answer = ask(town, user_id=1002)
    assert (answer.level, answer.items, answer.reason) == (1, [], None)


def test_somebody_unknown_is_refused(town: Town) -> None:
    with pytest.raises(UnknownUser):
        ask(town, user_id=999)


def test_somebody_imported_a_minute_ago_gets_personalised_eligible_people(town: Town) -> None:
    town.people.rows[1001] = person(1001, interests=["chess"])
    answer = ask(town, user_id=1001)
    assert answer.level == 1
    assert len(answer.items) == 20
    assert all(user_id % 2 == 0 for user_id in ids(answer))
    town.release = None
    by_profile = ask(town, user_id=1001, limit=5)
    assert by_profile.level == 2
    assert all(town.people.rows[user_id]["interests"] == ["chess"] for user_id in ids(by_profile))


def test_without_a_release_profiles_give_the_order(town: Town) -> None:
    town.release = None
    answer = ask(town)
    assert (answer.level, answer.level_name, answer.reason) == (2, "content", Reason.NO_RELEASE)
    assert answer.release is None
    assert answer.items[0].p_like is None


def test_a_refused_release_is_named_as_the_reason(town: Town) -> None:
    town.release = None
    town.no_release = LevelUnavailable(Reason.RELEASE_REFUSED, "The index was built from another embedding.")
    answer = ask(town)
    assert answer.reason == Reason.RELEASE_REFUSED
    assert answer.message == "The index was built from another embedding."


class Broken:
    """Stands in for a part of a release that fails."""

    policy = ListPolicy()

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("broken part")


@pytest.mark.parametrize(
    ("part", "reason", "stage"),
    [("ranker", Reason.RANKING_FAILED, "ranking"), ("index", Reason.RETRIEVAL_FAILED, "retrieval")],
)
def test_a_failing_part_of_the_release_degrades_to_profiles(
    town: Town, release: Release, part: str, reason: Reason, stage: str
) -> None:
    town.release = replace(release, **{part: Broken()})
    with structlog.testing.capture_logs() as logs:
        answer = ask(town)
    assert (answer.level, answer.reason) == (2, reason)
    assert [(line["event"], line["stage"]) for line in logs] == [("stage_failed", stage)]
    assert stage in answer.degraded
    assert len(answer.items) == 20
    assert "broken part" not in (answer.message or "")


def test_without_a_population_eligible_people_come_at_random(town: Town) -> None:
    town.population = None
    answer = ask(town)
    assert (answer.level, answer.level_name, answer.reason) == (3, "random", Reason.POPULATION_UNAVAILABLE)
    assert len(answer.items) == 20
    assert all(user_id % 2 == 0 for user_id in ids(answer))


def test_without_eligibility_the_answer_is_empty_and_says_why(town: Town) -> None:
    town.people.down = True
    answer = ask(town)
    assert (answer.level, answer.level_name, answer.items) == (4, "empty", [])
    assert answer.reason == Reason.ELIGIBILITY_UNAVAILABLE
    assert answer.message


def test_when_the_last_check_fails_nobody_is_shown(town: Town) -> None:
    town.people.down_for_safety = True
    answer = ask(town)
    assert (answer.level, answer.items, answer.reason) == (4, [], Reason.ELIGIBILITY_UNAVAILABLE)
    assert not town.impressions


def test_without_the_online_store_older_features_are_used_and_the_answer_says_so(town: Town) -> None:
    town.features.down = True
    answer = ask(town)
    assert answer.level == 1
    assert answer.degraded == ["features"]


LEVELS = {1: {}, 2: {"release": None}, 3: {"release": None, "population": None}}


@pytest.mark.parametrize("level", LEVELS)
def test_decided_separated_hidden_and_ineligible_people_are_never_shown_at_any_level(town: Town, level: int) -> None:
    for name, value in LEVELS[level].items():
        setattr(town, name, value)
    town.people.decided[1] = {2, 4}
    town.people.separated = {frozenset({1, 6}), frozenset({8, 1})}
    town.people.hidden = {10, 12}
    town.people.update(14, LATER, age_min=60)
    town.people.update(16, LATER, seeking=["man"])
    del town.people.rows[18]
    answer = ask(town, limit=100)
    assert answer.level == level
    assert sorted(ids(answer)) == [user_id for user_id in range(20, 41) if user_id % 2 == 0]


@pytest.mark.parametrize("level", LEVELS)
def test_request_filters_hold_at_every_level(town: Town, level: int) -> None:
    for name, value in LEVELS[level].items():
        setattr(town, name, value)
    chess = ask(town, limit=100, filters=Filters(interests_any=["chess"]))
    assert ids(chess)
    assert all(town.people.rows[user_id]["interests"] == ["chess"] for user_id in ids(chess))
    young = ask(town, limit=100, filters=Filters(age_max=30))
    assert ids(young)
    assert all(town.people.rows[user_id]["birth_date"].year >= 1995 for user_id in ids(young))
    near = ask(town, limit=100, filters=Filters(max_distance_km=1.0))
    assert sorted(ids(near)) == [2, 4, 6, 8]


def test_impressions_carry_what_an_evaluation_needs(town: Town) -> None:
    answer = ask(town, limit=2)
    first = town.impressions[0]
    assert len(town.impressions) == 2
    assert (first.request_id, first.user_id, first.target_id, first.position) == (REQUEST_ID, 1, ids(answer)[0], 1)
    assert (first.release, first.variant, first.level, first.propensity) == ("e1-i1-r1", "champion", 1, 1.0)


def test_every_stage_is_timed(town: Town) -> None:
    assert set(ask(town).timings_ms) == {
        "eligibility",
        "features",
        "retrieval",
        "filtering",
        "ranking",
        "reranking",
        "safety",
        "total",
    }


def test_a_person_who_liked_somebody_is_ranked_by_what_they_like(town: Town, tmp_path: Path) -> None:
    before = ask(town, limit=100)
    town.people.liked[1] = [2]
    town.people.decided[1] = {2}
    after = ask(town, limit=100)
    assert 2 in ids(before)
    assert 2 not in ids(after)
    assert not np.allclose(
        [item.score for item in before.items[:5]], [item.score for item in after.items[:5]], rtol=1e-6
    )
