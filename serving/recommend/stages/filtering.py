"""Hard filters: two-sided preferences, exclusions, and what this request asks for. They run at every level.

A request filter needs the fact it asks for: somebody of unknown age is not "between 25 and 40".
"""

import math
from functools import lru_cache

import numpy as np

from feature_repo.layout import INTEREST_COLUMNS, PROFILE
from feature_repo.population.people import People
from feature_repo.transforms import Terms, Wishes, profile_vectors
from serving.api.models import Filters
from serving.recommend.pool import Bools, Float32, KnownRequester, Pool

_INTERESTS = slice(PROFILE.index(INTEREST_COLUMNS[0]), PROFILE.index(INTEREST_COLUMNS[-1]) + 1)
_NO_WISHES = Wishes()


def terms_of(requester: KnownRequester, filters: Filters | None, at: float) -> Terms:
    """Return on which terms people may be shown to `requester` at unix seconds `at`."""
    return Terms.of(requester.person, at, _NO_WISHES if filters is None else _wishes(filters), requester.excluded)


def allowed(requester: KnownRequester, people: People, filters: Filters | None, at: float) -> Bools:
    """Return bool[n]: may each of `people` be shown to `requester` at unix seconds `at`."""
    return terms_of(requester, filters, at).met(people, np.arange(len(people)))


def filter_pool(requester: KnownRequester, pool: Pool, filters: Filters | None, at: float) -> Pool:
    """Return the candidates of `pool` that may be shown."""
    return pool.keep(allowed(requester, pool.people, filters, at))


def _wishes(filters: Filters) -> Wishes:
    return Wishes(
        age_min=math.nan if filters.age_min is None else filters.age_min,
        age_max=math.nan if filters.age_max is None else filters.age_max,
        max_distance_km=math.inf if filters.max_distance_km is None else filters.max_distance_km,
        # 240 buckets let a few others through; the safety check compares the words themselves.
        interests=_interests(tuple(filters.interests_any or ())),
    )


@lru_cache(maxsize=512)
def _interests(asked: tuple[str, ...]) -> Float32:
    """Return the words of a profile that has these interests; nothing where none is asked for."""
    if not asked:
        return np.empty(0, dtype=np.float32)
    return np.ascontiguousarray(profile_vectors({"user_id": [0], "interests": [list(asked)]})[0, _INTERESTS])
