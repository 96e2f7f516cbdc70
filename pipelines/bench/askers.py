"""Who asks in a benchmark, and whether a short answer told the truth."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from psycopg import sql

from feature_repo.kinds import DECISIONS, SEPARATIONS, listed
from feature_repo.transforms import mutually_eligible
from infra.clock import Clock
from infra.db.postgres import connect
from infra.endpoints import Endpoints
from pipelines.bench.world import BenchWorld

_MOST_CHECKED: Final = 200
_EXCLUDED: Final = sql.SQL("""
    (SELECT target_id FROM duet.interactions WHERE actor_id = %(id)s AND kind IN ({ending})
     UNION SELECT actor_id FROM duet.interactions WHERE target_id = %(id)s AND kind IN ({separations}))
    EXCEPT SELECT other FROM duet.undone(%(id)s) WHERE is_open
""").format(ending=listed((*DECISIONS, *SEPARATIONS)), separations=listed(SEPARATIONS))


def shuffled_askers(world: BenchWorld, seed: int) -> list[int]:
    """Return the ids of all visible people in an order that only the seed decides."""
    visible = np.load(world.settings.data_dir / "people" / "visible.npy", allow_pickle=False)
    ids = world.people.user_ids[visible]
    return [int(user_id) for user_id in np.random.default_rng([seed, 7]).permutation(ids)]


def wrongly_short(
    world: BenchWorld, endpoints: Endpoints, user_ids: Sequence[int], limit: int, clock: Clock
) -> list[int]:
    """Return those of the people with short answers for whom `limit` people who fit are there.

    At most the first 200 different ones are checked: each costs a look at everybody.
    """
    people = world.people
    visible = np.load(world.settings.data_dir / "people" / "visible.npy", allow_pickle=False)
    at = clock.now().timestamp()
    wrong = []
    with connect(endpoints.database_url) as connection:
        for user_id in list(dict.fromkeys(user_ids))[:_MOST_CHECKED]:
            fits = mutually_eligible(people.take(people.positions([user_id])), people, at) & visible
            excluded = [row[0] for row in connection.execute(_EXCLUDED, {"id": user_id}).fetchall()]
            fits[people.positions(excluded)] = False
            if int(fits.sum()) >= limit:
                wrong.append(int(user_id))
    return wrong
