"""Stage 1: candidates from every source, merged with their provenance; only people who may be shown.

The index knows nothing of hard preferences, so its answer is filtered here and asked for again, wider, when too few are
left. The other sources come from the population and need no model.
"""

import numpy as np

from feature_repo.population import Population
from feature_repo.transforms import content_inputs
from registry.release import Release
from registry.retrieval import CandidateList, Factors, merge_candidates, query_for, retrieve
from serving.pool import Pool, Requester
from serving.reasons import Source
from serving.run import Run
from serving.stages.filtering import allowed

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
    while True:
        found = retrieve(release, factors, min(width, MAX_SEARCH), weight)
        positions = population.positions(found.ids)
        known = np.flatnonzero(positions >= 0)
        keep = known[allowed(requester, population.rows(positions[known]), run.request.filters, run.at)]
        if len(keep) >= n or width >= min(len(release.index), MAX_SEARCH) or not run.remaining_s():
            return CandidateList(found.ids[keep[:n]], found.scores[keep[:n]])
        width *= _WIDENING


def from_population(
    run: Run, population: Population, requester: Requester, n: int, rng: np.random.Generator
) -> dict[str, CandidateList]:
    """Return up to `n` showable people from each source that needs no model."""
    sources = population.sources(requester.person, n, rng, run.at, exclude=requester.excluded)
    return {
        Source(name).value: CandidateList(found.user_ids, found.scores, found.propensity)
        for name, found in sources.items()
    }


def pooled(population: Population, lists: dict[str, CandidateList]) -> Pool:
    """Merge sources into one pool of people that the population still knows."""
    merged = merge_candidates(lists)
    positions = population.positions(merged.ids)
    known = np.flatnonzero(positions >= 0)
    return Pool(population.rows(positions[known]), merged.take(known))
