"""The last word before an answer: Postgres, this instant, on every person that is about to be shown.

Visible, not separated either way, not decided, and both sides' preferences hold on fresh rows. It fails closed: without
an answer from Postgres nobody is shown.
"""

from collections.abc import Iterator

import numpy as np

from feature_repo.people import People
from feature_repo.transforms import profile_vectors
from serving.people_store import PeopleStore
from serving.pool import Int64, Ranked, Requester
from serving.reasons import Stage
from serving.run import Run
from serving.stages.filtering import allowed

_MARGIN = 1.25
_SPARE = 10
_MAX_ROUNDS = 4


async def only_safe(run: Run, people: PeopleStore, requester: Requester, ranked: Ranked) -> Int64:
    """Return the rows of the pool to show, best first, at most `limit`; raises EligibilityUnknown."""
    limit = run.request.limit
    ids = ranked.pool.people.user_ids
    filters = run.request.filters
    shown: list[int] = []
    with run.stage(Stage.SAFETY):
        for rows in _batches(ranked.order, int(limit * _MARGIN) + _SPARE):
            asked = [int(user_id) for user_id in ids[rows]]
            fresh = await people.still_allowed(
                requester.user_id, asked, filters.interests_any if filters else None, run.safety_s()
            )
            safe = set[int]()
            if len(fresh):
                found = People.build(fresh.columns["user_id"], profile=profile_vectors(fresh.columns))
                safe = set(found.user_ids[allowed(requester, found, filters, run.at)].tolist())
            shown.extend(int(row) for row in rows if int(ids[row]) in safe)
            if len(shown) >= limit:
                break
    return np.array(shown[:limit], dtype=np.int64)


def _batches(order: Int64, size: int) -> Iterator[Int64]:
    for start in range(0, min(len(order), size * _MAX_ROUNDS), size):
        yield order[start : start + size]
