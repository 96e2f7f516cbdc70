"""Stage 1: candidates from every source, merged with their provenance; only people who may be shown.

The index knows nothing of hard preferences, so its answer is filtered here and asked for again, wider, when too few are
left. The other sources come from the population and need no model; one more, people whose like waits for an answer, is
there only where settings let it be read.
"""

import numpy as np

from feature_repo.population import Population
from feature_repo.transforms import content_inputs
from registry.release import Release
from registry.retrieval import CandidateList, Factors, merge_candidates, query_for, retrieve
from serving.pool import Pool, Requester
from serving.reasons import Source
from serving.run import Run
from serving.stages.filtering import showable

MAX_SEARCH = 10_000
_WIDENING = 5


def requester_factors(release: Release, requester: Requester, at: float) -> Factors:
    """Return P and Q of the requester as of now: fitted, folded in from all decisions, or from the profile."""
    return query_for(
        release, requester.user_id, content_inputs(requester.person, at), requester.liked, requester.passed
    )


def from_index(
    run: Run, release: Release, population: Population, requester: Requester, factors: Factors, *, weight: float, n: int
) -> CandidateList:
    """Return up to `n` showable people from the index, best first."""
    width = 3 * n
    asked = keep = np.empty(0, dtype=np.int64)
    while True:
        found = retrieve(release, factors, min(width, MAX_SEARCH), weight)
        if not np.array_equal(found.ids[: len(asked)], asked):  # an approximate index may begin otherwise when wider
            asked = keep = np.empty(0, dtype=np.int64)
        # Best first, a slice at a time: beyond the n-th who may be shown nobody is asked about.
        while len(keep) < n and len(asked) < len(found):
            part = found.ids[len(asked) : len(asked) + 2 * n]
            positions = population.positions(part)
            known = np.flatnonzero(positions >= 0)
            fits = known[showable(requester, population, positions[known], run.request.filters, run.at)]
            keep = np.concatenate([keep, len(asked) + fits])
            asked = found.ids[: len(asked) + len(part)]
        if len(keep) >= n or width >= min(len(release.index), MAX_SEARCH) or not run.remaining_s():
            return CandidateList(found.ids[keep[:n]], found.scores[keep[:n]])
        width *= _WIDENING


def from_population(
    run: Run, population: Population, requester: Requester, n: int, rng: np.random.Generator
) -> dict[str, CandidateList]:
    """Return up to `n` people from each source that needs no model; all may be shown, request filters aside."""
    sources = population.sources(requester.person, n, rng, run.at, exclude=requester.excluded)
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


def pooled(population: Population, lists: dict[str, CandidateList]) -> Pool:
    """Merge sources into one pool of people that the population still knows."""
    merged = merge_candidates(lists)
    positions = population.positions(merged.ids)
    known = np.flatnonzero(positions >= 0)
    return Pool(population.rows(positions[known]), merged.take(known))
