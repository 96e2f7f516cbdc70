"""Who may be shown to whom: both sides' hard preferences, decided without I/O.

A preference that is not set restricts nothing. A set one needs the fact: an unknown gender or age fits only
people who do not ask for one. A distance limit binds where both homes are known; an unknown home passes.
Nobody is eligible for themselves. Blocks, visibility and past decisions are the caller's to check.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.layout import PROFILE
from feature_repo.people import People
from feature_repo.transforms.measures import whole_years
from feature_repo.transforms.pair import Side, distance_between, n_pairs

Bools = NDArray[np.bool_]
_MANY = 64
"""Candidates of one requester from which on it pays to ask in steps."""


def mutually_eligible(requesters: People, candidates: People, at: ArrayLike) -> Bools:
    """Return bool[n]: do both accept each other's gender, age in whole years at `at`, and distance."""
    n = n_pairs(requesters, candidates)
    if len(requesters) == 1 and n > _MANY and np.ndim(at) == 0:
        return _eligible_for_one(requesters, candidates, at)
    a, b = Side(requesters, at), Side(candidates, at)
    distance = distance_between(a, b)
    eligible = (requesters.user_ids != candidates.user_ids) & _accepts(a, b, distance) & _accepts(b, a, distance)
    return np.broadcast_to(eligible, (n,)).copy() if eligible.shape != (n,) else eligible


def _eligible_for_one(requester: People, candidates: People, at: ArrayLike) -> Bools:
    """Return the same as for pairs, asking the costly questions only of those who passed the cheap ones."""
    a = Side(requester, at)
    profile = candidates.profile
    eligible: Bools = candidates.user_ids != requester.user_ids
    left = np.arange(len(candidates))
    for passes in (_genders_fit, _ages_fit, _homes_fit):
        b = Side(_Profiles(profile if len(left) == len(profile) else profile[left]), at)  # type: ignore[arg-type]
        keep = passes(a, b)
        eligible[left[~keep]] = False
        left = left[keep]
    return eligible


@dataclass(frozen=True)
class _Profiles:
    """The one view of people that eligibility reads."""

    profile: NDArray[np.float32]


def _genders_fit(a: Side, b: Side) -> Bools:
    return _seeks(a, b) & _seeks(b, a)


def _ages_fit(a: Side, b: Side) -> Bools:
    return _wants_age(a, b) & _wants_age(b, a)


def _homes_fit(a: Side, b: Side) -> Bools:
    distance = distance_between(a, b)
    return _is_near(a, distance) & _is_near(b, distance)


def _accepts(chooser: Side, chosen: Side, distance: NDArray[np.float64]) -> Bools:
    """Return whether each chooser's preferences admit the chosen. Comparisons with NaN are False throughout."""
    return _seeks(chooser, chosen) & _wants_age(chooser, chosen) & _is_near(chooser, distance)


def _seeks(chooser: Side, chosen: Side) -> Bools:
    seeking = _codes(chooser, "seeking")
    return np.asarray((seeking == 0) | ((seeking >> _codes(chosen, "gender") & 1) == 1))


def _wants_age(chooser: Side, chosen: Side) -> Bools:
    low, high = chooser.profile("age_min"), chooser.profile("age_max")
    age = whole_years(chosen.profile("birth_day"), chosen.at)
    return np.asarray((np.isnan(low) | (age >= low)) & (np.isnan(high) | (age <= high)))


def _is_near(chooser: Side, distance: NDArray[np.float64]) -> Bools:
    limit = chooser.profile("max_distance_km")
    return np.asarray(np.isnan(limit) | np.isnan(distance) | (distance <= limit))


def _codes(side: Side, column: str) -> NDArray[np.int64]:
    values = side.people.profile[:, PROFILE.index(column)]
    return np.where(values > 0, values, 0).astype(np.int64)  # NaN > 0 is False: unknown becomes 0
