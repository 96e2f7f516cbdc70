"""Finds the people whom a release's index does not know as they are, and gives each of them a vector.

The population follows the database within seconds; the index is as old as its last build. Whoever is in the one and
not in the other, or is known by a profile that has changed, is a newcomer. Who was hidden or deleted is in no
population any more, and whatever a search finds is looked up there. A look computes only what the look before did not.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_repo.layout import PROFILE
from feature_repo.population.people import People
from feature_repo.population.population import Population
from feature_repo.transforms import content_inputs, profile_fingerprints
from registry.models.embedding import Embedding
from registry.release import Release
from registry.scoring.newcomers import Newcomers, newcomer_vectors, standing
from registry.scoring.recent_likes import KEPT
from serving.snapshots.population_source import PopulationSnapshot

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
_STEP: Final = 512
"""People at a time: work in pieces does not keep the interpreter from requests."""
_FOLDED_AT_ONCE: Final = 256
"""People whose likes are folded in per look: each holds the interpreter for a tenth of a millisecond."""
_NOT_FOLDED: Final = -2
_CREATED: Final = PROFILE.index("created_day")


@dataclass(frozen=True, eq=False)
class NewcomerSearch:
    """What one look at a snapshot found for one release, and what the next look need not compute again.

    `missing` people are in the population and not in the index; `left_out` found no place among the newcomers. `late`
    int64 are those of the base whom the index does not know as they are; `fingerprints` uint64[m] and `liked`
    int64[m, KEPT] are what the newcomers' vectors were made of.
    """

    release: Release
    snapshot: PopulationSnapshot
    newcomers: Newcomers
    missing: int
    left_out: int
    late: Int64
    fingerprints: NDArray[np.uint64]
    liked: Int64

    @property
    def finished(self) -> bool:
        """Say whether the likes of all newcomers are folded in."""
        return not (self.liked[:, :1] == _NOT_FOLDED).any()

    def holds(self, release: Release, snapshot: PopulationSnapshot) -> bool:
        """Say whether another look would find the same."""
        return (
            self.finished
            and self.release is release
            and self.snapshot.population is snapshot.population
            and self.snapshot.recent_likes is snapshot.recent_likes
        )


@dataclass(frozen=True, eq=False)
class _Found:
    population: Population
    user_ids: Int64
    positions: Int64
    fingerprints: NDArray[np.uint64]
    liked: Int64


def look(
    release: Release, snapshot: PopulationSnapshot, at: float, *, most: int, last: NewcomerSearch | None = None
) -> NewcomerSearch:
    """Return the newcomers of a release as of unix seconds `at`, at most `most`; `last` is the look before this one."""
    if last is not None and last.release is not release:
        last = None
    population = snapshot.population
    if last is not None and last.snapshot.population.base is population.base:
        late = last.late
    else:
        late = _not_as_they_are(release, population.base)
    ids = np.union1d(late[population.tail.positions(late) < 0], _not_as_they_are(release, population.tail))
    positions = population.positions(ids)
    ids, positions = ids[positions >= 0], positions[positions >= 0]
    missing = release.index.positions(ids) < 0
    n_missing, left_out = int(np.count_nonzero(missing)), max(len(ids) - most, 0)
    if left_out:
        kept = _most_wanted(population, positions, missing, most)
        ids, positions, missing = ids[kept], positions[kept], missing[kept]
    found = _Found(
        population,
        ids,
        positions,
        _fingerprints(population, positions),
        snapshot.recent_likes.latest(ids, KEPT).astype(np.int64, copy=False),
    )
    vectors, folded = _vectors(release.embedding, found, at, last)
    newcomers = Newcomers(ids, vectors, ids[~missing])
    return NewcomerSearch(release, snapshot, newcomers, n_missing, left_out, late, found.fingerprints, folded)


def _not_as_they_are(release: Release, people: People) -> Int64:
    """Return the ids, ascending, of those whom the index does not know, or knows by another profile."""
    missing, outdated = standing(release.index, people.user_ids, lambda rows: _fingerprints(people, rows))
    return people.user_ids[missing | outdated]


def _fingerprints(people: People | Population, at: Int64) -> NDArray[np.uint64]:
    take = people.take if isinstance(people, People) else people.rows
    return np.concatenate([np.empty(0, np.uint64), *(profile_fingerprints(take(part)) for part in _steps(at))])


def _most_wanted(population: Population, positions: Int64, missing: NDArray[np.bool_], most: int) -> Int64:
    """Return the rows, ascending, of those whom nothing else finds first, and of them the latest to come."""
    created = np.nan_to_num(
        np.concatenate([population.rows(part).profile[:, _CREATED] for part in _steps(positions)]), nan=-np.inf
    )
    return np.sort(np.lexsort((-created, ~missing))[:most])


def _vectors(embedding: Embedding, found: _Found, at: float, last: NewcomerSearch | None) -> tuple[Float32, Int64]:
    """Return item vectors float32[m, 2d], and the likes that are in them, marked where their turn is still to come."""
    ids, liked = found.user_ids, found.liked
    vectors = np.zeros((len(ids), 2 * embedding.dimensions), dtype=np.float32)
    fresh, changed = np.ones(len(ids), dtype=np.bool_), np.ones(len(ids), dtype=np.bool_)
    if last is not None and len(last.newcomers):
        before = last.newcomers
        place = np.minimum(np.searchsorted(before.user_ids, ids), len(before) - 1)
        fresh = (before.user_ids[place] != ids) | (last.fingerprints[place] != found.fingerprints)
        changed = fresh | (last.liked[place] != liked).any(axis=1)
        vectors[~fresh] = before.vectors[place[~fresh]]
    rows = np.flatnonzero(changed)
    foldable = (embedding.positions(liked[rows]) >= 0).any(axis=1) & ~embedding.known(ids[rows])
    waiting = rows[foldable][_FOLDED_AT_ONCE:]
    folded = liked.copy()
    folded[waiting] = _NOT_FOLDED
    changed[waiting] = fresh[waiting]
    for part in _steps(np.flatnonzero(changed)):
        inputs = content_inputs(found.population.rows(found.positions[part]), at)
        vectors[part] = newcomer_vectors(embedding, ids[part], inputs, folded[part])
    return vectors, folded


def _steps(rows: Int64) -> list[Int64]:
    return [rows[start : start + _STEP] for start in range(0, len(rows), _STEP)]
