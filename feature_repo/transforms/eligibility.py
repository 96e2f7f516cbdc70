"""Who may be shown to whom: both sides' hard preferences, decided without I/O.

A preference that is not set restricts nothing. A set one needs the fact: an unknown gender or age fits only
people who do not ask for one. A distance limit binds where both homes are known; an unknown home passes.
Nobody is eligible for themselves. Blocks, visibility and past decisions are the caller's to check.
"""

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.errors import MalformedFeatures
from feature_repo.layout import PROFILE
from feature_repo.population.people import People
from feature_repo.transforms import loops
from feature_repo.transforms.measures import haversine_km, latest_birth_day, whole_years, whole_years_at
from feature_repo.transforms.pair import PROFILE_PLACES, n_pairs
from feature_repo.transforms.places import numbers
from infra.compiled import fixed

Bools = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
_NO_INTERESTS: Final = np.empty(0, dtype=np.float32)
_NOBODY: Final = fixed(np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class NumberWish:
    """What a number must be: within bounds that count as met, and one of `among` where it is given."""

    low: float = -math.inf
    high: float = math.inf
    among: tuple[float, ...] | None = None

    def met(self, values: Float32) -> Bools:
        """Return bool[m] for float32[m]; whoever has none, NaN, does not meet it.

        Bounds are rounded like the values, so that whoever meets them before rounding does so after it.
        """
        fits = (values >= np.float32(self.low)) & (values <= np.float32(self.high))
        return fits if self.among is None else fits & np.isin(values, np.array(self.among, dtype=np.float32))


@dataclass(frozen=True)
class Wishes:
    """What somebody asks for this once, on top of their preferences: it can only narrow, and it needs to be known.

    `interests` float32[INTEREST_WORDS] as in a profile, one of which must be shared; empty where none is asked for.
    `attributes` are by slot, and `numbers` by the name of an attribute without one. Of each of `traits`, int64 codes,
    one must be had.
    """

    age_min: float = math.nan
    age_max: float = math.nan
    max_distance_km: float = math.inf
    interests: Float32 = field(default_factory=lambda: _NO_INTERESTS)
    attributes: tuple[tuple[int, NumberWish], ...] = ()
    traits: tuple[Int64, ...] = ()
    numbers: tuple[tuple[str, NumberWish], ...] = ()


@dataclass(frozen=True, eq=False)
class Terms:
    """On which terms people may be shown to one person at one instant: `facts` as `loops.accepted` takes them.

    Whether somebody has the `traits`, and the `numbers` without a slot by name, is known to a population alone.
    """

    own_id: int
    facts: NDArray[Any]
    interests: Float32
    excluded: Int64
    attributes: tuple[tuple[int, NumberWish], ...] = ()
    traits: tuple[Int64, ...] = ()
    numbers: tuple[tuple[str, NumberWish], ...] = ()

    @classmethod
    def of(cls, requester: People, at: float, wishes: Wishes = Wishes(), exclude: Int64 | None = None) -> Self:
        """Make the terms of one person at unix seconds `at`; `exclude` int64 ids may come in any order."""
        if len(requester) != 1:
            raise MalformedFeatures(f"Terms are those of one person, not of {len(requester)}.")
        facts = _facts(requester.profile[0].tobytes(), at, wishes.age_min, wishes.age_max, wishes.max_distance_km)
        interests = fixed(wishes.interests)
        user_id, excluded = int(requester.user_ids[0]), _ascending(exclude)
        return cls(user_id, facts, interests, excluded, wishes.attributes, wishes.traits, wishes.numbers)

    @property
    def asks_more(self) -> bool:
        """Return whether any attribute is asked for."""
        return bool(self.attributes or self.traits or self.numbers)

    def excluding(self, user_ids: Int64) -> Self:
        """Return the same terms without these people either."""
        return replace(self, excluded=_ascending(np.concatenate([self.excluded, user_ids])))

    def with_attributes(self, people: People, among: Int64 | None = None) -> Int64:
        """Return the rows, of `among` int64 ascending where given, of all who have the numbers that are asked for."""
        rows = np.arange(len(people)) if among is None else among
        for slot, wish in self.attributes:
            # The first is asked of a whole column, which is read in order.
            everybody = len(rows) == len(people)
            rows = rows[wish.met(people.attributes[:, slot] if everybody else people.attributes[rows, slot])]
        return rows

    def met(self, people: People, rows: Int64, late: People | None = None) -> Bools:
        """Return bool[m]: may the people at `rows` int64[m], beyond the last of whom come those of `late`, be shown.

        Whatever their traits are.
        """
        late = people if late is None else late
        accepted = loops.accepted(
            fixed(people.user_ids), fixed(people.profile), fixed(late.user_ids), fixed(late.profile), rows,
            PROFILE_PLACES, self.own_id, self.facts, self.interests, self.excluded,
        )  # fmt: skip
        for slot, wish in self.attributes:
            left = np.flatnonzero(accepted)
            accepted[left] = wish.met(_values(slot, people, rows[left], late))
        return accepted


def mutually_eligible(requesters: People, candidates: People, at: ArrayLike) -> Bools:
    """Return bool[n]: do both accept each other's gender, age in whole years at `at`, and distance."""
    n = n_pairs(requesters, candidates)
    if len(requesters) == 1 and np.ndim(at) == 0:
        return Terms.of(requesters, float(np.asarray(at))).met(candidates, np.arange(n))
    a, b = requesters.profile, candidates.profile
    distance = haversine_km(
        _column(a, "latitude"), _column(a, "longitude"), _column(b, "latitude"), _column(b, "longitude")
    )
    eligible = (
        (requesters.user_ids != candidates.user_ids) & _accepts(a, b, distance, at) & _accepts(b, a, distance, at)
    )
    return np.broadcast_to(eligible, (n,)).copy() if eligible.shape != (n,) else eligible


@lru_cache(maxsize=512)  # a request asks several times about the same person and instant
def _facts(profile: bytes, at: float, youngest: float, oldest: float, within_km: float) -> NDArray[Any]:
    """Return what `loops.accepted` must know of the one who asks, from the bytes of their packed profile.

    An age is compared as a birth day, with a bound that is computed once.
    """
    own = dict(zip(PROFILE.columns, np.frombuffer(profile, dtype=np.float32).tolist(), strict=True))
    low, high = np.fmax(own["age_min"], youngest), np.fmin(own["age_max"], oldest)
    age = whole_years_at(own["birth_day"], at)
    x, y, z = loops.unit_vector(own["latitude"], own["longitude"])
    return numbers(
        {
            "gender": own["gender"],
            "seeking": own["seeking"],
            "latest_birth_day": np.inf if math.isnan(low) else latest_birth_day(math.ceil(low), at),
            "after_birth_day": -np.inf if math.isnan(high) else latest_birth_day(math.floor(high) + 1, at),
            # An unknown age fits no range that is set.
            "age_for_minimum": -np.inf if math.isnan(age) else age,
            "age_for_maximum": np.inf if math.isnan(age) else age,
            "x": x,
            "y": y,
            "z": z,
            "max_distance_km": own["max_distance_km"],
            "known_within_km": within_km,
            "latitude": own["latitude"],
            "longitude": own["longitude"],
        }
    )


def _values(slot: int, people: People, rows: Int64, late: People) -> Float32:
    """Return float32[m]: the attribute of the people at `rows`, beyond the last of whom come those of `late`."""
    n = len(people)
    if not len(rows) or int(rows.max()) < n:
        return np.asarray(people.attributes[rows, slot])
    values = np.empty(len(rows), dtype=np.float32)
    is_late = rows >= n
    values[~is_late] = people.attributes[rows[~is_late], slot]
    values[is_late] = late.attributes[rows[is_late] - n, slot]
    return values


def _ascending(user_ids: Int64 | None) -> Int64:
    if user_ids is None or not len(user_ids):
        return _NOBODY
    ids = np.asarray(user_ids, dtype=np.int64)
    return fixed(ids if bool((ids[1:] >= ids[:-1]).all()) else np.sort(ids))


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
