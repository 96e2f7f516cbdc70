"""A release whose ranker is a logistic regression answers a request like one of trees."""

import asyncio
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from infra.settings import Settings
from registry.models.ranker import Ranker
from registry.models.ranker_models import Logistic
from serving.api.recommendation_models import RecommendationRequest
from tests.clocks import FixedClock
from tests.serving_fakes import make_town
from tests.serving_world import RANKED_BY, load_town, write_artifacts


def test_the_answer_and_its_reasons_come_from_the_regression(
    settings: Settings, clock: FixedClock, tmp_path: Path
) -> None:
    n = len(RANKED_BY)
    model = Logistic.of(intercept=0.0, coefficients=np.ones(n), means=np.zeros(n), scales=np.ones(n))
    mine = Ranker.of(model, RANKED_BY, canary_features=np.ones((2, n), dtype=np.float32))
    release = load_town(write_artifacts(tmp_path / "release", range(1, 41), model=mine))
    town = make_town(settings, clock, release=release)
    request = RecommendationRequest(user_id=1, limit=3, explain=True)
    answer = asyncio.run(town.recommender().recommend(request, UUID(int=1)))
    assert len(answer.items) == 3
    first = answer.items[0]
    assert first.p_like is not None
    assert first.explanation is not None
    told = first.explanation.p_like[0]
    assert told.feature == "score_forward"
    assert first.p_like == pytest.approx(1 / (1 + np.exp(-told.contribution)), abs=1e-6)
