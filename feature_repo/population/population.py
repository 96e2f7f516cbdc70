"""Everybody who may be shown, as columns in memory, and the candidate sources that need no model.

A population never changes: `upsert` and `remove` return a new one that shares the columns (and the mapped
pages) of the old one, so a request that holds one sees one state. Every source returns only people for whom
both sides' hard preferences hold; blocks and past decisions are the caller's to remove.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.errors import MalformedFeatures
from feature_repo.layout import ACTIVITY, N_GENDERS, PROFILE
from feature_repo.population import picking
from feature_repo.population.geogrid import Area, GeoGrid
from feature_repo.population.people import People
from feature_repo.population.traits import NO_TRAITS, NOBODY_HAS_ANY, GivenTraits, TraitIndex
from feature_repo.transforms.content import content_score, content_score_at
from feature_repo.transforms.eligibility import Terms
from infra.compiled import fixed

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

MAX_POOL = 2000
MIN_POOL = 500
POOL_PER_CANDIDATE = 20
SOURCES = ("content", "popular_nearby", "random")
_WIDE = 2 * MAX_POOL
_NOBODY = np.empty(0, dtype=np.int64)
_LIKE_RATE = ACTIVITY.index("like_rate_received")
_PLACE = [PROFILE.index(name) for name in ("latitude", "longitude", "max_distance_km")]


@dataclass(frozen=True, eq=False)
class SourceResult:
    """Candidates of one source, best first; `propensity` is the chance of being drawn, 1 where nothing is drawn."""

    positions: Int64
    user_ids: Int64
    scores: Float32
    propensity: Float32


@dataclass(frozen=True, eq=False)
class DrawnPool:
    """People around somebody, and the chance each had of being in the pool."""

    positions: Int64
    inclusion: float
    exhausted: bool  # nobody else is in reach


@dataclass(frozen=True, eq=False)
class Population:
    """Visible people: a sorted base with a geo grid, and a short tail of people who came or changed since.

    `traits` are those of the base, by its rows, and `late_traits` those of the tail.
    """

    base: People
    tail: People
    alive: NDArray[np.bool_]
    grid: GeoGrid
    traits: TraitIndex = NOBODY_HAS_ANY
    late_traits: TraitIndex = NOBODY_HAS_ANY

    @classmethod
    def build(cls, people: People, traits: GivenTraits = NO_TRAITS) -> "Population":
        """Index visible people; about a second per million."""
        grid = GeoGrid.build(*(_column(people, name) for name in ("gender", "latitude", "longitude")))
        alive = np.ones(len(people), dtype=np.bool_)
        return cls(people, People.empty(), alive, grid, TraitIndex.build(people.user_ids, traits))

    def save(self, directory: Path) -> None:
        """Write the columns and the grid into `directory`, which must exist; only a compacted population can be."""
        if len(self.tail) or not self.alive.all():
            raise MalformedFeatures("A population with a tail cannot be written: write `compacted()`.")
        self.base.save(directory)
        self.grid.save(directory)
        self.traits.save(directory)

    @classmethod
    def load(cls, directory: Path, *, mapped: bool = True) -> "Population":
        """Read what `save` wrote, without sorting anything; `mapped` shares the pages between processes."""
        people = People.load(directory, mapped=mapped)
        alive = np.ones(len(people), dtype=np.bool_)
        traits = TraitIndex.load(directory, len(people), mapped=mapped)
        return cls(people, People.empty(), alive, GeoGrid.load(directory, mapped=mapped), traits)

    def __len__(self) -> int:
        return self._n

    @cached_property
    def _n(self) -> int:
        return int(np.count_nonzero(self.alive))

    @property
    def nbytes(self) -> int:
        """Return the bytes of all columns, of the grid and of the traits."""
        parts = (self.alive, self.grid.order, self.grid.keys, *self.traits.arrays, *self.late_traits.arrays)
        return self.base.nbytes + self.tail.nbytes + sum(part.nbytes for part in parts)

    @cached_property
    def texts(self) -> frozenset[str]:
        """Return the names of the attributes that hold text."""
        return self.traits.texts | self.late_traits.texts

    @cached_property
    def flags(self) -> frozenset[str]:
        """Return the names of the attributes that hold true or false."""
        return self.traits.flags | self.late_traits.flags

    @cached_property
    def numbers(self) -> frozenset[str]:
        """Return the names of the attributes that hold numbers and have no slot."""
        return frozenset({*self.traits.numbers, *self.late_traits.numbers})

    def upsert(self, people: People, traits: GivenTraits = NO_TRAITS) -> "Population":
        """Return the population with `people` added or replaced, in time that does not grow with the base's columns.

        Their `traits` replace those they had.
        """
        if not len(people):
            return self
        tail = self.tail.upsert(people)
        alive = np.concatenate([self.alive[: len(self.base)], np.ones(len(tail), dtype=np.bool_)])
        _switch_off(alive, self.base.positions(people.user_ids))
        before = self.late_traits.given(self.tail.user_ids).without(people.user_ids)
        late_traits = TraitIndex.build(tail.user_ids, GivenTraits.together([before, traits]))
        return replace(self, tail=tail, alive=alive, late_traits=late_traits)

    def remove(self, user_ids: ArrayLike) -> "Population":
        """Return the population without `user_ids`; ids that are not in it are ignored."""
        gone = np.asarray(user_ids, dtype=np.int64)
        tail = self.tail.without(gone)
        alive = np.concatenate([self.alive[: len(self.base)], np.ones(len(tail), dtype=np.bool_)])
        _switch_off(alive, self.base.positions(gone))
        late_traits = TraitIndex.build(tail.user_ids, self.late_traits.given(self.tail.user_ids))
        return replace(self, tail=tail, alive=alive, late_traits=late_traits)

    def compacted(self) -> "Population":
        """Return the same people with the tail sorted into the base: for a background thread, now and then."""
        kept = np.flatnonzero(self.alive[: len(self.base)])
        ids = np.concatenate([self.base.user_ids[kept], self.tail.user_ids])
        order = np.argsort(ids, kind="stable")
        # A view at a time: a million people need a quarter of a gigabyte, not three times that.
        views = [
            np.concatenate([base[kept], tail])[order]
            for base, tail in zip(self.base.views, self.tail.views, strict=True)
        ]
        traits = self.traits.given(self.base.user_ids, self.alive[: len(self.base)])
        return Population.build(
            People(ids[order], *views), GivenTraits.together([traits, self.late_traits.given(self.tail.user_ids)])
        )

    def positions(self, user_ids: ArrayLike) -> Int64:
        """Return int64[m] positions for `rows`, -1 for people who are not (or no longer) here."""
        ids = np.asarray(user_ids, dtype=np.int64)
        late = self.tail.positions(ids) if len(self.tail) else _NOBODY
        return picking.here(self.base.positions(ids), fixed(self.alive), late, len(self.base))

    def user_ids(self, positions: Int64) -> Int64:
        """Return the ids int64[m] of the people at `positions`."""
        base, tail = (fixed(people.user_ids.reshape(-1, 1)) for people in (self.base, self.tail))
        return picking.gathered(base, tail, positions).ravel()

    def rows(self, positions: ArrayLike) -> People:
        """Gather the people at `positions`, in that order."""
        at = np.asarray(positions, dtype=np.int64)
        if len(at) and int(at.min()) < 0:
            raise MalformedFeatures("An unknown person (position -1) has no features: drop such ids first.")
        pairs = zip(self.base.views, self.tail.views, strict=True)
        return People(self.user_ids(at), *(picking.gathered(fixed(base), fixed(tail), at) for base, tail in pairs))

    def showable(self, terms: Terms, positions: Int64) -> NDArray[np.bool_]:
        """Return bool[m]: who of those at `positions` may be shown; a position of -1 is nobody."""
        showable = terms.met(self.base, positions, self.tail)
        if not (terms.traits or terms.numbers):
            return showable
        left = np.flatnonzero(showable)
        late = positions[left] >= len(self.base)
        for index, part, first in ((self.traits, left[~late], 0), (self.late_traits, left[late], len(self.base))):
            rows = positions[part] - first
            for codes in terms.traits:
                showable[part] &= index.having(rows, codes)
            for name, wish in terms.numbers:
                showable[part] &= wish.met(index.values(name, rows))
        return showable

    def nearby(
        self, requester: People, rng: np.random.Generator, max_pool: int = MAX_POOL, *, at_least: int = 0
    ) -> DrawnPool:
        """Draw at most `max_pool` people (and the tail) from the smallest area around `requester` that fills the pool.

        Only genders that the requester seeks, within the requester's distance. `at_least` asks for a wider area.
        """
        area = self._area(requester, max(max_pool, at_least))
        stride = _stride(area, max_pool)
        drawn = self.grid.drawn(area, self.alive, int(rng.integers(stride)), stride)
        return DrawnPool(
            np.concatenate([drawn, self._late(rng, max_pool)]), 1.0 / stride, area.is_whole and stride == 1
        )

    def _area(self, requester: People, wanted: float) -> Area:
        if len(requester) != 1:
            raise MalformedFeatures(f"A pool is drawn around one person, not {len(requester)}.")
        latitude, longitude, limit_km = requester.profile[0, _PLACE].tolist()
        return self.grid.around(_sought(requester), latitude, longitude, limit_km, wanted)

    def _late(self, rng: np.random.Generator, most: int) -> Int64:
        stride = -(-len(self.tail) // most) or 1
        return np.arange(len(self.base) + int(rng.integers(stride)), len(self.base) + len(self.tail), stride)

    def _found(
        self, requester: People, terms: Terms, rng: np.random.Generator, n: int, *, max_pool: int, at_least: int
    ) -> tuple[Int64, float]:
        """Return the positions of at least `n` people who may be shown, if such a look as is usual finds so many.

        Where it finds fewer, a wider one is as good as it gets; where that finds fewer than `at_least`, everybody in
        reach is looked at, until there are so many. The second value is the chance that each had of being looked at.
        """
        looks = ((max_pool, 0, n), (_WIDE, 8 * MAX_POOL, at_least), (_WIDE, 64 * MAX_POOL, at_least))
        for most, wanted, enough in looks:
            pool = self.nearby(requester, rng, most, at_least=wanted)
            found = pool.positions[self.showable(terms, pool.positions)]
            if len(found) >= enough or pool.exhausted:
                return found, pool.inclusion
        if terms.asks_more:
            return self._among_fitting(terms, rng)
        area = self._area(requester, math.inf)
        stride = _stride(area, _WIDE)
        late = self._late(rng, len(self.tail) or 1)
        found, first = late[self.showable(terms, late)], int(rng.integers(stride))
        for look in range(stride):
            drawn = self.grid.drawn(area, self.alive, (first + look) % stride, stride)
            found = np.concatenate([found, drawn[self.showable(terms, drawn)]])
            if len(found) >= at_least:
                return found, (look + 1) / stride
        return found, 1.0

    def _among_fitting(self, terms: Terms, rng: np.random.Generator) -> tuple[Int64, float]:
        """Return what `_found` does where few have the attributes: one look at an index or a column finds them all."""
        fewest = min(terms.traits, key=self.traits.count, default=None)
        fitting = terms.with_attributes(self.base, None if fewest is None else self.traits.with_any(fewest))
        for name, wish in terms.numbers:
            fitting = fitting[wish.met(self.traits.values(name, fitting))]
        late = np.arange(len(self.base), len(self.base) + len(self.tail))
        positions = np.concatenate([fitting[self.alive[fitting]], late])
        found = positions[self.showable(terms, positions)]
        stride = -(-len(found) // _WIDE) or 1
        return found[int(rng.integers(stride)) :: stride], 1.0 / stride

    def sources(
        self,
        requester: People,
        n: int,
        rng: np.random.Generator,
        at: float,
        *,
        terms: Terms | None = None,
        max_pool: int | None = None,
        at_least: int = 0,
    ) -> Mapping[str, SourceResult]:
        """Return up to `n` candidates from each of SOURCES for one requester at unix seconds `at`.

        Nobody is returned who does not meet `terms` (the requester's own unless given). At most `max_pool` people
        nearby are looked at to begin with: twenty for each candidate unless given, within bounds. Fewer than `at_least`
        are found only if nobody else in reach may be shown.
        """
        max_pool = max_pool or min(max(POOL_PER_CANDIDATE * n, MIN_POOL), MAX_POOL)
        terms = Terms.of(requester, at) if terms is None else terms
        found, inclusion = self._found(requester, terms, rng, n, max_pool=max_pool, at_least=at_least)
        content, rate = self._judged(requester, found, at)
        ids = self.user_ids(found)
        drawn = rng.permutation(len(found))[:n]
        chance = inclusion * len(drawn) / max(len(found), 1)
        every = np.float32(1.0)
        return {
            "content": _result(found, ids, picking.best_first(content, n), content, every),
            "popular_nearby": _result(found, ids, picking.best_first(rate, n), rate, every),
            "random": _result(found, ids, drawn, np.zeros(len(found), np.float32), np.float32(chance)),
        }

    def _judged(self, requester: People, positions: Int64, at: float) -> tuple[Float32, Float32]:
        """Return how close the profiles are and how often each person is liked, float32[m] both, gathering nobody."""
        if len(self.tail) and np.any(positions >= len(self.base)):
            people = self.rows(positions)
            return content_score(requester, people, at), np.ascontiguousarray(people.activity[:, _LIKE_RATE])
        return content_score_at(requester, self.base, positions, at), self.base.activity[positions, _LIKE_RATE]


def _result(found: Int64, ids: Int64, chosen: Int64, scores: Float32, propensity: np.float32) -> SourceResult:
    return SourceResult(found[chosen], ids[chosen], scores[chosen], np.full(len(chosen), propensity, dtype=np.float32))


def _stride(area: Area, most: int) -> int:
    """Return which of an area's people to look at, every so many, so that they are at most `most`."""
    return -(-area.total // most) or 1


def _sought(requester: People) -> list[int]:
    seeking = int(requester.profile[0, PROFILE.index("seeking")])
    return [code for code in range(N_GENDERS) if not seeking or seeking >> code & 1]


def _column(people: People, name: str) -> NDArray[np.float64]:
    return np.ascontiguousarray(people.profile[:, PROFILE.index(name)], dtype=np.float64)


def _switch_off(alive: NDArray[np.bool_], positions: Int64) -> None:
    alive[positions[positions >= 0]] = False
