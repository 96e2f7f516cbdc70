"""The ranking vector of a directed pair, computed by one function on every path.

`requesters` and `candidates` are people of equal number, or one of them is a single person that meets all of
the other side. Every operation is elementwise (or a sum along a row of fixed width), so a row is the same to
the last bit whatever stands beside it. Missing is NaN: the ranker knows what to do with it.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.errors import MalformedFeatures
from feature_repo.layout import (
    ACTIVITY,
    CONTEXT_COLUMNS,
    INTEREST_COLUMNS,
    N_ATTRIBUTES,
    PAIR_COLUMNS,
    PROFILE,
    RANKING_FEATURES,
    SECONDS_PER_DAY,
    SIDE_COLUMNS,
)
from feature_repo.people import People
from feature_repo.transforms.measures import age_years, chord_km, unit_vectors

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_FIRST_INTEREST = PROFILE.index(INTEREST_COLUMNS[0])
_INTERESTS = slice(_FIRST_INTEREST, _FIRST_INTEREST + len(INTEREST_COLUMNS))
_ACTIVITY_KEPT = np.array([ACTIVITY.index(column) for column in ACTIVITY.columns if column in SIDE_COLUMNS])
_PAIR_START = 2 * len(SIDE_COLUMNS)
_AT = {column: _PAIR_START + position for position, column in enumerate(PAIR_COLUMNS)}
_GAPS = slice(_AT["attribute_gap_00"], _AT["attribute_gap_00"] + N_ATTRIBUTES)


@dataclass(frozen=True, eq=False)
class PairContext:
    """What retrieval knows of n directed pairs, float32[n] each, NaN where unknown.

    The last two hold the other direction's `similarity_to_liked` and `liked_requester`, so that `reversed`
    loses nothing; left out, they are unknown.
    """

    score_forward: Float32
    score_backward: Float32
    similarity_to_liked: Float32
    liked_requester: Float32
    similarity_to_liked_backward: Float32 = field(default_factory=lambda: np.full(1, np.nan, np.float32))
    liked_candidate: Float32 = field(default_factory=lambda: np.full(1, np.nan, np.float32))

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
        )


class Side:
    """One side of the pairs as contiguous columns, each computed when first asked for."""

    def __init__(self, people: People, at: ArrayLike) -> None:
        self.people = people
        self.at = np.asarray(at, dtype=np.float64)

    def profile(self, column: str) -> Float64:
        """Return a profile column as contiguous float64[n]."""
        # Contiguous: numpy may take another code path, with other last bits, for strided columns.
        return np.ascontiguousarray(self.people.profile[:, PROFILE.index(column)], dtype=np.float64)

    @cached_property
    def age(self) -> Float64:
        """Age in years with a fraction."""
        return age_years(self.profile("birth_day"), self.at)

    @cached_property
    def place(self) -> tuple[Float64, Float64, Float64]:
        """Unit vector of the home."""
        return unit_vectors(self.profile("latitude"), self.profile("longitude"))

    @cached_property
    def interests(self) -> NDArray[np.uint32]:
        """Interest bits, uint32[n, 10]."""
        return self.people.profile[:, _INTERESTS].astype(np.uint32)

    @cached_property
    def age_range(self) -> tuple[Float64, Float64]:
        """Lower end of the wanted age range and its width, at least one year."""
        low = self.profile("age_min")
        return low, np.maximum(self.profile("age_max") - low, 1.0)

    def days_since(self, day: Float64) -> Float64:
        """Return the days between `day` and the instant of the pair."""
        return np.asarray(self.at / SECONDS_PER_DAY - day)

    @cached_property
    def tenure(self) -> Float64:
        """Days since the profile was made."""
        return self.days_since(self.profile("created_day"))

    @cached_property
    def idle(self) -> Float64:
        """Days since last seen."""
        last = self.people.activity[:, ACTIVITY.index("last_active_day")]
        return self.days_since(np.ascontiguousarray(last, dtype=np.float64))


def distance_between(a: Side, b: Side) -> Float64:
    """Return distances in km, NaN where a home is unknown."""
    return chord_km(a.place, b.place)


def shared_interests(a: Side, b: Side) -> tuple[Float64, Float64]:
    """Return how many interest buckets both have, and their Jaccard index (NaN where nobody has any)."""
    both = _bits(a.interests & b.interests)
    either = _bits(a.interests | b.interests)
    return both, np.where(either > 0, both / np.maximum(either, 1.0), np.nan)


def _bits(words: NDArray[np.uint32]) -> Float64:
    # Whole numbers: their sum is exact in any order.
    return np.asarray(np.bitwise_count(words).sum(axis=1, dtype=np.int64), dtype=np.float64)


def attribute_gaps(a: People, b: People) -> tuple[Float32, Float32]:
    """Return the gap per slot float32[n, 24], |a - b| / max(|a|, |b|, 1), and its mean over the slots both have."""
    left, right = a.attributes, b.attributes
    scale = np.maximum(np.maximum(np.abs(left), np.abs(right)), np.float32(1.0))
    gaps = np.ascontiguousarray(np.abs(left - right) / scale)
    known = ~np.isnan(gaps)
    total = np.where(known, gaps, np.float32(0.0)).sum(axis=1, dtype=np.float64)
    count = known.sum(axis=1)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return gaps, mean.astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Symmetric:
    """The part of a pair that does not care who asks."""

    distance: Float64
    log_distance: Float64
    shared: Float64
    jaccard: Float64
    gaps: Float32
    attribute_distance: Float32

    @classmethod
    def of(cls, a: Side, b: Side) -> Self:
        distance = distance_between(a, b)
        return cls(distance, np.log1p(distance), *shared_interests(a, b), *attribute_gaps(a.people, b.people))


def n_pairs(a: People, b: People) -> int:
    """Return the number of pairs of two sides; raises unless they are equal in number or one is alone."""
    if len(a) == len(b) or len(b) == 1:
        return len(a)
    if len(a) == 1:
        return len(b)
    raise MalformedFeatures(f"{len(a)} requesters cannot be paired with {len(b)} candidates one by one.")


def ranking_features(requesters: People, candidates: People, context: PairContext, at: ArrayLike) -> Float32:
    """Return float32[n, len(RANKING_FEATURES)] of directed pairs at unix seconds `at` (one or n of them)."""
    n = n_pairs(requesters, candidates)
    a, b = Side(requesters, at), Side(candidates, at)
    out = np.empty((n, len(RANKING_FEATURES)), dtype=np.float32)
    _fill(out, a, b, _Symmetric.of(a, b), context)
    return out


def ranking_features_both(
    requesters: People, candidates: People, context: PairContext, at: ArrayLike
) -> tuple[Float32, Float32]:
    """Return the vectors of the pairs and of the pairs reversed: the two halves of `ranking_matrix`."""
    forward, backward = np.split(ranking_matrix(requesters, candidates, context, at), 2)
    return forward, backward


def ranking_matrix(requesters: People, candidates: People, context: PairContext, at: ArrayLike) -> Float32:
    """Return float32[2n, len(RANKING_FEATURES)]: n pairs, then the same pairs reversed, sharing what both need."""
    n = n_pairs(requesters, candidates)
    a, b = Side(requesters, at), Side(candidates, at)
    symmetric = _Symmetric.of(a, b)
    out = np.empty((2 * n, len(RANKING_FEATURES)), dtype=np.float32)
    _fill(out[:n], a, b, symmetric, context)
    _fill(out[n:], b, a, symmetric, context.reversed())
    return out


def _fill(out: Float32, requester: Side, candidate: Side, symmetric: _Symmetric, context: PairContext) -> None:
    start = 0
    for people in (requester.people, candidate.people):
        for block in (people.activity[:, _ACTIVITY_KEPT], people.reciprocity, people.attributes):
            out[:, start : start + block.shape[1]] = block
            start += block.shape[1]
    gap = candidate.age - requester.age
    requester_low, requester_width = requester.age_range
    candidate_low, candidate_width = candidate.age_range
    columns: dict[str, Float64 | Float32] = {
        "age_requester": requester.age,
        "age_candidate": candidate.age,
        "age_gap": gap,
        "abs_age_gap": np.abs(gap),
        "candidate_age_position": (candidate.age - requester_low) / requester_width,
        "requester_age_position": (requester.age - candidate_low) / candidate_width,
        "distance_km": symmetric.distance,
        "log_distance_km": symmetric.log_distance,
        "distance_to_requester_limit": symmetric.distance / np.maximum(requester.profile("max_distance_km"), 1.0),
        "distance_to_candidate_limit": symmetric.distance / np.maximum(candidate.profile("max_distance_km"), 1.0),
        "shared_interests": symmetric.shared,
        "interest_jaccard": symmetric.jaccard,
        "attribute_distance": symmetric.attribute_distance,
        "requester_tenure_days": requester.tenure,
        "candidate_tenure_days": candidate.tenure,
        "requester_idle_days": requester.idle,
        "candidate_idle_days": candidate.idle,
        "candidate_n_interests": candidate.profile("n_interests"),
        "candidate_bio_length": candidate.profile("bio_length"),
        "score_product": context.score_forward * context.score_backward,
        "score_min": np.minimum(context.score_forward, context.score_backward),
    }
    for name in CONTEXT_COLUMNS:
        columns[name] = getattr(context, name)
    for name, values in columns.items():
        out[:, _AT[name]] = values
    out[:, _GAPS] = symmetric.gaps
