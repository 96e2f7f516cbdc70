"""Who may be shown to whom: both sides' hard preferences, decided without I/O.

A preference that is not set restricts nothing. A set one needs the fact: an unknown gender or age fits only
people who do not ask for one. A distance limit binds where both homes are known; an unknown home passes.
Nobody is eligible for themselves. Blocks, visibility and past decisions are the caller's to check.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.layout import PROFILE
from feature_repo.people import People
from feature_repo.transforms.measures import latest_birth_day, whole_years
from feature_repo.transforms.pair import Side, distance_between, n_pairs

Bools = NDArray[np.bool_]
Float32 = NDArray[np.float32]
HARD_COLUMNS: Final = PROFILE.index("max_distance_km") + 1
"""So many leading columns of a profile decide who may be shown to whom."""


def mutually_eligible(requesters: People, candidates: People, at: ArrayLike) -> Bools:
    """Return bool[n]: do both accept each other's gender, age in whole years at `at`, and distance."""
    n = n_pairs(requesters, candidates)
    if len(requesters) == 1 and np.ndim(at) == 0:
        return eligible_for(requesters, candidates.user_ids, candidates.profile, float(np.asarray(at)))
    a, b = Side(requesters, at), Side(candidates, at)
    distance = distance_between(a, b)
    eligible = (requesters.user_ids != candidates.user_ids) & _accepts(a, b, distance) & _accepts(b, a, distance)
    return np.broadcast_to(eligible, (n,)).copy() if eligible.shape != (n,) else eligible


def eligible_for(requester: People, user_ids: NDArray[np.int64], profiles: Float32, at: float) -> Bools:
    """Return the same for one requester and float32[n, >= HARD_COLUMNS] profiles, in a few cheap comparisons.

    An age is compared as a birth day, with a bound that is computed once; distances are measured last, of those left.
    """
    own = dict(zip(PROFILE.columns, requester.profile[0].tolist(), strict=True))
    born, gender, seeking, age_min, age_max = (np.ascontiguousarray(profiles[:, column]) for column in range(5))
    eligible: Bools = user_ids != requester.user_ids[0]
    own_gender, sought = (int(max(own[name], 0.0)) if own[name] > 0 else 0 for name in ("gender", "seeking"))
    if sought:
        eligible &= (sought >> _codes(gender) & 1) == 1
    wanted = _codes(seeking)
    eligible &= (wanted == 0) | ((wanted >> own_gender & 1) == 1)
    if own["age_min"] == own["age_min"]:
        eligible &= born <= latest_birth_day(math.ceil(own["age_min"]), at)
    if own["age_max"] == own["age_max"]:
        eligible &= born > latest_birth_day(math.floor(own["age_max"]) + 1, at)
    age = float(whole_years(own["birth_day"], at))
    known = not math.isnan(age)
    # Comparisons with NaN are False: a range that is not set rejects nobody; one that is rejects the unknown age.
    eligible &= ~((age_min > (age if known else -np.inf)) | (age_max < (age if known else np.inf)))
    left = np.flatnonzero(eligible)
    a, b = Side(requester, at), Side(_Profiles(profiles[left]), at)  # type: ignore[arg-type]
    distance = distance_between(a, b)
    eligible[left] = _is_near(a, distance) & _is_near(b, distance)
    return eligible


@dataclass(frozen=True)
class _Profiles:
    """The one view of people that eligibility reads."""

    profile: Float32


def _accepts(chooser: Side, chosen: Side, distance: NDArray[np.float64]) -> Bools:
    """Return whether each chooser's preferences admit the chosen. Comparisons with NaN are False throughout."""
    return _seeks(chooser, chosen) & _wants_age(chooser, chosen) & _is_near(chooser, distance)


def _seeks(chooser: Side, chosen: Side) -> Bools:
    seeking = _codes(chooser.profile("seeking"))
    return np.asarray((seeking == 0) | ((seeking >> _codes(chosen.profile("gender")) & 1) == 1))


def _wants_age(chooser: Side, chosen: Side) -> Bools:
    low, high = chooser.profile("age_min"), chooser.profile("age_max")
    age = whole_years(chosen.profile("birth_day"), chosen.at)
    return np.asarray((np.isnan(low) | (age >= low)) & (np.isnan(high) | (age <= high)))


def _is_near(chooser: Side, distance: NDArray[np.float64]) -> Bools:
    limit = chooser.profile("max_distance_km")
    return np.asarray(np.isnan(limit) | np.isnan(distance) | (distance <= limit))


def _codes(values: NDArray[np.floating[Any]]) -> NDArray[np.int32]:
    return np.asarray(np.fmax(values, 0), dtype=np.int32)  # of NaN and 0 it takes 0: unknown
