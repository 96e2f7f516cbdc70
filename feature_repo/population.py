"""Everybody who may be shown, as columns in memory, and the candidate sources that need no model.

A population never changes: `upsert` and `remove` return a new one that shares the columns (and the mapped
pages) of the old one, so a request that holds one sees one state. Every source returns only people for whom
both sides' hard preferences hold; blocks and past decisions are the caller's to remove.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.errors import MalformedFeatures
from feature_repo.geogrid import GeoGrid, Ranges
from feature_repo.layout import ACTIVITY, N_GENDERS, PROFILE
from feature_repo.people import People
from feature_repo.transforms.content import content_score, content_score_at
from feature_repo.transforms.eligibility import eligible_for

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

MAX_POOL = 2000
MIN_POOL = 500
POOL_PER_CANDIDATE = 20
SOURCES = ("content", "popular_nearby", "random")
_LIKE_RATE = ACTIVITY.index("like_rate_received")


@dataclass(frozen=True, eq=False)
class SourceResult:
    """Candidates of one source, best first; `propensity` is the chance of being drawn, 1 where nothing is drawn."""

    positions: Int64
    user_ids: Int64
    scores: Float32
    propensity: Float32


@dataclass(frozen=True, eq=False)
class Pool:
    """People around somebody, and the chance each had of being in the pool."""

    positions: Int64
    inclusion: float
    exhausted: bool  # nobody else is in reach


@dataclass(frozen=True, eq=False)
class Population:
    """Visible people: a sorted base with a geo grid, and a short tail of people who came or changed since."""

    base: People
    tail: People
    alive: NDArray[np.bool_]
    grid: GeoGrid

    @classmethod
    def build(cls, people: People) -> "Population":
        """Index visible people; about a second per million."""
        grid = GeoGrid.build(*(_column(people, name) for name in ("gender", "latitude", "longitude")))
        return cls(people, People.empty(), np.ones(len(people), dtype=np.bool_), grid)

    def save(self, directory: Path) -> None:
        """Write the columns and the grid into `directory`, which must exist; only a compacted population can be."""
        if len(self.tail) or not self.alive.all():
            raise MalformedFeatures("A population with a tail cannot be written: write `compacted()`.")
        self.base.save(directory)
        self.grid.save(directory)

    @classmethod
    def load(cls, directory: Path, *, mapped: bool = True) -> "Population":
        """Read what `save` wrote, without sorting anything; `mapped` shares the pages between processes."""
        people = People.load(directory, mapped=mapped)
        alive = np.ones(len(people), dtype=np.bool_)
        return cls(people, People.empty(), alive, GeoGrid.load(directory, mapped=mapped))

    def __len__(self) -> int:
        return int(np.count_nonzero(self.alive))

    @property
    def nbytes(self) -> int:
        """Return the bytes of all columns and of the grid."""
        return self.base.nbytes + self.tail.nbytes + self.alive.nbytes + self.grid.order.nbytes + self.grid.keys.nbytes

    def upsert(self, people: People) -> "Population":
        """Return the population with `people` added or replaced, in time that does not grow with the base's columns."""
        if not len(people):
            return self
        tail = self.tail.upsert(people)
        alive = np.concatenate([self.alive[: len(self.base)], np.ones(len(tail), dtype=np.bool_)])
        _switch_off(alive, self.base.positions(people.user_ids))
        return replace(self, tail=tail, alive=alive)

    def remove(self, user_ids: ArrayLike) -> "Population":
        """Return the population without `user_ids`; ids that are not in it are ignored."""
        gone = np.asarray(user_ids, dtype=np.int64)
        tail = self.tail.without(gone)
        alive = np.concatenate([self.alive[: len(self.base)], np.ones(len(tail), dtype=np.bool_)])
        _switch_off(alive, self.base.positions(gone))
        return replace(self, tail=tail, alive=alive)

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
        return Population.build(People(ids[order], *views))

    def positions(self, user_ids: ArrayLike) -> Int64:
        """Return int64[m] positions for `rows`, -1 for people who are not (or no longer) here."""
        ids = np.asarray(user_ids, dtype=np.int64)
        found = self.base.positions(ids)
        found = np.where((found >= 0) & self.alive[np.maximum(found, 0)], found, -1) if len(self.alive) else found
        if len(self.tail):
            late = self.tail.positions(ids)
            found = np.where(late >= 0, late + len(self.base), found)
        return found.astype(np.int64, copy=False)

    def user_ids(self, positions: Int64) -> Int64:
        """Return the ids int64[m] of the people at `positions`."""
        if not len(self.tail):
            return self.base.user_ids[positions]
        late = positions >= len(self.base)
        ids = self.base.user_ids[np.where(late, 0, positions)] if len(self.base) else positions.copy()
        ids[late] = self.tail.user_ids[positions[late] - len(self.base)]
        return ids

    def rows(self, positions: ArrayLike) -> People:
        """Gather the people at `positions`, in that order."""
        at = np.asarray(positions, dtype=np.int64)
        n_base = len(self.base)
        if not len(self.tail) or not np.any(at >= n_base):
            return self.base.take(at)
        late = at >= n_base
        ids = np.concatenate([self.base.user_ids[at[~late]], self.tail.user_ids[at[late] - n_base]])
        views = (
            np.concatenate([base[at[~late]], tail[at[late] - n_base]])
            for base, tail in zip(self.base.views, self.tail.views, strict=True)
        )
        back = np.argsort(np.argsort(late, kind="stable"), kind="stable")
        return People(ids, *views).take(back)

    def nearby(
        self, requester: People, rng: np.random.Generator, max_pool: int = MAX_POOL, *, at_least: int = 0
    ) -> Pool:
        """Draw at most `max_pool` people (and the tail) from the smallest area around `requester` that fills the pool.

        Only genders that the requester seeks, within the requester's distance. `at_least` asks for a wider area.
        """
        if len(requester) != 1:
            raise MalformedFeatures(f"A pool is drawn around one person, not {len(requester)}.")
        genders = _sought(requester)
        latitude, longitude, limit = (
            float(_column(requester, name)[0]) for name in ("latitude", "longitude", "max_distance_km")
        )
        wanted = max(max_pool, at_least)
        if np.isnan(latitude) or np.isnan(longitude):
            ranges, exhausted = self.grid.everybody(genders), True
        else:
            homeless = self.grid.nowhere(genders)
            ranges, exhausted = homeless, True
            for area, is_last in self.grid.areas(genders, latitude, longitude, limit):
                ranges = area.also(homeless)
                if ranges.total >= wanted:
                    exhausted = is_last
                    break
        return self._draw(ranges, rng, max_pool, exhausted=exhausted)

    def _draw(self, ranges: Ranges, rng: np.random.Generator, max_pool: int, *, exhausted: bool) -> Pool:
        total = ranges.total
        if total > max_pool:
            offsets = np.sort(rng.choice(total, max_pool, replace=False, shuffle=False))
        else:
            offsets = np.arange(total)
        positions = self.grid.order[ranges.places(offsets)].astype(np.int64)
        positions = positions[self.alive[positions]]
        if len(self.tail):
            late = np.arange(len(self.tail))
            if len(late) > max_pool:
                late = np.sort(rng.choice(len(late), max_pool, replace=False, shuffle=False))
            positions = np.concatenate([positions, late + len(self.base)])
        inclusion = min(1.0, max_pool / total) if total else 1.0
        return Pool(positions, inclusion, exhausted and total <= max_pool)

    def profiles(self, positions: Int64) -> People:
        """Gather people of whom only ids and profiles are to be read: the other columns may hold anything."""
        if len(self.tail) and np.any(positions >= len(self.base)):
            return self.rows(positions)
        blank = [
            np.broadcast_to(rows[:1] if len(rows) else rows, (len(positions), rows.shape[1]))
            for rows in self.base.views[1:]
        ]
        return People(self.base.user_ids[positions], self.base.profile[positions], *blank)

    def accepted(self, requester: People, positions: Int64, at: float) -> NDArray[np.bool_]:
        """Return bool[m]: do the people at `positions` and the requester accept each other at unix seconds `at`."""
        if len(self.tail) and np.any(positions >= len(self.base)):
            people = self.rows(positions)
            return eligible_for(requester, people.user_ids, people.profile, np.arange(len(people)), at)
        return eligible_for(requester, self.base.user_ids, self.base.profile, positions, at)

    def eligible(self, requester: People, positions: Int64, at: float) -> Int64:
        """Return those `positions` whose people and the requester accept each other at unix seconds `at`."""
        return positions[self.accepted(requester, positions, at)]

    def sources(
        self,
        requester: People,
        n: int,
        rng: np.random.Generator,
        at: float,
        *,
        exclude: ArrayLike | None = None,
        max_pool: int | None = None,
    ) -> Mapping[str, SourceResult]:
        """Return up to `n` candidates from each of SOURCES for one requester at unix seconds `at`.

        `exclude` holds user ids (decided, blocked) that no source may return. At most `max_pool` people nearby are
        looked at to begin with: twenty for each candidate unless given, within bounds.
        """
        max_pool = max_pool or min(max(POOL_PER_CANDIDATE * n, MIN_POOL), MAX_POOL)
        excluded = None if exclude is None else np.unique(np.asarray(exclude, dtype=np.int64))
        pool = self.nearby(requester, rng, max_pool)
        found = self._candidates(requester, pool, at, excluded)
        for widening in (8, 64):
            if len(found) >= n or pool.exhausted:
                break
            pool = self.nearby(requester, rng, 2 * MAX_POOL, at_least=widening * MAX_POOL)
            found = self._candidates(requester, pool, at, excluded)
        content, rate = self._judged(requester, found, at)
        ids = self.user_ids(found)
        drawn = rng.choice(len(found), min(n, len(found)), replace=False) if len(found) else np.empty(0, np.int64)
        chance = pool.inclusion * len(drawn) / max(len(found), 1)
        every = np.float32(1.0)
        return {
            "content": _result(found, ids, _top(content, n), content, every),
            "popular_nearby": _result(found, ids, _top(rate, n), rate, every),
            "random": _result(found, ids, drawn, np.zeros(len(found), np.float32), np.float32(chance)),
        }

    def _judged(self, requester: People, positions: Int64, at: float) -> tuple[Float32, Float32]:
        """Return how close the profiles are and how often each person is liked, float32[m] both, gathering nobody."""
        if len(self.tail) and np.any(positions >= len(self.base)):
            people = self.rows(positions)
            return content_score(requester, people, at), np.ascontiguousarray(people.activity[:, _LIKE_RATE])
        return content_score_at(requester, self.base, positions, at), self.base.activity[positions, _LIKE_RATE]

    def _candidates(self, requester: People, pool: Pool, at: float, excluded: Int64 | None) -> Int64:
        found = self.eligible(requester, pool.positions, at)
        if excluded is None or not len(excluded) or not len(found):
            return found
        ids = self.user_ids(found)
        at_most = np.minimum(np.searchsorted(excluded, ids), len(excluded) - 1)
        return np.asarray(found[excluded[at_most] != ids])


def _result(found: Int64, ids: Int64, chosen: Int64, scores: Float32, propensity: np.float32) -> SourceResult:
    return SourceResult(found[chosen], ids[chosen], scores[chosen], np.full(len(chosen), propensity, dtype=np.float32))


def _top(scores: Float32, n: int) -> Int64:
    """Return the positions of the n best scores, best first, ties by position."""
    if n < len(scores):
        best = np.argpartition(-scores, n - 1)[:n] if n else np.empty(0, np.int64)
        best.sort()
    else:
        best = np.arange(len(scores))
    return best[np.argsort(-scores[best], kind="stable")].astype(np.int64, copy=False)


def _sought(requester: People) -> list[int]:
    seeking = int(requester.profile[0, PROFILE.index("seeking")])
    return [code for code in range(N_GENDERS) if not seeking or seeking >> code & 1]


def _column(people: People, name: str) -> NDArray[np.float64]:
    return np.ascontiguousarray(people.profile[:, PROFILE.index(name)], dtype=np.float64)


def _switch_off(alive: NDArray[np.bool_], positions: Int64) -> None:
    alive[positions[positions >= 0]] = False
