"""Answers real requests with a release before it serves: what fails here is refused, and what is slow once is warm.

The requests are the recorded ones: those who were shown people last, with what they liked. Where nobody was shown
anybody yet, a few people of the snapshot stand in.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import numpy as np
import psycopg
from psycopg import sql

from feature_repo.kinds import LIKES, listed
from infra.clock import Clock
from infra.settings import Settings
from registry.release import Release
from registry.retrieval import merge_candidates
from serving.api_models import RecommendationRequest
from serving.pool import Requester
from serving.population_source import Snapshot
from serving.reasons import Source
from serving.resilience.deadline import Deadline
from serving.run import Run
from serving.stages.filtering import terms_of
from serving.stages.ranking import rank
from serving.stages.retrieval import from_index, from_population, places_of_others, pooled, requester_factors

PEOPLE: Final = 8
PAUSE_S: Final = 0.03
"""Before each person. A request of others that meets one of the trial's gets the interpreter dozens of times after it:
eight of these in a row made a tenth of a second in which answers took 50 ms longer."""
RECORDED: Final = sql.SQL("""
    select user_id, array(
               select target_id from duet.interactions
                where actor_id = latest.user_id and kind in ({likes})
                order by occurred_at desc limit 20)
      from (select user_id, max(shown_at) as shown_at
              from (select user_id, shown_at from duet.impressions order by shown_at desc limit 500) as shown
             group by user_id order by max(shown_at) desc limit %s) as latest
""").format(likes=listed(LIKES))
_NOBODY = np.empty(0, dtype=np.int64)


def recorded_requests(connection: psycopg.Connection[Any]) -> dict[int, Sequence[int]]:
    """Return who was shown people last, the newest first, and whom each liked last."""
    return dict(connection.execute(RECORDED, (PEOPLE,)).fetchall())


def try_release(
    release: Release,
    snapshot: Snapshot | None,
    settings: Settings,
    clock: Clock,
    recorded: Mapping[int, Sequence[int]] | None = None,
) -> None:
    """Rank candidates for a few people; raises whatever goes wrong. Without people it only warms."""
    release.embedding.warm()
    if snapshot is None or not len(snapshot.population):
        return
    rng = np.random.default_rng(0)
    population = snapshot.population
    serving = settings.serving
    likes = recorded or {}
    known = population.positions(np.fromiter(likes, dtype=np.int64, count=len(likes)))
    known = known[known >= 0]
    everybody = np.flatnonzero(population.alive)
    strangers = rng.choice(everybody, min(max(PEOPLE - len(known), 0), len(everybody)), replace=False)
    for position in np.concatenate([known, strangers]):
        time.sleep(PAUSE_S)
        person = population.rows(np.array([position]))
        user_id = int(person.user_ids[0])
        liked = np.array(likes.get(user_id, ()), dtype=np.int64)
        requester = Requester(user_id, person, np.unique(np.append(liked, user_id)), liked, _NOBODY)
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
        terms = terms_of(requester, None, run.at)
        found = from_index(run, release, population, terms, factors, weight=serving.requester_weight, n=n)
        others = from_population(
            run, population, requester, terms, places_of_others(n, len(found)), rng=rng, at_least=0
        )
        ranking = rank(
            release,
            requester,
            factors,
            pooled(population, merge_candidates({Source.RETRIEVAL.value: found, **others}), n),
            snapshot.recent_likes,
            aggregator=serving.aggregator,
            weight=serving.requester_weight,
            at=run.at,
        )
        asyncio.run(ranking)  # in the thread of the release watcher, which has no loop
