"""Stage 1: candidates from every source, merged with their provenance; only people who may be shown.

The index knows nothing of hard preferences, so its answer is filtered here and asked for again, wider, when too few are
left. The other sources come from the population and need no model; one more, people whose like waits for an answer, is
there only where settings let it be read.
"""

import numpy as np
from numpy.typing import NDArray

from feature_repo.population import MAX_POOL, Population
from feature_repo.transforms import Terms, content_inputs
from infra.metrics import serving_metrics
from registry.item_index import MAX_N
from registry.newcomers import with_newcomers
from registry.release import Release
from registry.retrieval import CandidateList, Factors, MergedCandidates, merge_candidates, query_for, retrieve
from serving.pool import Pool, Requester
from serving.reasons import Source
from serving.run import Run

_FIRST = 3  # a quarter of a person's neighbours in the index accept them and are accepted; others need places too
_WIDENING = 4
_AMPLE = 1.25
_ENOUGH = 5
_SHARE = 10
_AROUND = 8
_LEAST_AROUND = 500


def requester_factors(release: Release, requester: Requester, at: float) -> Factors:
    """Return P and Q of the requester as of now: fitted, folded in from all decisions, or from the profile."""
    return query_for(
        release, requester.user_id, content_inputs(requester.person, at), requester.liked, requester.passed
    )


def from_index(
    run: Run, release: Release, population: Population, terms: Terms, factors: Factors, *, weight: float, n: int
) -> CandidateList:
    """Return up to `n` showable people from the index, best first; the other sources fill what is missing."""
    width = min(_FIRST * n, MAX_N)
    found, keep = _showable(run, release, population, terms, factors, weight=weight, width=width)
    enough = max(n // _ENOUGH, 1)
    if len(keep) < enough and width < len(release.index) and run.remaining_s():
        # Once, and as deep as those found say that it takes: who suits but a few people is served by where they live.
        needed = round(_AMPLE * width * enough / max(len(keep), 1))
        width = min(needed, _WIDENING * width, MAX_N)
        found, keep = _showable(run, release, population, terms, factors, weight=weight, width=width)
    return CandidateList(found.ids[keep[:n]], found.scores[keep[:n]])


def _showable(
    run: Run, release: Release, population: Population, terms: Terms, factors: Factors, *, weight: float, width: int
) -> tuple[CandidateList, NDArray[np.int64]]:
    """Return the best `width` people of index and newcomers, and the places of those who may be shown."""
    with serving_metrics().inference_seconds.labels("index").time():
        found = retrieve(release, factors, width, weight)
        late = run.newcomers.get(release.release_id)
        found = with_newcomers(found, late, factors, width, weight)
    return found, np.flatnonzero(population.showable(terms, population.positions(found.ids)))


def from_population(
    run: Run,
    population: Population,
    requester: Requester,
    terms: Terms,
    n: int,
    *,
    rng: np.random.Generator,
    at_least: int,
) -> dict[str, CandidateList]:
    """Return up to `n` showable people from each source that needs no model.

    Together they are fewer than `at_least` only where nobody else may be shown.
    """
    around = min(max(_AROUND * n, _LEAST_AROUND), MAX_POOL)
    sources = population.sources(requester.person, n, rng, run.at, terms=terms, max_pool=around, at_least=at_least)
    lists = {
        Source(name).value: CandidateList(found.user_ids, found.scores, found.propensity)
        for name, found in sources.items()
    }
    waiting = requester.pending.waiting
    if len(waiting):
        keep = np.flatnonzero(population.showable(terms, population.positions(waiting)))[:n]
        lists[Source.LIKED_YOU.value] = CandidateList(waiting[keep], np.ones(len(keep), dtype=np.float32))
    return lists


def topped_up(
    run: Run,
    population: Population,
    requester: Requester,
    terms: Terms,
    lists: dict[str, CandidateList],
    *,
    n: int,
    places: int,
    rng: np.random.Generator,
) -> MergedCandidates:
    """Merge the sources, with more people drawn at random where all of them together name fewer than `n`.

    `places` is how many the draw was asked for: where it found fewer, another look would find few too.
    """
    merged, drawn = merge_candidates(lists), lists[Source.RANDOM.value]
    if len(merged) >= n or len(drawn) < places:
        return merged
    others = terms.excluding(merged.ids)
    more = population.sources(requester.person, n - len(merged), rng, run.at, terms=others, max_pool=MAX_POOL)
    late = more[Source.RANDOM.value]
    both = CandidateList(
        np.concatenate([drawn.ids, late.user_ids]),
        np.concatenate([drawn.scores, late.scores]),
        None if drawn.propensity is None else np.concatenate([drawn.propensity, late.propensity]),
    )
    return merge_candidates({**lists, Source.RANDOM.value: both})


def pooled(population: Population, merged: MergedCandidates, n: int | None = None) -> Pool:
    """Return a pool of at most `n` of those found (any number without), of people whom the population still knows."""
    if n is not None:
        merged = _bounded(merged, n)
    positions = population.positions(merged.ids)
    if (positions < 0).any():
        known = np.flatnonzero(positions >= 0)
        positions, merged = positions[known], merged.take(known)
    return Pool(population.rows(positions), merged)


def _bounded(merged: MergedCandidates, n: int) -> MergedCandidates:
    """Return at most `n` candidates, who are drawn with the chance of so many places as are left to the draw."""
    best, places = merged.best(n, max(n // _SHARE, 1))
    if places >= 0 and Source.RANDOM.value in merged.sources:
        column = merged.sources.index(Source.RANDOM.value)
        drawn = int(merged.ranks[:, column].max()) + 1
        if places < drawn:
            best.propensity[:, column] *= places / drawn
    return best


def places_of_others(n: int, found: int) -> int:
    """Return how many people each source beside the index is asked for, to fill `n` places of which it filled `found`.

    Sources find the same people, so each is asked for all that are missing; `pooled` sees to the shares.
    """
    return max(n // _SHARE, n - found, 1)
