"""Stage 2: the score by which one request's candidates are ordered, by the policy that won on held-out lists.

Two models may speak of a directed pair: `choice`, whether the requester will choose the candidate out of those the
first stage finds, and the ranker itself, the calibrated probability of a like once the two stand before each other.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from feature_repo.layout import EVIDENCE_COLUMNS
from feature_repo.transforms import PairContext
from infra.settings import Settings
from registry.models.arrays import Floats, Ids
from registry.models.ranker import Aggregator, ForwardModel, ListPolicy, Order, Ranker, combine
from registry.release import Release

_SCORE_OF = {
    Order.ITEM_KNN: EVIDENCE_COLUMNS.index("item_knn_score"),
    Order.USER_KNN: EVIDENCE_COLUMNS.index("user_knn_score"),
    Order.SPECTRAL: EVIDENCE_COLUMNS.index("spectral_score"),
    Order.EASE: EVIDENCE_COLUMNS.index("ease_score"),
    Order.POPULAR: EVIDENCE_COLUMNS.index("popular_score"),
}
CERTAIN = np.float32(1.0)
AUTO: Final = "auto"
UNKNOWN: Final = -1e9
"""The score of those whom the source that orders says nothing about: they come after everybody else."""


@dataclass(frozen=True)
class Scored:
    """Columns of n candidates, float32[n]: the score they are ordered by, P(like) and P(liked back)."""

    score: Floats
    p_like: Floats
    p_liked_back: Floats

    def order(self, user_ids: Ids) -> Ids:
        """Return the rows best first; ties are broken by id, so that equal inputs give equal answers."""
        return np.lexsort((user_ids, -self.score)).astype(np.int64)


def served_policy(release: Release, settings: Settings) -> ListPolicy:
    """Return the policy by which a release is served here."""
    serving = settings.serving
    policy = policy_for(release.ranker.policy, serving.aggregator, serving.requester_weight)
    return replace(policy, exposure_strength=serving.exposure_strength)


def policy_for(policy: ListPolicy, aggregator: str = AUTO, weight: float | None = None) -> ListPolicy:
    """Return the release's policy with what a setting overrules; the aggregator `requester` looks at one side alone."""
    if aggregator != AUTO:
        policy = replace(policy, aggregator=Aggregator(aggregator))
    if policy.aggregator is Aggregator.REQUESTER:
        policy = replace(policy, weight=1.0)
    return policy if weight is None else replace(policy, weight=weight)


def score_candidates(
    ranker: Ranker, policy: ListPolicy, features: Floats, context: PairContext, waiting: Floats
) -> Scored:
    """Score one request's candidates by the whole `ranking_matrix` float32[2n, k] and their context.

    `waiting` float32[n] is 1 for those of whom it is known that they said yes.
    """
    n = len(features) // 2
    forward, p_liked_back = np.split(ranker.predict(features), 2)
    choice = forward
    if policy.order is Order.RANKER and policy.forward is ForwardModel.CHOICE and ranker.choice is not None:
        choice = ranker.choice.predict(features[:n])
    return scored_by(policy, context, forward, choice, np.where(waiting > 0, CERTAIN, p_liked_back))


def scored_by(policy: ListPolicy, context: PairContext, like: Floats, choice: Floats, back: Floats) -> Scored:
    """Return the scores of a policy from predictions float32[n] that were made already."""
    if policy.order is Order.RANKER:
        score = combine(choice if policy.forward is ForwardModel.CHOICE else like, back, policy.aggregator)
    elif policy.order in {Order.RETRIEVAL, Order.BLEND}:
        score = policy.weight * context.score_forward + (1.0 - policy.weight) * context.score_backward
        if policy.order is Order.BLEND:
            score = _standardised(score) + _standardised(_by_likes_in_common(context.evidence))
    else:
        score = np.nan_to_num(context.evidence[:, _SCORE_OF[policy.order]], nan=UNKNOWN)
    return Scored(np.asarray(score, dtype=np.float32), like, back)


def _by_likes_in_common(evidence: Floats) -> Floats:
    """Return the score of EASE, or where it knows nobody here that of the spectral filter, float32[n]; may be NaN."""
    ease: Floats = evidence[:, _SCORE_OF[Order.EASE]]
    return evidence[:, _SCORE_OF[Order.SPECTRAL]] if np.isnan(ease).all() else ease


def _standardised(score: Floats) -> Floats:
    """Return how many standard deviations of the list each score lies above its mean; unknown ones count as the least.

    Scores of different kinds add up only like this: which source is surer of somebody counts, unlike with ranks.
    """
    known = score[~np.isnan(score)]
    spread = known.std() if known.size else np.float32(0.0)
    if spread <= 0:
        return np.zeros_like(score)
    return np.asarray((np.nan_to_num(score, nan=known.min()) - known.mean()) / spread, dtype=np.float32)
