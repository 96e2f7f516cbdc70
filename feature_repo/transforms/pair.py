"""The ranking vector of a directed pair, computed by one function on every path.

`requesters` and `candidates` are people of equal number, or one of them is a single person that meets all of
the other side. Every row is computed on its own, so it is the same to the last bit whatever stands beside it.
Missing is NaN: the ranker knows what to do with it.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.errors import MalformedFeatures
from feature_repo.layout import (
    ACTIVITY,
    EVIDENCE_COLUMNS,
    INTEREST_WORDS,
    PAIR_COLUMNS,
    PROFILE,
    RANKING_FEATURES,
    SECONDS_PER_DAY,
    SIDE_COLUMNS,
    TASTE_COLUMNS,
)
from feature_repo.population.people import People
from feature_repo.transforms import loops
from feature_repo.transforms.places import places

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_ACTIVITY_KEPT = np.array([ACTIVITY.index(column) for column in ACTIVITY.columns if column in SIDE_COLUMNS])
_LAST_ACTIVE = ACTIVITY.index("last_active_day")
_PAIR_START = 2 * len(SIDE_COLUMNS)
_PAIR_PLACES = places({name: _PAIR_START + place for place, name in enumerate(PAIR_COLUMNS)})
_TASTE = (*TASTE_COLUMNS, "similarity_to_liked_backward", "liked_candidate")
_TWO_WAYS = tuple(
    (EVIDENCE_COLUMNS.index(name), EVIDENCE_COLUMNS.index(f"{name}_backward"))
    for name in ("item_knn_score", "like_log_odds")
)
_KNOWN = np.dtype([(name, np.float32) for name in _TASTE])
PROFILE_PLACES = places({name: PROFILE.index(name) for name in PROFILE.columns})
"""Where a packed profile has what the compiled loops read."""


@dataclass(frozen=True, eq=False)
class PairContext:
    """What retrieval knows of n directed pairs, float32[n] each, NaN where unknown.

    The last two hold the other direction's `similarity_to_liked` and `liked_requester`, so that `reversed`
    loses nothing; left out, they are unknown. `evidence` is float32[n or 1, k] by EVIDENCE_COLUMNS.
    """

    score_forward: Float32
    score_backward: Float32
    similarity_to_liked: Float32
    liked_requester: Float32
    similarity_to_liked_backward: Float32 = field(default_factory=lambda: np.full(1, np.nan, np.float32))
    liked_candidate: Float32 = field(default_factory=lambda: np.full(1, np.nan, np.float32))
    evidence: Float32 = field(default_factory=lambda: no_evidence(1))

    @classmethod
    def unknown(cls, n: int) -> Self:
        """Return a context that knows nothing of n pairs."""
        return cls(*(np.full(n, np.nan, np.float32) for _ in range(4)))

    def reversed(self) -> "PairContext":
        """Return the context of the pairs in the other direction."""
        n = len(self.score_forward)
        return PairContext(
            self.score_backward,
            self.score_forward,
            np.broadcast_to(self.similarity_to_liked_backward, (n,)),
            np.broadcast_to(self.liked_candidate, (n,)),
            self.similarity_to_liked,
            self.liked_requester,
            reversed_evidence(self.evidence),
        )

    def take(self, positions: ArrayLike) -> "PairContext":
        """Return the context of the pairs at `positions`, in that order."""
        at = np.asarray(positions, dtype=np.int64)
        n = len(self.score_forward)
        return PairContext(
            self.score_forward[at],
            self.score_backward[at],
            self.similarity_to_liked[at],
            self.liked_requester[at],
            np.broadcast_to(self.similarity_to_liked_backward, (n,))[at],
            np.broadcast_to(self.liked_candidate, (n,))[at],
            np.broadcast_to(self.evidence, (n, len(EVIDENCE_COLUMNS)))[at],
        )


def no_evidence(n: int) -> Float32:
    """Return float32[n, k] that says nothing of n pairs."""
    return np.full((n, len(EVIDENCE_COLUMNS)), np.nan, dtype=np.float32)


def reversed_evidence(evidence: Float32) -> Float32:
    """Return what is known of the pairs the other way round: the candidate's own likes are few numbers of all."""
    other = no_evidence(len(evidence))
    for there, back in _TWO_WAYS:
        other[:, there], other[:, back] = evidence[:, back], evidence[:, there]
    return other


def n_pairs(a: People, b: People) -> int:
    """Return the number of pairs of two sides; raises unless they are equal in number or one is alone."""
    if len(a) == len(b) or len(b) == 1:
        return len(a)
    if len(a) == 1:
        return len(b)
    raise MalformedFeatures(f"{len(a)} requesters cannot be paired with {len(b)} candidates one by one.")


def ranking_features(requesters: People, candidates: People, context: PairContext, at: ArrayLike) -> Float32:
    """Return float32[n, len(RANKING_FEATURES)] of directed pairs at unix seconds `at` (one or n of them)."""
    out = np.empty((n_pairs(requesters, candidates), len(RANKING_FEATURES)), dtype=np.float32)
    _fill(out, requesters, candidates, context, at, both=False)
    return out


def ranking_features_both(
    requesters: People, candidates: People, context: PairContext, at: ArrayLike
) -> tuple[Float32, Float32]:
    """Return the vectors of the pairs and of the pairs reversed: the two halves of `ranking_matrix`."""
    forward, backward = np.split(ranking_matrix(requesters, candidates, context, at), 2)
    return forward, backward


def ranking_matrix(requesters: People, candidates: People, context: PairContext, at: ArrayLike) -> Float32:
    """Return float32[2n, len(RANKING_FEATURES)]: n pairs, then the same pairs reversed, sharing what both need."""
    out = np.empty((2 * n_pairs(requesters, candidates), len(RANKING_FEATURES)), dtype=np.float32)
    _fill(out, requesters, candidates, context, at, both=True)
    return out


def _fill(
    out: Float32, requesters: People, candidates: People, context: PairContext, at: ArrayLike, *, both: bool
) -> None:
    a, b = requesters, candidates
    n = len(out) // 2 if both else len(out)
    known = np.empty(n, dtype=_KNOWN)
    for column in _TASTE:
        known[column] = getattr(context, column)
    out[:n, -len(EVIDENCE_COLUMNS) :] = context.evidence
    if both:
        out[n:, -len(EVIDENCE_COLUMNS) :] = reversed_evidence(context.evidence)
    loops.ranking_rows(
        out, both, a.profile, a.attributes, a.activity, a.reciprocity, b.profile, b.attributes, b.activity,
        b.reciprocity, days_of(at), known, PROFILE_PLACES, _PAIR_PLACES, _ACTIVITY_KEPT, _LAST_ACTIVE, INTEREST_WORDS,
    )  # fmt: skip


def days_of(at: ArrayLike) -> Float64:
    """Return unix seconds (one or n) as days since 1970, float64[1 or n]."""
    return np.atleast_1d(np.asarray(at, dtype=np.float64)) / SECONDS_PER_DAY
