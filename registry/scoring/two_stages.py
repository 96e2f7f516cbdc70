"""Both stages for one request on one screen: candidates from every source, their context, the order.

Serving takes the same steps with pauses between them; the trial of a release, the replay of gates and the offline
evaluation call `recommend`, so what is evaluated is what is served.
"""

from dataclasses import dataclass, replace

import numpy as np

from feature_repo.population import Population
from feature_repo.transforms import PairContext, Terms, ranking_matrix
from registry.arrays import Floats, Ids
from registry.newcomers import Newcomers
from registry.ranker import ListPolicy, Order
from registry.release import Release
from registry.retrieval import Factors
from registry.scoring.candidates import (
    RETRIEVAL,
    first,
    from_index,
    from_neighbours,
    from_population,
    places_of_neighbours,
    places_of_others,
    pooled,
    requester_factors,
    taste_of,
    topped_up,
)
from registry.scoring.context import pair_context
from registry.scoring.exposure import less_price
from registry.scoring.first_stage import FirstStage
from registry.scoring.pool import Pool
from registry.scoring.ranking import Scored, score_candidates, scored_by
from registry.scoring.requester import Requester, TasteOfOthers, among


@dataclass(frozen=True)
class Candidates:
    """A pool of one request, the requester's factors, and what is known of both sides as of unix seconds `at`."""

    requester: Requester
    pool: Pool
    factors: Factors
    context: PairContext
    at: float

    def features(self) -> Floats:
        """Return the ranking vectors of both directions, float32[2n, k]."""
        return ranking_matrix(self.requester.person, self.pool.people, self.context, self.at)

    def waiting(self) -> Floats:
        """Return 1 for whoever waits for the requester's answer, float32[n]."""
        return among(self.pool.people.user_ids, self.requester.waiting)


def primary_source(policy: ListPolicy) -> str:
    """Return the source that keeps most places: the one whose order is served, or else the index."""
    return RETRIEVAL if policy.order in {Order.RANKER, Order.RETRIEVAL, Order.BLEND} else policy.order.value


def find_candidates(
    stage: FirstStage,
    population: Population,
    requester: Requester,
    terms: Terms,
    others: TasteOfOthers,
    *,
    policy: ListPolicy,
    n: int,
    at: float,
    rng: np.random.Generator,
    at_least: int = 0,
    late: Newcomers | None = None,
) -> Candidates:
    """Return at most `n` people who may be shown, with everything the order needs, as of unix seconds `at`."""
    factors, taste = requester_factors(stage, requester, at), taste_of(stage, requester)
    found = {RETRIEVAL: from_index(stage, population, terms, factors, weight=policy.weight, n=n, late=late)}
    primary = primary_source(policy)
    found |= from_neighbours(taste, population, terms, n if primary != RETRIEVAL else places_of_neighbours(n))
    missing = at_least - len(found[RETRIEVAL])
    places = places_of_others(n, len(found[RETRIEVAL]))
    found |= from_population(population, requester, terms, places, rng=rng, at=at, at_least=missing)
    lists = first(found, primary)
    merged = topped_up(population, requester.person, terms, lists, n=n, places=places, rng=rng, at=at)
    pool = pooled(population, merged, n)
    context = pair_context(stage, requester, factors, taste, pool.people, others=others, at=at)
    return Candidates(requester, pool, factors, context, at)


def listed_by_first_stage(
    stage: FirstStage,
    population: Population,
    requester: Requester,
    terms: Terms,
    others: TasteOfOthers,
    *,
    policy: ListPolicy,
    n: int,
    at: float,
    rng: np.random.Generator,
) -> tuple[Ids, Floats]:
    """Return ids and scores of one request's candidates, best first, by an order that needs no ranker."""
    found = find_candidates(stage, population, requester, terms, others, policy=policy, n=n, at=at, rng=rng)
    unused = np.zeros(len(found.pool), dtype=np.float32)
    scored, ids = scored_by(policy, found.context, unused, unused, unused), found.pool.people.user_ids
    order = scored.order(ids)
    return ids[order], scored.score[order]


def recommend(
    release: Release,
    population: Population,
    requester: Requester,
    terms: Terms,
    others: TasteOfOthers,
    *,
    policy: ListPolicy,
    n: int,
    at: float,
    rng: np.random.Generator,
    at_least: int = 0,
    late: Newcomers | None = None,
) -> tuple[Ids, Scored]:
    """Return the ids of one request's list, best first, and the scores of the pool they were chosen from."""
    found = find_candidates(
        release, population, requester, terms, others, policy=policy, n=n, at=at, rng=rng, at_least=at_least, late=late
    )
    scored = score_candidates(release.ranker, policy, found.features(), found.context, found.waiting())
    ids = found.pool.people.user_ids
    scored = replace(scored, score=less_price(scored.score, ids, release.prices, policy.exposure_strength))
    return ids[scored.order(ids)], scored
