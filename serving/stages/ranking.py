"""Stage 2: the probability of a like in both directions, in one matrix, and the reciprocal score.

Embedding features are scores, never coordinates. What training could not know (who waits for an answer) is told to the
ranker only where settings allow it; the context is built as `pipelines.ranking` builds it. Where it is told, the
answer of those who wait is known: they said yes.
"""

from collections.abc import Mapping

import numpy as np

from feature_repo.layout import DISCLOSED, RANKING_FEATURES, other_way_round
from feature_repo.people import People
from feature_repo.transforms import CONTENT_WIDTH, PairContext, content_inputs, ranking_matrix
from infra.metrics import serving_metrics
from registry.embedding import similarity_to_liked
from registry.feature_labels import readable
from registry.ranker import Order, Ranker, combine
from registry.release import Release
from registry.retrieval import Factors
from serving.api_models import Explanation, Influence
from serving.pool import Float32, Int64, Pool, Ranked, Requester
from serving.recent_likes import RecentLikes
from serving.run import breathe

_STRONGEST = 5
# Both probabilities are explained from the side of the requester: what they may know of the reversed pair.
_DISCLOSED_BACKWARD = frozenset(name for name in RANKING_FEATURES if other_way_round(name) in DISCLOSED)
_ROWS = 1024
_CERTAIN = np.float32(1.0)


async def rank(
    release: Release,
    requester: Requester,
    factors: Factors,
    pool: Pool,
    recent: RecentLikes,
    *,
    aggregator: str,
    weight: float,
    at: float,
) -> Ranked:
    """Order a pool by the reciprocal score, or by the retrieval score where that won on held-out data."""
    n = len(pool)
    context = pair_context(release, requester, factors, pool.people, recent, at=at)
    features = ranking_matrix(requester.person, pool.people, context, at)
    p_like, p_liked_back = np.split(await _predicted(release.ranker, features), 2)
    if len(requester.pending.waiting):
        p_liked_back = np.where(np.isin(pool.people.user_ids, requester.pending.waiting), _CERTAIN, p_liked_back)
    score = combine(p_like, p_liked_back, aggregator)
    if release.ranker.order is Order.RETRIEVAL:
        score = (weight * context.score_forward + (1.0 - weight) * context.score_backward).astype(np.float32)
    # Ties are broken by id, so that equal inputs give equal answers.
    order = np.lexsort((pool.people.user_ids, -score)).astype(np.int64)

    def explain(rows: Int64) -> list[Explanation]:
        like = release.ranker.explain(features[rows], _STRONGEST, named=DISCLOSED)
        back = release.ranker.explain(features[n + rows], _STRONGEST, named=_DISCLOSED_BACKWARD)
        owners = release.ranker.attributes
        return [
            Explanation(
                p_like=_named(a, owners),
                p_liked_back=_named([(other_way_round(name), value) for name, value in b], owners),
            )
            for a, b in zip(like, back, strict=True)
        ]

    return Ranked(pool, order, score, np.ones(n, dtype=np.float32), p_like, p_liked_back, explain)


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


def pair_context(
    release: Release, requester: Requester, factors: Factors, people: People, recent: RecentLikes, *, at: float
) -> PairContext:
    """Return what retrieval knows of requester and each of `people`, in both directions, float32[n] each."""
    embedding = release.embedding
    rows = embedding.positions(people.user_ids)
    unknown = np.flatnonzero(rows < 0)
    profiles = content_inputs(people.take(unknown), at) if len(unknown) else np.empty((0, CONTENT_WIDTH), np.float32)
    score_forward, score_backward, chosen = embedding.scores_with(factors.chooser, factors.chosen, rows, profiles)
    last = release.last_likes
    taste = embedding.positions(requester.liked[:last])
    return PairContext(
        score_forward,
        score_backward,
        similarity_to_liked(embedding.chosen[taste[taste >= 0]], chosen),
        _among(people.user_ids, requester.pending.liked_by),
        recent.similarity(embedding, people.user_ids, factors.chosen, last, to=requester.user_id),
        np.zeros(len(people), dtype=np.float32),  # whom the requester liked is decided, and no candidate any more
    )


def _among(user_ids: Int64, some: Int64) -> Float32:
    return np.isin(user_ids, some).astype(np.float32) if len(some) else np.zeros(len(user_ids), dtype=np.float32)


def _named(strongest: list[tuple[str, float]], owners: Mapping[int, str]) -> list[Influence]:
    return [Influence(feature=readable(feature, owners), contribution=round(value, 4)) for feature, value in strongest]
