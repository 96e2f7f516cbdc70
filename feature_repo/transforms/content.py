"""What profiles alone can say: the order of level 2, and the inputs of the content-to-factor regression.

Both are finite for every profile, however empty: they are what is left when nothing else is known.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.layout import (
    INTEREST_BITS_PER_WORD,
    INTEREST_COLUMNS,
    INTEREST_WORDS,
    N_ATTRIBUTES,
    N_GENDERS,
    N_INTEREST_BUCKETS,
    PROFILE,
)
from feature_repo.people import People
from feature_repo.transforms import loops
from feature_repo.transforms.measures import age_years, unit_vectors
from feature_repo.transforms.pair import PROFILE_PLACES, days_of, n_pairs

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

INTEREST_WEIGHT, AGE_WEIGHT, DISTANCE_WEIGHT, ATTRIBUTE_WEIGHT = 0.35, 0.25, 0.25, 0.15
HALF_AGE_GAP_YEARS = 6.0  # closeness is one half at this gap
HALF_DISTANCE_KM = 25.0
_WEIGHTS = np.array(
    [INTEREST_WEIGHT, AGE_WEIGHT, DISTANCE_WEIGHT, ATTRIBUTE_WEIGHT, HALF_AGE_GAP_YEARS, HALF_DISTANCE_KM]
)
_FIRST_INTEREST = PROFILE.index(INTEREST_COLUMNS[0])
AGE_EDGES = (20.0, 22.0, 24.0, 26.0, 28.0, 31.0, 35.0, 40.0, 50.0)

_AGE_COLUMNS = 2 + 1 + len(AGE_EDGES) + 1
_PLACE_COLUMNS = 3 + 1
CONTENT_WIDTH = _AGE_COLUMNS + N_GENDERS + N_GENDERS + _PLACE_COLUMNS + 2 + 2 * N_ATTRIBUTES + N_INTEREST_BUCKETS
"""Columns of `content_inputs`: 1.3 GB per million people, so hand them over in chunks."""


def content_score(requesters: People, candidates: People, at: ArrayLike) -> Float32:
    """Return float32[n] in [0, 1]: how close two profiles are in interests, age, place and attributes."""
    n_pairs(requesters, candidates)
    return content_score_at(requesters, candidates, np.arange(len(candidates)), at)


def content_score_at(requesters: People, people: People, rows: NDArray[np.int64], at: ArrayLike) -> Float32:
    """Return the same for the people at `rows` int64[m], which are not gathered for it."""
    return loops.content_scores(
        requesters.profile, requesters.attributes, people.profile, people.attributes, rows, PROFILE_PLACES,
        INTEREST_WORDS, days_of(at), _WEIGHTS,
    )  # fmt: skip


def content_inputs(people: People, at: ArrayLike) -> Float32:
    """Return float32[n, CONTENT_WIDTH], all finite: each group is scaled to about one, missing is 0 and flagged."""

    def profile(name: str) -> Float64:
        return np.ascontiguousarray(people.profile[:, PROFILE.index(name)], dtype=np.float64)

    age = age_years(profile("birth_day"), at)
    out = np.zeros((len(people), CONTENT_WIDTH), dtype=np.float32)
    end = 0

    def put(block: NDArray[np.generic]) -> None:
        nonlocal end
        width = 1 if block.ndim == 1 else block.shape[1]
        out[:, end : end + width] = block.reshape(len(people), width)
        end += width

    known_age = ~np.isnan(age)
    scaled = np.clip(_known((age - 30.0) / 10.0, 0.0), -3.0, 7.0)
    put(scaled)
    put(scaled * scaled / 4.0)
    put(known_age)
    bins = np.searchsorted(np.array(AGE_EDGES), _known(age, 0.0), side="right")
    put((bins[:, None] == np.arange(len(AGE_EDGES) + 1)) & known_age[:, None])
    put(_known(profile("gender"), 0.0)[:, None] == np.arange(N_GENDERS))
    seeking = _known(profile("seeking"), 0.0).astype(np.int64)
    put((seeking[:, None] >> np.arange(N_GENDERS)) & 1)
    x, y, z = unit_vectors(profile("latitude"), profile("longitude"))
    put(np.stack([_known(axis, 0.0) for axis in (x, y, z)], axis=1))
    put(~np.isnan(x))
    put(np.log1p(np.maximum(_known(profile("n_interests"), 0.0), 0.0)) / 3.0)
    put(np.log1p(np.maximum(_known(profile("bio_length"), 0.0), 0.0)) / 6.0)
    known = ~np.isnan(people.attributes)
    put(np.arcsinh(np.where(known, people.attributes, np.float32(0.0))) / np.float32(3.0))
    put(known)
    words = people.profile[:, _FIRST_INTEREST : _FIRST_INTEREST + INTEREST_WORDS].astype(np.uint32)
    bits = np.arange(INTEREST_BITS_PER_WORD, dtype=np.uint32)
    put(((words[:, :, None] >> bits) & 1).reshape(len(people), N_INTEREST_BUCKETS))
    return out


def _known(values: Float64, otherwise: float) -> Float64:
    return np.where(np.isnan(values), otherwise, values)
