"""Answers real requests with a release before it serves: what fails here is refused, and what is slow once is warm."""

import asyncio
from uuid import UUID

import numpy as np

from infra.clock import Clock
from infra.settings import Settings
from registry.release import Release
from serving.api_models import RecommendationRequest
from serving.pool import Requester
from serving.population_source import Snapshot
from serving.reasons import Source
from serving.resilience.deadline import Deadline
from serving.run import Run
from serving.stages.ranking import rank
from serving.stages.retrieval import from_index, from_population, places_of_others, pooled, requester_factors

PEOPLE = 8
_NOBODY = np.empty(0, dtype=np.int64)


def try_release(release: Release, snapshot: Snapshot | None, settings: Settings, clock: Clock) -> None:
    """Rank candidates for a few people of the snapshot; raises whatever goes wrong. Without people it only warms."""
    release.embedding.warm()
    if snapshot is None or not len(snapshot.population):
        return
    rng = np.random.default_rng(0)
    population = snapshot.population
    serving = settings.serving
    everybody = np.flatnonzero(population.alive)
    for position in rng.choice(everybody, min(PEOPLE, len(everybody)), replace=False):
        person = population.rows(np.array([position]))
        user_id = int(person.user_ids[0])
        requester = Requester(user_id, person, np.array([user_id]), _NOBODY, _NOBODY)
        now = clock.monotonic()
        run = Run(
            request=RecommendationRequest(user_id=user_id),
            request_id=UUID(int=0),
            release=release,
            population=population,
            recent_likes=snapshot.recent_likes,
            at=clock.now().timestamp(),
            started_s=now,
            deadline=Deadline.after(60.0, clock),
            clock=clock,
        )
        factors = requester_factors(release, requester, run.at)
        n = serving.n_candidates
        found = from_index(run, release, population, requester, factors, weight=serving.requester_weight, n=n)
        others = from_population(run, population, requester, places_of_others(n, len(found)), rng)
        ranking = rank(
            release,
            requester,
            factors,
            pooled(population, {Source.RETRIEVAL.value: found, **others}, n),
            snapshot.recent_likes,
            aggregator=serving.aggregator,
            weight=serving.requester_weight,
            at=run.at,
        )
        asyncio.run(ranking)  # in the thread of the release watcher, which has no loop
