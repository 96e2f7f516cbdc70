"""The last word before an answer: Postgres, this instant, on every person that is about to be shown.

Visible, not separated either way, not decided, and both sides' preferences hold: on the rows that the pool has, except
for people whose row changed since those were read, who are judged by the fresh one. It fails closed: without an answer
from Postgres nobody is shown.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np

from feature_repo.population.people import People
from feature_repo.transforms import profile_vectors
from serving.errors import EligibilityUnknown
from serving.people.people_store import PairStanding, PeopleStore
from serving.people.wanted import wishes_of
from serving.reasons import Stage
from serving.recommend.answer_run import Run
from serving.recommend.pool import Bools, Int64, KnownRequester, Ranked
from serving.recommend.stages.filtering import allowed
from serving.recommend.stages.requester import as_of

MARGIN: Final = 1.25
SPARE: Final = 10
_MAX_ROUNDS: Final = 4


@dataclass(frozen=True)
class Checked:
    """Rows of the pool that may be shown, int64, best first; `steady` unless the requester changed meanwhile.

    `spare` are the rows after them, some of them not asked about yet.
    """

    rows: Int64
    spare: Int64
    steady: bool


async def only_safe(
    run: Run, people: PeopleStore, requester: KnownRequester, ranked: Ranked, since: datetime | None
) -> Checked:
    """Return who may be shown, at most `limit`; raises EligibilityUnknown, or UnknownUser when the requester is gone.

    `since` is a moment before which the pool's rows were read; None distrusts all of them.
    """
    limit = run.request.limit
    ids = ranked.pool.people.user_ids
    shown: list[Int64] = []
    n, asked, steady = 0, 0, True
    with run.stage(Stage.SAFETY):
        for rows in _batches(ranked.order, asked_at_once(limit)):
            try:
                standing = await stand(run, people, ids[rows], since)
                steady &= standing.version == requester.version and standing.updated_at == requester.updated_at
                requester = await as_of(standing, run, people, requester)
            except EligibilityUnknown as error:
                if not n:
                    raise
                # Those found so far were checked: fewer people are better than nobody.
                run.degrade(Stage.SAFETY, late=error.late)
                break
            fits = allowed(requester, ranked.pool.people.take(rows), run.request.filters, run.at)
            shown.append(rows[showable_now(run, requester, standing, ids[rows], fits)])
            n, asked = n + len(shown[-1]), asked + len(rows)
            if n >= limit:
                break
    safe = np.concatenate([np.empty(0, np.int64), *shown])
    return Checked(safe[:limit], np.concatenate([safe[limit:], ranked.order[asked:]]), steady)


async def stand(run: Run, people: PeopleStore, user_ids: Int64, since: datetime | None) -> PairStanding:
    """Ask Postgres how requester and candidates stand now; raises EligibilityUnknown."""
    filters = run.request.filters
    return await people.standing(
        run.user_id,
        user_ids,
        since=since,
        interests=filters.interests_any if filters else None,
        attributes=wishes_of(filters),
        timeout_s=run.safety_s(),
    )


def asked_at_once(limit: int) -> int:
    """Return how many people are asked about so that `limit` of them are likely to be left."""
    return int(limit * MARGIN) + SPARE


def showable_now(run: Run, requester: KnownRequester, standing: PairStanding, user_ids: Int64, fits: Bools) -> Bools:
    """Return bool[n]: who of `user_ids` may be shown; `fits` says whose older row suits both sides."""
    filters = run.request.filters
    if len(standing.changed):
        fresh = People.build(standing.changed.columns["user_id"], profile=profile_vectors(standing.changed.columns))
        judged = allowed(requester, fresh, filters, run.at)
        changed = np.isin(user_ids, fresh.user_ids)
        fits = np.where(changed, np.isin(user_ids, fresh.user_ids[judged]), fits)
    if len(standing.allowed) == len(user_ids):  # nobody is allowed who was not asked about, and nobody twice
        return fits
    return np.asarray(np.isin(user_ids, standing.allowed) & fits)


def _batches(order: Int64, size: int) -> Iterator[Int64]:
    for start in range(0, min(len(order), size * _MAX_ROUNDS), size):
        yield order[start : start + size]
