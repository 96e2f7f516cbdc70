"""What profiles alone can say: the order of level 2, and the inputs of the content-to-factor regression.

Both are finite for every profile, however empty: they are what is left when nothing else is known.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.layout import (
    INTEREST_BITS_PER_WORD,
    INTEREST_WORDS,
    N_ATTRIBUTES,
    N_GENDERS,
    N_INTEREST_BUCKETS,
)
from feature_repo.population.people import People
from feature_repo.transforms import loops
from feature_repo.transforms.pair import PROFILE_PLACES, days_of, n_pairs
from feature_repo.transforms.places import numbers

Float32 = NDArray[np.float32]

INTEREST_WEIGHT, AGE_WEIGHT, DISTANCE_WEIGHT, ATTRIBUTE_WEIGHT = 0.35, 0.25, 0.25, 0.15
HALF_AGE_GAP_YEARS = 6.0  # closeness is one half at this gap
HALF_DISTANCE_KM = 25.0
_WEIGHTS = numbers(
    {
        "interests": INTEREST_WEIGHT,
        "age": AGE_WEIGHT,
        "distance": DISTANCE_WEIGHT,
        "attributes": ATTRIBUTE_WEIGHT,
        "half_age_gap": HALF_AGE_GAP_YEARS,
        "half_distance": HALF_DISTANCE_KM,
    }
)
AGE_EDGES = (20.0, 22.0, 24.0, 26.0, 28.0, 31.0, 35.0, 40.0, 50.0)
_AGE_EDGES = np.array(AGE_EDGES)

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
    out = np.zeros((len(people), CONTENT_WIDTH), dtype=np.float32)
    loops.content_rows(
        out, people.profile, people.attributes, days_of(at), _AGE_EDGES, PROFILE_PLACES, N_GENDERS, INTEREST_WORDS,
        INTEREST_BITS_PER_WORD,
    )  # fmt: skip
    return out
