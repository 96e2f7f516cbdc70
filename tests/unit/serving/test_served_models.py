"""A release whose ranker is a logistic regression or LightGBM's answers a request like one of XGBoost."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from infra.settings import Settings
from registry.models.ranker import Ranker
from registry.models.ranker_models import LightGbm, Logistic, RankerModel
from serving.api.recommendation_models import RecommendationRequest
from tests.clocks import FixedClock
from tests.serving_fakes import make_town
from tests.serving_world import RANKED_BY, load_town, write_artifacts


def logistic() -> RankerModel:
    n = len(RANKED_BY)
    return Logistic.of(intercept=0.0, coefficients=np.ones(n), means=np.zeros(n), scales=np.ones(n))


def trees_of_lightgbm() -> RankerModel:
    lightgbm = pytest.importorskip("lightgbm", reason="the extra `lightgbm` is not installed")
    x = np.random.default_rng(1).normal(size=(200, len(RANKED_BY)))
    column = list(RANKED_BY).index("score_forward")
    learned = lightgbm.Dataset(x, x[:, column] > 0, feature_name=list(RANKED_BY))
    return LightGbm(lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, learned, 5))


@pytest.mark.parametrize("model", [logistic, trees_of_lightgbm])
def test_the_answer_and_its_reasons_come_from_the_model(
    settings: Settings, clock: FixedClock, tmp_path: Path, model: Callable[[], RankerModel]
) -> None:
    rows = np.ones((2, len(RANKED_BY)), dtype=np.float32)
    mine = Ranker.of(model(), RANKED_BY, canary_features=rows)
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
    if isinstance(mine.model, Logistic):
        assert first.p_like == pytest.approx(1 / (1 + np.exp(-told.contribution)), abs=1e-6)
    else:
        assert (first.p_like > 0.5) is (told.contribution > 0)
