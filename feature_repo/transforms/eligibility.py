"""Who may be shown to whom: both sides' hard preferences, decided without I/O.

A preference that is not set restricts nothing. A set one needs the fact: an unknown gender or age fits only
people who do not ask for one. A distance limit binds where both homes are known; an unknown home passes.
Nobody is eligible for themselves. Blocks, visibility and past decisions are the caller's to check.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.layout import PROFILE
from feature_repo.people import People
from feature_repo.transforms import loops
from feature_repo.transforms.measures import haversine_km, latest_birth_day, unit_vectors, whole_years
from feature_repo.transforms.pair import PROFILE_PLACES, n_pairs

Bools = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def mutually_eligible(requesters: People, candidates: People, at: ArrayLike) -> Bools:
    """Return bool[n]: do both accept each other's gender, age in whole years at `at`, and distance."""
    n = n_pairs(requesters, candidates)
    if len(requesters) == 1 and np.ndim(at) == 0:
        everybody = np.arange(len(candidates))
        return eligible_for(requesters, candidates.user_ids, candidates.profile, everybody, float(np.asarray(at)))
    a, b = requesters.profile, candidates.profile
    distance = haversine_km(
        _column(a, "latitude"), _column(a, "longitude"), _column(b, "latitude"), _column(b, "longitude")
    )
    eligible = (
        (requesters.user_ids != candidates.user_ids) & _accepts(a, b, distance, at) & _accepts(b, a, distance, at)
    )
    return np.broadcast_to(eligible, (n,)).copy() if eligible.shape != (n,) else eligible


def eligible_for(requester: People, user_ids: Int64, profiles: Float32, rows: Int64, at: float) -> Bools:
    """Return bool[m]: do one requester and the people at `rows` int64[m] of `profiles` accept each other at `at`.

    An age is compared as a birth day, with a bound that is computed once.
    """
    facts = _facts(requester.profile[0].tobytes(), at)
    return loops.accepted(user_ids, profiles, rows, PROFILE_PLACES, int(requester.user_ids[0]), facts)


@lru_cache(maxsize=512)  # a request asks several times about the same person and instant
def _facts(profile: bytes, at: float) -> Float64:
    """Return what `loops.accepted` must know of the one who asks, from the bytes of their packed profile."""
    own = dict(zip(PROFILE.columns, np.frombuffer(profile, dtype=np.float32).tolist(), strict=True))
    low, high = own["age_min"], own["age_max"]
    age = float(whole_years(own["birth_day"], at))
    x, y, z = unit_vectors(own["latitude"], own["longitude"])[:, 0]
    facts = np.array(
        [
            own["gender"],
            own["seeking"],
            np.inf if math.isnan(low) else latest_birth_day(math.ceil(low), at),
            -np.inf if math.isnan(high) else latest_birth_day(math.floor(high) + 1, at),
            # An unknown age fits no range that is set.
            -np.inf if math.isnan(age) else age,
            np.inf if math.isnan(age) else age,
            x,
            y,
            z,
            own["max_distance_km"],
        ],
        dtype=np.float64,
    )
    facts.flags.writeable = False
    return facts


def _accepts(chooser: Float32, chosen: Float32, distance: Float64, at: ArrayLike) -> Bools:
    """Return whether each chooser's preferences admit the chosen. Comparisons with NaN are False throughout."""
    seeking = _codes(chooser, "seeking")
    low, high = _column(chooser, "age_min"), _column(chooser, "age_max")
    age = whole_years(_column(chosen, "birth_day"), at)
    limit = _column(chooser, "max_distance_km")
    return np.asarray(
        ((seeking == 0) | ((seeking >> _codes(chosen, "gender") & 1) == 1))
        & (np.isnan(low) | (age >= low))
        & (np.isnan(high) | (age <= high))
        & (np.isnan(limit) | np.isnan(distance) | (distance <= limit))
    )


def _column(profile: Float32, name: str) -> Float64:
    return np.ascontiguousarray(profile[:, PROFILE.index(name)], dtype=np.float64)


def _codes(profile: Float32, name: str) -> NDArray[np.int32]:
    return np.asarray(np.fmax(_column(profile, name), 0), dtype=np.int32)  # of NaN and 0 it takes 0: unknown
