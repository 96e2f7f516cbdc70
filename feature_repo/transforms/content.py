"""What profiles alone can say: the order of level 2, and the inputs of the content-to-factor regression.

Both are finite for every profile, however empty: they are what is left when nothing else is known.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.layout import INTEREST_BITS_PER_WORD, N_ATTRIBUTES, N_GENDERS, N_INTEREST_BUCKETS
from feature_repo.people import People
from feature_repo.transforms.measures import unit_vectors
from feature_repo.transforms.pair import Side, attribute_gaps, distance_between, n_pairs, shared_interests

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

INTEREST_WEIGHT, AGE_WEIGHT, DISTANCE_WEIGHT, ATTRIBUTE_WEIGHT = 0.35, 0.25, 0.25, 0.15
HALF_AGE_GAP_YEARS = 6.0  # closeness is one half at this gap
HALF_DISTANCE_KM = 25.0
AGE_EDGES = (20.0, 22.0, 24.0, 26.0, 28.0, 31.0, 35.0, 40.0, 50.0)

_AGE_COLUMNS = 2 + 1 + len(AGE_EDGES) + 1
_PLACE_COLUMNS = 3 + 1
CONTENT_WIDTH = _AGE_COLUMNS + N_GENDERS + N_GENDERS + _PLACE_COLUMNS + 2 + 2 * N_ATTRIBUTES + N_INTEREST_BUCKETS
"""Columns of `content_inputs`: 1.3 GB per million people, so hand them over in chunks."""


def content_score(requesters: People, candidates: People, at: ArrayLike) -> Float32:
    """Return float32[n] in [0, 1]: how close two profiles are in interests, age, place and attributes."""
    n = n_pairs(requesters, candidates)
    a, b = Side(requesters, at), Side(candidates, at)
    _, jaccard = shared_interests(a, b)
    interests = _known(jaccard, 0.0)
    ages = _known(1.0 / (1.0 + np.abs(a.age - b.age) / HALF_AGE_GAP_YEARS), 0.5)
    places = _known(1.0 / (1.0 + distance_between(a, b) / HALF_DISTANCE_KM), 0.25)
    _, gap = attribute_gaps(requesters, candidates)
    attributes = _known(1.0 - np.minimum(gap.astype(np.float64), 1.0), 0.5)
    score = INTEREST_WEIGHT * interests + AGE_WEIGHT * ages + DISTANCE_WEIGHT * places + ATTRIBUTE_WEIGHT * attributes
    return np.broadcast_to(np.clip(score, 0.0, 1.0), (n,)).astype(np.float32)


def content_inputs(people: People, at: ArrayLike) -> Float32:
    """Return float32[n, CONTENT_WIDTH], all finite: each group is scaled to about one, missing is 0 and flagged."""
    side = Side(people, at)
    out = np.zeros((len(people), CONTENT_WIDTH), dtype=np.float32)
    end = 0

    def put(block: NDArray[np.generic]) -> None:
        nonlocal end
        width = 1 if block.ndim == 1 else block.shape[1]
        out[:, end : end + width] = block.reshape(len(people), width)
        end += width

    known_age = ~np.isnan(side.age)
    scaled = np.clip(_known((side.age - 30.0) / 10.0, 0.0), -3.0, 7.0)
    put(scaled)
    put(scaled * scaled / 4.0)
    put(known_age)
    bins = np.searchsorted(np.array(AGE_EDGES), _known(side.age, 0.0), side="right")
    put((bins[:, None] == np.arange(len(AGE_EDGES) + 1)) & known_age[:, None])
    put(_known(side.profile("gender"), 0.0)[:, None] == np.arange(N_GENDERS))
    seeking = _known(side.profile("seeking"), 0.0).astype(np.int64)
    put((seeking[:, None] >> np.arange(N_GENDERS)) & 1)
    x, y, z = unit_vectors(side.profile("latitude"), side.profile("longitude"))
    put(np.stack([_known(axis, 0.0) for axis in (x, y, z)], axis=1))
    put(~np.isnan(x))
    put(np.log1p(np.maximum(_known(side.profile("n_interests"), 0.0), 0.0)) / 3.0)
    put(np.log1p(np.maximum(_known(side.profile("bio_length"), 0.0), 0.0)) / 6.0)
    known = ~np.isnan(people.attributes)
    put(np.arcsinh(np.where(known, people.attributes, np.float32(0.0))) / np.float32(3.0))
    put(known)
    bits = np.arange(INTEREST_BITS_PER_WORD, dtype=np.uint32)
    put(((side.interests[:, :, None] >> bits) & 1).reshape(len(people), N_INTEREST_BUCKETS))
    return out


def _known(values: Float64, otherwise: float) -> Float64:
    return np.where(np.isnan(values), otherwise, values)
