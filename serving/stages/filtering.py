"""Hard filters: two-sided preferences, exclusions, and what this request asks for. They run at every level.

A request filter needs the fact it asks for: somebody of unknown age is not "between 25 and 40".
"""

import numpy as np

from feature_repo.layout import INTEREST_COLUMNS, PROFILE
from feature_repo.people import People
from feature_repo.population import Population
from feature_repo.transforms import haversine_km, mutually_eligible, profile_vectors, whole_years
from serving.api_models import Filters
from serving.pool import Bools, Int64, Pool, Requester

_INTERESTS = slice(PROFILE.index(INTEREST_COLUMNS[0]), PROFILE.index(INTEREST_COLUMNS[-1]) + 1)


def allowed(requester: Requester, people: People, filters: Filters | None, at: float) -> Bools:
    """Return bool[n]: may each of `people` be shown to `requester` at unix seconds `at`."""
    keep = mutually_eligible(requester.person, people, at) & ~_among(people.user_ids, requester.excluded)
    if filters is not None:
        keep &= _wanted(requester.person, people, filters, at)
    return keep


def showable(
    requester: Requester, population: Population, positions: Int64, filters: Filters | None, at: float
) -> Bools:
    """Return bool[m]: what `allowed` says of the people at `positions`, reading no more columns than it needs."""
    keep = population.accepted(requester.person, positions, at)
    left = np.flatnonzero(keep)
    keep[left] = ~_among(population.user_ids(positions[left]), requester.excluded)
    if filters is not None:
        left = np.flatnonzero(keep)
        keep[left] = _wanted(requester.person, population.profiles(positions[left]), filters, at)
    return keep


def filter_pool(requester: Requester, pool: Pool, filters: Filters | None, at: float) -> Pool:
    """Return the candidates of `pool` that may be shown."""
    return pool.keep(allowed(requester, pool.people, filters, at))


def narrow_pool(requester: Requester, pool: Pool, filters: Filters | None, at: float) -> Pool:
    """Return the candidates that this request asks for, of a pool whose sources gave only people who may be shown."""
    return pool if filters is None else pool.keep(_wanted(requester.person, pool.people, filters, at))


def _among(user_ids: Int64, ascending: Int64) -> Bools:
    if not len(ascending):
        return np.zeros(len(user_ids), dtype=np.bool_)
    at = np.minimum(np.searchsorted(ascending, user_ids), len(ascending) - 1)
    return np.asarray(ascending[at] == user_ids)


def _wanted(requester: People, people: People, filters: Filters, at: float) -> Bools:
    keep = np.ones(len(people), dtype=np.bool_)
    if filters.age_min is not None or filters.age_max is not None:
        ages = whole_years(people.profile[:, PROFILE.index("birth_day")], at)
        low = -np.inf if filters.age_min is None else filters.age_min
        high = np.inf if filters.age_max is None else filters.age_max
        keep &= (ages >= low) & (ages <= high)
    if filters.max_distance_km is not None:
        latitude, longitude = PROFILE.index("latitude"), PROFILE.index("longitude")
        distance = haversine_km(
            requester.profile[:, latitude],
            requester.profile[:, longitude],
            people.profile[:, latitude],
            people.profile[:, longitude],
        )
        keep &= distance <= filters.max_distance_km
    if filters.interests_any is not None:
        # 240 buckets let a few others through; the safety check compares the words themselves.
        asked = profile_vectors({"user_id": [0], "interests": [filters.interests_any]})[:, _INTERESTS]
        keep &= np.any(people.profile[:, _INTERESTS].astype(np.uint32) & asked.astype(np.uint32), axis=1)
    return keep
