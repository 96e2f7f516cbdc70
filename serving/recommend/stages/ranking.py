"""Stage 2 of a request: both directions in one matrix, scored as `registry.scoring` says, a bounded part at a time.

Embedding features are scores, never coordinates. What training could not know (who waits for an answer) is told to the
ranker only where settings allow it. Where it is told, the answer of those who wait is known: they said yes.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from feature_repo.transforms import ranking_matrix
from infra.metrics import serving_metrics
from registry.models.ranker import ForwardModel, ListPolicy, Order, Ranker
from registry.release import Release
from registry.scoring.context import pair_context
from registry.scoring.ranking import CERTAIN, scored_by
from registry.scoring.requester import TasteOfOthers, among
from registry.scoring.two_stages import Found
from serving.api.recommendation_models import Explanation
from serving.recommend.answer_run import breathe
from serving.recommend.pool import Float32, Int64, KnownRequester, Ranked
from serving.recommend.stages.explaining import explanations

_ROWS = 1024


class Predict(Protocol):
    """Predicts with models of one release."""

    async def __call__(
        self, release: Release, asked: Sequence[tuple[Ranker, Float32]], within_s: float
    ) -> list[Float32]:
        """Return what each model says of its rows, float32[n] for float32[n, k]; `within_s` is the time there is."""
        ...


async def predict_here(release: Release, asked: Sequence[tuple[Ranker, Float32]], within_s: float) -> list[Float32]:
    """Predict in this process."""
    del release, within_s
    return [await _predicted(ranker, features) for ranker, features in asked]


async def rank(
    release: Release,
    requester: KnownRequester,
    found: Found,
    others: TasteOfOthers,
    policy: ListPolicy,
    *,
    at: float,
    predict: Predict = predict_here,
    within_s: float = math.inf,
) -> Ranked:
    """Order a pool by the policy of the release, with what `predict` says of it."""
    pool, ranker = found.pool, release.ranker
    n, user_ids = len(pool), pool.people.user_ids
    context = pair_context(release, requester, found.factors, found.taste, pool.people, others=others, at=at)
    features = ranking_matrix(requester.person, pool.people, context, at)
    asked = [(ranker, features)]
    if policy.order is Order.RANKER and policy.forward is ForwardModel.CHOICE and ranker.choice is not None:
        asked.append((ranker.choice, features[:n]))
    predicted = await predict(release, asked, within_s)
    p_like, p_liked_back = np.split(predicted[0], 2)
    choice = predicted[1] if len(predicted) > 1 else p_like
    back = np.where(among(user_ids, requester.waiting) > 0, CERTAIN, p_liked_back)
    scored = scored_by(policy, context, p_like, choice, back)

    def explain(rows: Int64) -> list[Explanation]:
        return explanations(ranker, features[rows], features[n + rows], has_liked=len(requester.liked) > 0)

    ones = np.ones(n, dtype=np.float32)
    return Ranked(pool, scored.order(user_ids), scored.score, ones, scored.p_like, scored.p_liked_back, explain)


async def _predicted(ranker: Ranker, features: Float32) -> Float32:
    """Predict a bounded number of rows at a time: trees see one row each, so the numbers are those of one call."""
    metrics = serving_metrics()
    seconds, rows = metrics.inference_seconds.labels("ranker"), metrics.inference_rows.labels("ranker")
    parts = []
    for start in range(0, max(len(features), 1), _ROWS):
        await breathe()
        part = features[start : start + _ROWS]
        with seconds.time():
            parts.append(ranker.predict(part))
        rows.observe(len(part))
    return np.concatenate(parts)
