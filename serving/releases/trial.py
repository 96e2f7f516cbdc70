"""Answers real requests with a release before it serves: what fails here is refused, and what is slow once is warm.

The requests are the recorded ones: those who were shown people last, with what they liked. Where nobody was shown
anybody yet, a few people of the snapshot stand in.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import psycopg
from psycopg import sql

from feature_repo.kinds import LIKES, listed
from infra.clock import Clock
from infra.settings import Settings
from registry.release import Release
from registry.scoring.ranking import served_policy
from registry.scoring.two_stages import find_candidates, recommend
from serving.recommend.pool import KnownRequester
from serving.recommend.stages.filtering import terms_of
from serving.snapshots.population_source import PopulationSnapshot

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
    snapshot: PopulationSnapshot | None,
    settings: Settings,
    clock: Clock,
    recorded: Mapping[int, Sequence[int]] | None = None,
) -> None:
    """Rank candidates for a few people; raises whatever goes wrong. Without people it only warms."""
    release.embedding.warm()
    if release.neighbours is not None:
        release.neighbours.warm()
    if snapshot is None or not len(snapshot.population):
        return
    rng = np.random.default_rng(0)
    population = snapshot.population
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
        requester = KnownRequester(user_id, person, np.unique(np.append(liked, user_id)), liked, _NOBODY)
        at = clock.now().timestamp()
        policy = served_policy(release, settings)
        found = find_candidates(
            release,
            population,
            requester,
            terms_of(requester, None, at),
            snapshot.recent_likes,
            policy=policy,
            n=settings.serving.n_candidates,
            at=at,
            rng=rng,
        )
        recommend(release, policy, found)
