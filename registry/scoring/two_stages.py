"""Both stages for one request on one screen: candidates from every source, their context, the order.

The first stage is a generator of its steps. Serving lets other requests have their turn between them; the trial of a
release, the replay of gates and the offline evaluation go through them at once, so what is evaluated is what is served.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

import numpy as np

from feature_repo.population.population import Population
from feature_repo.transforms import PairContext, Terms, ranking_matrix
from registry.models.arrays import Floats, Ids
from registry.models.neighbours import Taste
from registry.models.ranker import ListPolicy, Order
from registry.release import Release
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
from registry.scoring.newcomers import Newcomers
from registry.scoring.pool import Pool
from registry.scoring.ranking import Scored, score_candidates, scored_by
from registry.scoring.requester import Requester, TasteOfOthers, among
from registry.scoring.retrieval import CandidateList, Factors, merge_candidates


class CandidateStep(StrEnum):
    """What the first stage is about to do."""

    INDEX = "index"
    NEIGHBOURS = "neighbours"
    POPULATION = "population"


@dataclass(frozen=True)
class Asked:
    """What is computed of a requester once, by whichever policies they are answered."""

    factors: Factors
    taste: Taste | None

    @classmethod
    def of(cls, stage: FirstStage, requester: Requester, at: float) -> Self:
        """Compute it as of unix seconds `at`."""
        return cls(requester_factors(stage, requester, at), taste_of(stage, requester, at))


@dataclass(frozen=True)
class Found:
    """The pool of one request, and what was computed of the requester on the way."""

    requester: Requester
    pool: Pool
    factors: Factors
    taste: Taste | None


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


def reads_neighbours(policy: ListPolicy) -> bool:
    """Tell whether likes in common have a say in the order, so that whom they name belongs among the candidates."""
    return policy.order is not Order.RETRIEVAL


def sought_by(policy: ListPolicy) -> tuple[float, str, bool]:
    """Return all that the first stage reads of a policy: policies in which it is equal share their candidates."""
    return policy.weight, primary_source(policy), reads_neighbours(policy)


def candidate_steps(
    stage: FirstStage,
    population: Population,
    requester: Requester,
    terms: Terms,
    *,
    policy: ListPolicy,
    n: int,
    at: float,
    rng: np.random.Generator,
    at_least: int = 0,
    late: Newcomers | None = None,
    may_widen: Callable[[], bool] = lambda: True,
    asked: Asked | None = None,
) -> Generator[CandidateStep, None, Found]:
    """Find at most `n` people who may be shown, as of unix seconds `at`; stop before each step and name it.

    `asked` is given where it was computed for another policy already.
    """
    asked = asked or Asked.of(stage, requester, at)
    factors, taste = asked.factors, asked.taste
    yield CandidateStep.INDEX
    indexed = from_index(stage, population, terms, factors, weight=policy.weight, n=n, late=late, may_widen=may_widen)
    lists, primary = {RETRIEVAL: indexed}, primary_source(policy)
    if reads_neighbours(policy):
        yield CandidateStep.NEIGHBOURS
        lists |= from_neighbours(taste, population, terms, n if primary != RETRIEVAL else places_of_neighbours(n))
    yield CandidateStep.POPULATION
    places = places_of_others(n, len(indexed))
    lists |= from_population(population, requester, terms, places, rng=rng, at=at, at_least=at_least - len(indexed))
    merged = topped_up(population, requester.person, terms, first(lists, primary), n=n, places=places, rng=rng, at=at)
    return Found(requester, pooled(population, merged, n), factors, taste)


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
    asked: Asked | None = None,
) -> Candidates:
    """Return at most `n` people who may be shown, with everything the order needs, as of unix seconds `at`."""
    steps = candidate_steps(stage, population, requester, terms, policy=policy, n=n, at=at, rng=rng, asked=asked)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Found = end.value
            break
    context = pair_context(stage, requester, found.factors, found.taste, found.pool.people, others=others, at=at)
    return Candidates(requester, found.pool, found.factors, context, at)


def candidates_among(
    stage: FirstStage,
    population: Population,
    requester: Requester,
    user_ids: Ids,
    others: TasteOfOthers,
    *,
    at: float,
    asked: Asked,
) -> Candidates:
    """Return these people, however they were found, as one list with everything the order needs, as of `at` unix s."""
    named = CandidateList(user_ids, np.zeros(len(user_ids), dtype=np.float32))
    pool = pooled(population, merge_candidates({RETRIEVAL: named}))
    context = pair_context(stage, requester, asked.factors, asked.taste, pool.people, others=others, at=at)
    return Candidates(requester, pool, asked.factors, context, at)


def listed_by_first_stage(policy: ListPolicy, found: Candidates) -> tuple[Ids, Floats]:
    """Return ids and scores of one request's candidates, best first, by an order that needs no ranker."""
    unused = np.zeros(len(found.pool), dtype=np.float32)
    scored, ids = scored_by(policy, found.context, unused, unused, unused), found.pool.people.user_ids
    order = scored.order(ids)
    return ids[order], scored.score[order]


def recommend(release: Release, policy: ListPolicy, found: Candidates) -> tuple[Ids, Scored]:
    """Return the ids of one request's list, best first, and the scores of the pool they were chosen from."""
    scored = score_candidates(release.ranker, policy, found.features(), found.context, found.waiting())
    ids = found.pool.people.user_ids
    scored = replace(scored, score=less_price(scored.score, ids, release.prices, policy.exposure_strength))
    return ids[scored.order(ids)], scored
