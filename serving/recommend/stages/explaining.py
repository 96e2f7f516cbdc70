"""Says why somebody was recommended: what moved the ranker most, and the same as short sentences with codes.

Nothing is said of what the requester may not know: sentences are written only of features that may be named, and only
where the value itself bears them out. A home is told in wide circles, so that several answers cannot place it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Final

from feature_repo.layout import DISCLOSED, LISTED_SOURCES, RANKING_FEATURES, other_way_round
from registry.models.feature_labels import readable
from registry.models.ranker import Ranker
from serving.api.recommendation_models import Explanation, Influence, RecommendationReason
from serving.reasons import Why
from serving.recommend.pool import Float32

_STRONGEST: Final = 5
MOST_REASONS: Final = 3
# Both probabilities are explained from the side of the requester: what they may know of the reversed pair.
_DISCLOSED_BACKWARD: Final = frozenset(name for name in RANKING_FEATURES if other_way_round(name) in DISCLOSED)
_PLACE: Final = {name: place for place, name in enumerate(RANKING_FEATURES)}
_CIRCLES_KM: Final = (5, 10, 25, 50, 100)
_NEAR_YEARS: Final = 3.0
_SEVERAL: Final = 2
"""Interests in common, as buckets: of one, it is not sure that it is the same."""
_LIKED: Final = tuple(source for source in LISTED_SOURCES if source not in {"retrieval", "popular", "user_knn"})
_BY_CODE: Final[Mapping[Why, tuple[str, ...]]] = {
    Why.SHARED_INTERESTS: ("shared_interests", "interest_jaccard"),
    Why.NEAR: ("distance_km", "log_distance_km", "distance_to_requester_limit"),
    Why.SAME_AGE: ("age_gap", "abs_age_gap", "age_candidate", "candidate_age_position"),
    Why.LIKE_THOSE_LIKED: (
        "similarity_to_liked",
        *(f"{source}_{what}" for source in _LIKED for what in ("score", "place", "share")),
    ),
    Why.TASTE: ("score_forward", "retrieval_place", "retrieval_share"),
    Why.SIMILAR_TASTE: ("user_knn_score", "user_knn_place", "user_knn_share"),
    Why.BIO: ("candidate_bio_length",),
}
_CODES: Final = {feature: code for code, features in _BY_CODE.items() for feature in features if feature in DISCLOSED}
Value = Callable[[str], float]


def explanations(ranker: Ranker, forward: Float32, backward: Float32, *, has_liked: bool) -> list[Explanation]:
    """Return an explanation for each pair, by its ranking vectors float32[n, k] in both directions."""
    like = ranker.explain(forward, _STRONGEST, named=DISCLOSED)
    back = ranker.explain(backward, _STRONGEST, named=_DISCLOSED_BACKWARD)
    owners = ranker.attributes
    return [
        Explanation(
            p_like=_named(a, owners),
            p_liked_back=_named([(other_way_round(name), value) for name, value in b], owners),
            reasons=_reasons(a, row, has_liked=has_liked),
        )
        for a, b, row in zip(like, back, forward, strict=True)
    ]


def by_chance(explanation: Explanation) -> Explanation:
    """Return the explanation of somebody whose place was given by exploration."""
    reason = RecommendationReason(code=Why.EXPLORED, text="Somebody new, so that you see more than your usual choice.")
    return explanation.model_copy(update={"reasons": [reason]})


def _reasons(strongest: list[tuple[str, float]], row: Float32, *, has_liked: bool) -> list[RecommendationReason]:
    codes = dict.fromkeys(_CODES[feature] for feature, moved in strongest if moved > 0 and feature in _CODES)
    found = [_reason(code, lambda feature: float(row[_PLACE[feature]]), has_liked=has_liked) for code in codes]
    return [reason for reason in found if reason is not None][:MOST_REASONS]


def _reason(code: Why, value: Value, *, has_liked: bool) -> RecommendationReason | None:
    """Return what a code means for this pair; None where the value does not bear it out."""
    said, figure = None, None
    if code is Why.SHARED_INTERESTS and value("shared_interests") >= _SEVERAL:
        said = "You have several interests in common."
    elif code is Why.NEAR:
        figure = next((circle for circle in _CIRCLES_KM if value("distance_km") <= circle), None)
        said = None if figure is None else f"They live within {figure} km of you."
    elif code is Why.SAME_AGE and value("abs_age_gap") <= _NEAR_YEARS:
        said = "You are about the same age."
    elif code is Why.LIKE_THOSE_LIKED and has_liked:
        said = "They are like people whom you liked."
    elif code is Why.TASTE:
        said = "Your likes so far suggest them." if has_liked else "They suit a profile like yours."
    elif code is Why.SIMILAR_TASTE and has_liked and not math.isnan(value("user_knn_score")):
        said = "They suit a taste like yours."
    elif code is Why.BIO and value("candidate_bio_length") > 0:
        said = "They say something about themselves."
    return None if said is None else RecommendationReason(code=code, text=said, value=figure)


def _named(strongest: list[tuple[str, float]], owners: Mapping[int, str]) -> list[Influence]:
    return [Influence(feature=readable(feature, owners), contribution=round(value, 4)) for feature, value in strongest]
