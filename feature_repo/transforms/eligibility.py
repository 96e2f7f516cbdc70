"""Who may be shown to whom: both sides' hard preferences, decided without I/O.

A preference that is not set restricts nothing. A set one needs the fact: an unknown gender or age fits only
people who do not ask for one. A distance limit binds where both homes are known; an unknown home passes.
Nobody is eligible for themselves. Blocks, visibility and past decisions are the caller's to check.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.layout import PROFILE
from feature_repo.people import People
from feature_repo.transforms.measures import whole_years
from feature_repo.transforms.pair import Side, distance_between, n_pairs

Bools = NDArray[np.bool_]


def mutually_eligible(requesters: People, candidates: People, at: ArrayLike) -> Bools:
    """Return bool[n]: do both accept each other's gender, age in whole years at `at`, and distance."""
    n = n_pairs(requesters, candidates)
    a, b = Side(requesters, at), Side(candidates, at)
    distance = distance_between(a, b)
    eligible = (requesters.user_ids != candidates.user_ids) & _accepts(a, b, distance) & _accepts(b, a, distance)
    return np.broadcast_to(eligible, (n,)).copy() if eligible.shape != (n,) else eligible


def _accepts(chooser: Side, chosen: Side, distance: NDArray[np.float64]) -> Bools:
    """Return whether each chooser's preferences admit the chosen. Comparisons with NaN are False throughout."""
    seeking = _codes(chooser, "seeking")
    wanted = (seeking == 0) | ((seeking >> _codes(chosen, "gender") & 1) == 1)
    low, high = chooser.profile("age_min"), chooser.profile("age_max")
    age = whole_years(chosen.profile("birth_day"), chosen.at)
    of_age = (np.isnan(low) | (age >= low)) & (np.isnan(high) | (age <= high))
    limit = chooser.profile("max_distance_km")
    near = np.isnan(limit) | np.isnan(distance) | (distance <= limit)
    return np.asarray(wanted & of_age & near)


def _codes(side: Side, column: str) -> NDArray[np.int64]:
    values = side.people.profile[:, PROFILE.index(column)]
    return np.where(values > 0, values, 0).astype(np.int64)  # NaN > 0 is False: unknown becomes 0
