"""Stage 1: candidates from every source, merged with their provenance; only people who may be shown.

The index knows nothing of hard preferences, so its answer is filtered here and asked for again, wider, when too few are
left. The other sources come from the population and need no model; one more, people whose like waits for an answer, is
there only where settings let it be read.
"""

import numpy as np

from feature_repo.population import MAX_POOL, Population
from feature_repo.transforms import content_inputs
from infra.metrics import serving_metrics
from registry.newcomers import with_newcomers
from registry.release import Release
from registry.retrieval import CandidateList, Factors, MergedCandidates, merge_candidates, query_for, retrieve
from serving.pool import Pool, Requester
from serving.reasons import Source
from serving.run import Run
from serving.stages.filtering import showable

MAX_SEARCH = 10_000
_FIRST = 3  # a quarter of a person's neighbours in the index accept them and are accepted; others need places too
_WIDENING = 4
_ENOUGH = 5
_SHARE = 10
_AROUND = 8
_LEAST_AROUND = 500
_UNPLACED = np.int32(2**31 - 1)


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
            late = run.newcomers.get(release.release_id)
            found = with_newcomers(found, late, factors, min(width, MAX_SEARCH), weight)
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


def topped_up(
    run: Run,
    population: Population,
    requester: Requester,
    lists: dict[str, CandidateList],
    *,
    n: int,
    rng: np.random.Generator,
) -> dict[str, CandidateList]:
    """Return the sources with more people drawn at random, where all of them together name fewer than `n`."""
    together = np.unique(np.concatenate([found.ids for found in lists.values()]))
    drawn = lists[Source.RANDOM.value]
    everybody = not len(drawn) or (drawn.propensity is not None and bool((drawn.propensity == 1.0).all()))
    if len(together) >= n or everybody:
        return lists
    known = np.concatenate([requester.excluded, together])
    more = population.sources(requester.person, n - len(together), rng, run.at, exclude=known, max_pool=MAX_POOL)
    late = more[Source.RANDOM.value]
    both = CandidateList(
        np.concatenate([drawn.ids, late.user_ids]),
        np.concatenate([drawn.scores, late.scores]),
        None if drawn.propensity is None else np.concatenate([drawn.propensity, late.propensity]),
    )
    return {**lists, Source.RANDOM.value: both}


def _waiting(run: Run, population: Population, requester: Requester, n: int) -> CandidateList:
    """Return up to `n` showable people whose like waits for an answer, the latest first."""
    positions = population.positions(requester.pending.waiting)
    known = np.flatnonzero(positions >= 0)
    keep = known[showable(requester, population, positions[known], run.request.filters, run.at)][:n]
    return CandidateList(requester.pending.waiting[keep], np.ones(len(keep), dtype=np.float32))


def pooled(population: Population, lists: dict[str, CandidateList], n: int | None = None) -> Pool:
    """Merge sources into one pool of at most `n` people (any number without) that the population still knows.

    Where there are more, the others together keep a tenth each and what the first source leaves, the best places of
    each before the next ones: they are what keeps a pool from being more of the same. Of the first source the last go,
    unless another one found them too.
    """
    merged = merge_candidates(lists)
    if n is not None and len(merged) > n:
        merged = _bounded(merged, n)
    positions = population.positions(merged.ids)
    known = np.flatnonzero(positions >= 0)
    return Pool(population.rows(positions[known]), merged.take(known))


def _bounded(merged: MergedCandidates, n: int) -> MergedCandidates:
    places = merged.ranks[:, 1:]
    best = np.where(places >= 0, places, _UNPLACED).min(axis=1, initial=_UNPLACED)
    is_first = merged.ranks[:, 0] >= 0
    only_others = np.flatnonzero(~is_first)
    room = max(places.shape[1] * max(n // _SHARE, 1), n - int(np.count_nonzero(is_first)))
    if len(only_others) > room:
        only_others = only_others[np.argsort(best[only_others], kind="stable")[:room]]
        merged = _fewer_drawn(merged, int(best[only_others[-1]]) + 1)
    kept = np.zeros(len(merged), dtype=np.bool_)
    kept[only_others] = True
    kept |= is_first & (best < _UNPLACED)
    only_first = np.flatnonzero(is_first & (best == _UNPLACED))
    kept[only_first[: max(n - int(np.count_nonzero(kept)), 0)]] = True
    return merged.take(np.flatnonzero(kept)[:n])


def _fewer_drawn(merged: MergedCandidates, places: int) -> MergedCandidates:
    """Return the candidates with the chance of being drawn for so many places only."""
    column = merged.sources.index(Source.RANDOM.value) if Source.RANDOM.value in merged.sources else None
    drawn = 0 if column is None else int(merged.ranks[:, column].max()) + 1
    if places < drawn:
        merged.propensity[:, column] *= places / drawn
    return merged


def places_of_others(n: int, found: int) -> int:
    """Return how many people each source beside the index is asked for, to fill `n` places of which it filled `found`.

    Sources find the same people, so each is asked for all that are missing; `pooled` sees to the shares.
    """
    return max(n // _SHARE, n - found, 1)
