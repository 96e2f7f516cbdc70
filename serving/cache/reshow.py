"""Shows a kept list again: Postgres is asked about every person of it, and about the requester, as for a new one."""

from dataclasses import dataclass

import numpy as np

from serving.cache.answer_cache import CacheLook
from serving.cache.entry import Entry
from serving.people.people_store import PeopleStore
from serving.reasons import Stage
from serving.recommend.answer_run import Run
from serving.recommend.answers import Shown
from serving.recommend.stages.safety import asked_at_once, showable_now, stand


@dataclass(frozen=True)
class Reshown:
    """Who of a kept list is shown now, and what came of the look; nobody unless it was a hit."""

    look: CacheLook
    items: list[Shown]
    propensities: list[float]


async def reshow(run: Run, people: PeopleStore, entry: Entry) -> Reshown:
    """Return those of a kept list who may be shown this instant; raises EligibilityUnknown.

    People who may not are replaced by the next of the list; the list counts no more when too few are left, or when
    the requester did or changed something since.
    """
    limit, asker = run.request.limit, entry.requester
    chosen: list[int] = []
    with run.stage(Stage.SAFETY):
        start, step = 0, asked_at_once(limit)
        while start < len(entry.items) and len(chosen) < limit:
            user_ids = entry.user_ids[start : start + step]
            standing = await stand(run, people, user_ids, entry.since)
            if standing.version != asker.version or standing.updated_at != asker.updated_at:
                return Reshown(CacheLook.STALE, [], [])
            if len(standing.allowed) == len(user_ids) and not len(standing.changed):
                chosen.extend(range(start, start + len(user_ids)))
            else:
                fits = np.ones(len(user_ids), dtype=np.bool_)
                kept = showable_now(run, asker, standing, user_ids, fits)
                chosen.extend((start + np.flatnonzero(kept)).tolist())
            start += step
    chosen = chosen[:limit]
    if len(chosen) < min(limit, len(entry.items)):
        return Reshown(CacheLook.SHORT, [], [])
    items = [entry.items[row].at(place) for place, row in enumerate(chosen, 1)]
    return Reshown(CacheLook.HIT, items, [entry.propensities[row] for row in chosen])
