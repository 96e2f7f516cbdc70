import asyncio
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

import numpy as np
import pytest

from feature_repo.layout import DISCLOSED, RANKING_FEATURES
from infra.settings import Settings
from registry.models.ranker import Ranker
from registry.release import Release
from serving.api.recommendation_models import RecommendationRequest
from serving.recommend.stages.explaining import MOST_REASONS, explanations
from tests.clocks import FixedClock
from tests.serving_fakes import make_town
from tests.serving_world import load_town, write_artifacts


@dataclass
class Moved:
    """A ranker that says what moved it: everything of `by`, as far as it may be named."""

    by: dict[str, float]
    attributes: dict[int, str] = field(default_factory=dict)

    def explain(
        self, features: np.ndarray[Any, Any], n_top: int = 5, *, named: Collection[str] | None = None
    ) -> list[list[tuple[str, float]]]:
        told = [(name, value) for name, value in self.by.items() if named is None or name in named]
        return [sorted(told, key=lambda one: -abs(one[1]))[:n_top] for _ in features]


def reasons(by: dict[str, float], *, has_liked: bool = True, **values: float) -> list[tuple[str, str, int | None]]:
    row = np.full((1, len(RANKING_FEATURES)), np.nan, dtype=np.float32)
    for name, value in values.items():
        row[0, RANKING_FEATURES.index(name)] = value
    (explanation,) = explanations(cast("Ranker", Moved(by)), row, row, has_liked=has_liked)
    return [(reason.code, reason.text, reason.value) for reason in explanation.reasons]


def test_an_imported_attribute_is_named_as_its_column_was_in_both_directions() -> None:
    row = np.full((1, len(RANKING_FEATURES)), np.nan, dtype=np.float32)
    moved = Moved({"candidate_attribute_06": 0.3, "requester_attribute_06": 0.2}, attributes={6: "height"})
    (explanation,) = explanations(cast("Ranker", moved), row, row, has_liked=True)
    named = [{influence.feature for influence in side} for side in (explanation.p_like, explanation.p_liked_back)]
    assert named == [{"requester_attribute_height"}] * 2, "of the other one no attribute is told"


@pytest.mark.parametrize(
    ("feature", "values", "said"),
    [
        ("distance_km", {"distance_km": 3.2}, ("near", "They live within 5 km of you.", 5)),
        ("log_distance_km", {"distance_km": 5.1}, ("near", "They live within 10 km of you.", 10)),
        ("abs_age_gap", {"abs_age_gap": 2.5}, ("same_age", "You are about the same age.", None)),
        (
            "shared_interests",
            {"shared_interests": 2},
            ("shared_interests", "You have several interests in common.", None),
        ),
        ("item_knn_score", {}, ("like_those_liked", "They are like people whom you liked.", None)),
        ("score_forward", {}, ("taste", "Your likes so far suggest them.", None)),
        ("user_knn_score", {"user_knn_score": 0.5}, ("similar_taste", "They suit a taste like yours.", None)),
        ("candidate_bio_length", {"candidate_bio_length": 9}, ("bio", "They say something about themselves.", None)),
    ],
)
def test_what_speaks_for_somebody_is_a_sentence_and_a_code(
    feature: str, values: dict[str, float], said: tuple[str, str, int | None]
) -> None:
    assert reasons({feature: 0.3}, **values) == [said]
    assert reasons({feature: -0.3}, **values) == []  # what speaks against them is no reason


@pytest.mark.parametrize(
    ("feature", "values"),
    [
        ("distance_km", {"distance_km": 101.0}),
        ("distance_km", {"distance_km": math.nan}),
        ("abs_age_gap", {"abs_age_gap": 8.0}),
        ("shared_interests", {"shared_interests": 1}),
        ("candidate_bio_length", {"candidate_bio_length": 0}),
    ],
)
def test_nothing_is_said_that_the_value_does_not_bear_out(feature: str, values: dict[str, float]) -> None:
    assert reasons({feature: 0.3}, **values) == []


def test_nothing_is_said_of_likes_to_somebody_who_liked_nobody_yet() -> None:
    by = {"item_knn_score": 0.4, "score_forward": 0.3, "user_knn_score": 0.2}
    assert [text for _, text, _ in reasons(by, has_liked=False)] == ["They suit a profile like yours."]


@pytest.mark.parametrize("feature", sorted(set(RANKING_FEATURES) - DISCLOSED))
def test_nothing_is_said_of_what_the_requester_may_not_know(feature: str) -> None:
    assert reasons({feature: 9.0}, **dict.fromkeys(RANKING_FEATURES, 1.0)) == []


def test_the_strongest_reasons_come_first_each_once_and_not_too_many() -> None:
    values = {"distance_km": 1.0, "abs_age_gap": 1.0, "candidate_bio_length": 5.0}
    by = {
        "distance_km": 0.2,
        "score_forward": 0.9,
        "log_distance_km": 0.8,
        "abs_age_gap": 0.3,
        "candidate_bio_length": 0.1,
    }
    assert [code for code, _, _ in reasons(by, **values)] == ["taste", "near", "same_age"]
    assert MOST_REASONS == 3


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return load_town(write_artifacts(tmp_path_factory.mktemp("release"), range(1, 41)))


def test_an_explained_answer_gives_reasons_and_says_where_exploration_chose(
    settings: Settings, clock: FixedClock, release: Release
) -> None:
    town = make_town(settings, clock, release=release)
    serving = town.settings.serving.model_copy(update={"exploration_share": 0.3})
    town.settings = town.settings.model_copy(update={"serving": serving})
    request = RecommendationRequest(user_id=1, explain=True)
    items = asyncio.run(town.recommender().recommend(request, UUID(int=1))).items
    told = {item.explored: [reason.code for reason in item.explanation.reasons] for item in items if item.explanation}
    assert told == {False: told[False], True: ["explored"]}
    assert set(told[False]) <= {"taste"}
    assert any(item.explanation and item.explanation.reasons for item in items if not item.explored)
