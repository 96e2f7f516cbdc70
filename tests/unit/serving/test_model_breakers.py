import asyncio
from dataclasses import replace
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import structlog

from infra.metrics import serving_metrics
from infra.settings import BreakerSettings, Settings
from registry.release import Release
from serving.api.recommendation_models import RecommendationRequest
from serving.experiments.assignment import Variant
from serving.reasons import Reason
from serving.recommend.answers import Answer
from serving.recommend.levels import ladder
from serving.resilience.breaker import BreakerState
from serving.resilience.models import ModelBreakers
from tests.clocks import FixedClock
from tests.serving_fakes import Town, make_town
from tests.serving_world import load_town, write_artifacts

LIMITS = BreakerSettings()


class BrokenRanker:
    """A ranker that fails while it is `broken`, and counts how often it is asked."""

    def __init__(self, ranker: Any) -> None:
        self._ranker = ranker
        self.broken = True
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ranker, name)

    def predict(self, features: Any) -> Any:
        self.asked += 1
        if self.broken:
            raise RuntimeError("no more trees")
        return self._ranker.predict(features)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return load_town(write_artifacts(tmp_path_factory.mktemp("release"), range(1, 41)))


class Guarded:
    """A town whose full level stands behind breakers."""

    def __init__(self, town: Town, clock: FixedClock) -> None:
        self.town = town
        self.models = ModelBreakers(LIMITS, clock, serving_metrics())
        self._ladder = ladder(town.settings, town.people, np.random.default_rng(3), self.models)

    def ask(self, times: int = 1) -> tuple[list[Answer], int]:
        """Return the answers to so many requests, and how often the log says that a stage failed."""
        recommender = self.town.recommender()
        recommender._ladder = self._ladder
        request = RecommendationRequest(user_id=1)
        with structlog.testing.capture_logs() as logs:
            answers = [asyncio.run(recommender.recommend(request, uuid4())) for _ in range(times)]
        return answers, [line["event"] for line in logs].count("stage_failed")


@pytest.fixture
def guarded(settings: Settings, clock: FixedClock, release: Release) -> Guarded:
    return Guarded(make_town(settings, clock, release=release), clock)


def test_a_ranker_that_keeps_failing_is_left_alone_for_a_while_and_then_tried_once(
    guarded: Guarded, clock: FixedClock, release: Release
) -> None:
    ranker = BrokenRanker(release.ranker)
    guarded.town.release = broken = replace(release, ranker=ranker)  # type: ignore[arg-type]
    counted = serving_metrics().model_failures.labels("ranker", "champion")._value
    before = counted.get()
    answers, failures = guarded.ask(LIMITS.min_calls + 5)
    assert {(answer.level, answer.reason) for answer in answers} == {(2, Reason.RANKING_FAILED)}
    assert all(answer.degraded == ["ranking"] for answer in answers)
    assert ranker.asked == LIMITS.min_calls
    assert failures == LIMITS.min_calls
    assert counted.get() == before + LIMITS.min_calls + 5
    serving = {Variant.CHAMPION: broken, Variant.CHALLENGER: None}
    assert guarded.models.report(serving)["ranker_champion"] is BreakerState.OPEN
    assert guarded.models.report(serving)["retrieval_champion"] is BreakerState.CLOSED
    assert len(guarded.models.problems(serving)) == 1
    clock.advance(LIMITS.open_s)
    assert guarded.ask()[0][0].level == 2
    assert ranker.asked == LIMITS.min_calls + 1
    ranker.broken = False
    clock.advance(LIMITS.open_s)
    assert [answer.level for answer in guarded.ask(2)[0]] == [1, 1]
    assert guarded.models.problems(serving) == []


def test_an_index_that_keeps_failing_is_left_alone_too(guarded: Guarded, release: Release) -> None:
    guarded.town.release = replace(release, index=None)  # type: ignore[arg-type]
    answers, failures = guarded.ask(LIMITS.min_calls + 3)
    assert {(answer.level, answer.reason) for answer in answers} == {(2, Reason.RETRIEVAL_FAILED)}
    assert "not tried again yet" in str(answers[-1].message)
    assert failures == LIMITS.min_calls


def test_another_release_begins_with_a_closed_breaker(guarded: Guarded, release: Release) -> None:
    guarded.town.release = replace(release, ranker=BrokenRanker(release.ranker))  # type: ignore[arg-type]
    guarded.ask(LIMITS.min_calls + 1)
    versions = replace(release.versions, ranker=release.versions.ranker + 1)
    guarded.town.release = replace(release, versions=versions)
    assert guarded.ask()[0][0].level == 1
