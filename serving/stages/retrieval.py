"""Stage 1: candidates from every source, merged with their provenance; only people who may be shown.

The index knows nothing of hard preferences, so its answer is filtered here and asked for again, wider, when too few are
left. The other sources come from the population and need no model; one more, people whose like waits for an answer, is
there only where settings let it be read.
"""

import numpy as np

from feature_repo.population import MAX_POOL, SOURCES, Population
from feature_repo.transforms import content_inputs
from infra.metrics import serving_metrics
from registry.release import Release
from registry.retrieval import CandidateList, Factors, merge_candidates, query_for, retrieve
from serving.pool import Pool, Requester
from serving.reasons import Source
from serving.run import Run
from serving.stages.filtering import showable

MAX_SEARCH = 10_000
_FIRST = 8  # a quarter of a person's neighbours in the index accept them and are accepted
_WIDENING = 4
_ENOUGH = 10
_SHARE = 10
_AROUND = 16
_LEAST_AROUND = 500


def requester_factors(release: Release, requester: Requester, at: float) -> Factors:
    """Return P and Q of the requester as of now: fitted, folded in from all decisions, or from the profile."""
    return query_for(
        release, requester.user_id, content_inputs(requester.person, at), requester.liked, requester.passed
    )


def from_index(
    run: Run, release: Release, population: Population, requester: Requester, factors: Factors, *, weight: float, n: int
) -> CandidateList:
    """Return up to `n` showable people from the index, best first; the other sources fill what is missing."""
    width = _FIRST * n
    enough = max(n // _ENOUGH, 1)
    while True:
        with serving_metrics().inference_seconds.labels("index").time():
            found = retrieve(release, factors, min(width, MAX_SEARCH), weight)
        positions = population.positions(found.ids)
        known = np.flatnonzero(positions >= 0)
        keep = known[showable(requester, population, positions[known], run.request.filters, run.at)]
        if len(keep) >= enough or width >= min(len(release.index), MAX_SEARCH) or not run.remaining_s():
            return CandidateList(found.ids[keep[:n]], found.scores[keep[:n]])
        width *= _WIDENING


def from_population(
    run: Run, population: Population, requester: Requester, n: int, rng: np.random.Generator
) -> dict[str, CandidateList]:
    """Return up to `n` people from each source that needs no model; all may be shown, request filters aside."""
    around = min(max(_AROUND * n, _LEAST_AROUND), MAX_POOL)
    sources = population.sources(requester.person, n, rng, run.at, exclude=requester.excluded, max_pool=around)
    lists = {
        Source(name).value: CandidateList(found.user_ids, found.scores, found.propensity)
        for name, found in sources.items()
    }
    if len(requester.pending.waiting):
        lists[Source.LIKED_YOU.value] = _waiting(run, population, requester, n)
    return lists


def _waiting(run: Run, population: Population, requester: Requester, n: int) -> CandidateList:
    """Return up to `n` showable people whose like waits for an answer, the latest first."""
    positions = population.positions(requester.pending.waiting)
    known = np.flatnonzero(positions >= 0)
    keep = known[showable(requester, population, positions[known], run.request.filters, run.at)][:n]
    return CandidateList(requester.pending.waiting[keep], np.ones(len(keep), dtype=np.float32))


def pooled(population: Population, lists: dict[str, CandidateList], n: int | None = None) -> Pool:
    """Merge sources into one pool of at most `n` people (any number without) that the population still knows.

    Where there are more, the last of the first source go, unless another one found them too: the few places of the
    others are what keeps a pool from being more of the same.
    """
    merged = merge_candidates(lists)
    if n is not None and len(merged) > n:
        only_first = np.flatnonzero((merged.ranks[:, 1:] < 0).all(axis=1))
        kept = np.ones(len(merged), dtype=np.bool_)
        kept[only_first[len(only_first) - min(len(merged) - n, len(only_first)) :]] = False
        merged = merged.take(np.flatnonzero(kept)[:n])
    positions = population.positions(merged.ids)
    known = np.flatnonzero(positions >= 0)
    return Pool(population.rows(positions[known]), merged.take(known))


def places_of_others(n: int, found: int) -> int:
    """Return how many of `n` places each source beside the index may fill, after the index found so many."""
    return max(n // _SHARE, (n - found) // len(SOURCES), 1)
