"""Stage 1: candidates from every source, merged with their provenance; only people who may be shown.

The index and the neighbours know nothing of hard preferences, so what they find is filtered here. The other sources
come from the population and need no model; people whose like waits for an answer are there only where the requester's
own data name them.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_repo.population.people import People
from feature_repo.population.population import MAX_POOL, Population
from feature_repo.transforms import Terms, content_inputs
from registry.models.embedding import query_vectors
from registry.models.item_index import MAX_N
from registry.models.neighbours import Taste
from registry.scoring.first_stage import FirstStage
from registry.scoring.newcomers import Newcomers, with_newcomers
from registry.scoring.pool import Pool
from registry.scoring.requester import Requester
from registry.scoring.retrieval import (
    RETRIEVAL,
    CandidateList,
    Factors,
    HasRetrieval,
    MergedCandidates,
    merge_candidates,
    query_for,
    retrieve,
)

RANDOM: Final = "random"
LIKED_YOU: Final = "liked_you"
_FIRST = 3  # a quarter of a person's neighbours in the index accept them and are accepted; others need places too
_WIDENING = 4
_AMPLE = 1.25
_ENOUGH = 5
_SHARE = 12
_NEIGHBOURS = 4
_AROUND = 8
_LEAST_AROUND = 500


def requester_factors(release: HasRetrieval, requester: Requester, at: float) -> Factors:
    """Return P and Q of the requester as of now: fitted, folded in from all decisions, or from the profile."""
    return query_for(
        release, requester.user_id, content_inputs(requester.person, at), requester.liked, requester.passed
    )


def taste_of(release: FirstStage, requester: Requester, at: float) -> Taste | None:
    """Return what the requester's decisions say of others, as of unix seconds; None where no neighbours are known."""
    if release.neighbours is None:
        return None
    return release.neighbours.taste_of(
        requester.user_id, requester.liked, requester.passed, lambda: content_inputs(requester.person, at)[0]
    )


def from_index(
    release: HasRetrieval,
    population: Population,
    terms: Terms,
    factors: Factors,
    *,
    weight: float,
    n: int,
    late: Newcomers | None = None,
    may_widen: Callable[[], bool] = lambda: True,
) -> CandidateList:
    """Return up to `n` showable people from the index and the newcomers, best first; others fill what is missing."""
    width = min(_FIRST * n, MAX_N)

    def searched(width: int) -> tuple[CandidateList, NDArray[np.int64]]:
        found = with_newcomers(retrieve(release, factors, width, weight), late, factors, width, weight)
        return found, np.flatnonzero(population.showable(terms, population.positions(found.ids)))

    if not np.any(query_vectors(factors.chooser[None], factors.chosen[None], weight)):
        return CandidateList(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
    found, keep = searched(width)
    enough = max(n // _ENOUGH, 1)
    if len(keep) < enough and width < len(release.index) and may_widen():
        # Once, and as deep as those found say that it takes: who suits but a few people is served by where they live.
        needed = round(_AMPLE * width * enough / max(len(keep), 1))
        width = min(needed, _WIDENING * width, MAX_N)
        found, keep = searched(width)
    return CandidateList(found.ids[keep[:n]], found.scores[keep[:n]])


def from_neighbours(taste: Taste | None, population: Population, terms: Terms, n: int) -> dict[str, CandidateList]:
    """Return up to `n` showable people by each of the neighbour scores, best first."""
    if taste is None:
        return {}
    ids = taste.neighbours.user_ids
    lists = {}
    for source in taste.neighbours.sources:
        width = _FIRST * n + len(taste.liked)
        rows, scores = taste.best(source, width)
        keep = np.flatnonzero(population.showable(terms, population.positions(ids[rows])))
        if len(keep) < min(n, len(rows)) and len(rows) == width:
            rows, scores = taste.best(source, _WIDENING * width)
            keep = np.flatnonzero(population.showable(terms, population.positions(ids[rows])))
        lists[source] = CandidateList(ids[rows[keep[:n]]], scores[keep[:n]])
    return lists


def from_population(
    population: Population,
    requester: Requester,
    terms: Terms,
    n: int,
    *,
    rng: np.random.Generator,
    at: float,
    at_least: int,
) -> dict[str, CandidateList]:
    """Return up to `n` showable people from each source that needs no model.

    Together they are fewer than `at_least` only where nobody else may be shown.
    """
    around = min(max(_AROUND * n, _LEAST_AROUND), MAX_POOL)
    sources = population.sources(requester.person, n, rng, at, terms=terms, max_pool=around, at_least=at_least)
    lists = {name: CandidateList(found.user_ids, found.scores, found.propensity) for name, found in sources.items()}
    waiting = requester.waiting
    if len(waiting):
        keep = np.flatnonzero(population.showable(terms, population.positions(waiting)))[:n]
        lists[LIKED_YOU] = CandidateList(waiting[keep], np.ones(len(keep), dtype=np.float32))
    return lists


def first(lists: Mapping[str, CandidateList], source: str) -> dict[str, CandidateList]:
    """Return the lists with that of `source` in front: the first one keeps most places when they are merged."""
    if source not in lists:
        return dict(lists)
    return {source: lists[source], **{name: found for name, found in lists.items() if name != source}}


def topped_up(
    population: Population,
    person: People,
    terms: Terms,
    lists: Mapping[str, CandidateList],
    *,
    n: int,
    places: int,
    rng: np.random.Generator,
    at: float,
) -> MergedCandidates:
    """Merge the sources, with more people drawn at random where all of them together name fewer than `n`.

    `places` is how many the draw was asked for: where it found fewer, another look would find few too.
    """
    merged, drawn = merge_candidates(lists), lists[RANDOM]
    if len(merged) >= n or len(drawn) < places:
        return merged
    others = terms.excluding(merged.ids)
    more = population.sources(person, n - len(merged), rng, at, terms=others, max_pool=MAX_POOL)
    late = more[RANDOM]
    both = CandidateList(
        np.concatenate([drawn.ids, late.user_ids]),
        np.concatenate([drawn.scores, late.scores]),
        None if drawn.propensity is None else np.concatenate([drawn.propensity, late.propensity]),
    )
    return merge_candidates({**lists, RANDOM: both})


def pooled(population: Population, merged: MergedCandidates, n: int | None = None) -> Pool:
    """Return a pool of at most `n` of those found (any number without), of people whom the population still knows."""
    if n is not None:
        merged = _bounded(merged, n)
    positions = population.positions(merged.ids)
    if (positions < 0).any():
        known = np.flatnonzero(positions >= 0)
        positions, merged = positions[known], merged.take(known)
    return Pool(population.rows(positions), merged)


def share_of(n: int) -> int:
    """Return how many places of `n` each source beside the first keeps at least."""
    return max(n // _SHARE, 1)


def places_of_neighbours(n: int) -> int:
    """Return how many people each neighbour score is asked for: many of them are found by the index too."""
    return max(n // _NEIGHBOURS, 1)


def places_of_others(n: int, found: int) -> int:
    """Return how many people each source beside the index is asked for, to fill `n` places of which it filled `found`.

    Sources find the same people, so each is asked for all that are missing; `pooled` sees to the shares.
    """
    return max(share_of(n), n - found, 1)


def _bounded(merged: MergedCandidates, n: int) -> MergedCandidates:
    """Return at most `n` candidates, who are drawn with the chance of so many places as are left to the draw."""
    best, places = merged.best(n, share_of(n))
    if places >= 0 and RANDOM in merged.sources:
        column = merged.sources.index(RANDOM)
        drawn = int(merged.ranks[:, column].max()) + 1
        if places < drawn:
            best.propensity[:, column] *= places / drawn
    return best


__all__ = [
    "LIKED_YOU",
    "RANDOM",
    "RETRIEVAL",
    "first",
    "from_index",
    "from_neighbours",
    "from_population",
    "places_of_neighbours",
    "places_of_others",
    "pooled",
    "requester_factors",
    "taste_of",
    "topped_up",
]
