"""Brings a snapshot up to date in place: the few who changed since it was read, every few seconds.

Each look goes back further than the last one, because a slow transaction becomes visible late; what the last look saw
is left out, and what was applied is remembered. Work comes in small steps, because it shares the interpreter with
requests. Whatever is more than a small part of the people is left to the process that writes the snapshot anew.

A row carries the time at which it was written, and its transaction has begun by then. So once all transactions have
ended that had begun by an earlier look, whatever comes late was written after that look: from there on rows are in
doubt, and the last check before an answer reads only those again.
"""

from collections import deque
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import psycopg
from psycopg import sql

from feature_repo.population.people import People
from serving.errors import TooManyChanges
from serving.snapshots import stored_likes
from serving.snapshots.population_source import CHANGED, OVERLAP, Instant, PopulationSnapshot, instant, with_people

SHORT_OVERLAP: Final = timedelta(seconds=15)
"""How far an ordinary look goes back at least; a thorough one goes back by OVERLAP, for new rows carry older times."""
MAX_OVERLAP: Final = 2 * OVERLAP
"""How far an ordinary look goes back at most, however long somebody writes."""
CLOCK_STEP: Final = timedelta(seconds=2)
"""How far the server's clock may be set back unnoticed."""
MAX_CHANGES: Final = 10_000
_MAX_SEEN: Final = 200_000
_STEP: Final = 200


class FreshChanges:
    """Applies changes to one line of snapshots, each made from the one before."""

    def __init__(self, max_changes: int = MAX_CHANGES) -> None:
        self._max_changes = max_changes
        self._base: People | None = None
        self._people = _Looks(CHANGED)
        self._likes = _Looks(stored_likes.ACTORS)
        self._thorough_horizon = 0
        self._began: deque[Instant] = deque()

    def applied(
        self, connection: psycopg.Connection[Any], snapshot: PopulationSnapshot, *, thorough: bool
    ) -> PopulationSnapshot:
        """Return the snapshot as of now; raises TooManyChanges, and whatever psycopg raises."""
        if snapshot.population.base is not self._base:
            self._base, thorough = snapshot.population.base, True
            self._people, self._likes = _Looks(CHANGED), _Looks(stored_likes.ACTORS)
            self._thorough_horizon = snapshot.horizon
            self._began.clear()
        if snapshot.read_at is None or snapshot.since is None:
            raise TooManyChanges("It is not known when the people in memory were read: they are read anew.")
        if thorough:
            since, horizon = min(snapshot.since, snapshot.read_at - OVERLAP), self._thorough_horizon
        else:
            since = max(min(snapshot.since, snapshot.read_at - SHORT_OVERLAP), snapshot.read_at - MAX_OVERLAP)
            horizon = snapshot.horizon
        now = instant(connection)
        changed = self._bounded(self._people.look(connection, since, horizon))
        actors = self._bounded(self._likes.look(connection, since, horizon))
        population, likes = snapshot.population, snapshot.recent_likes
        if changed:
            ids = np.array(sorted(changed), dtype=np.int64)
            actors |= set(ids[population.positions(ids) < 0].tolist())  # they came, or were hidden when it was written
            population = with_people(connection, population, ids, now.slots, _STEP)
        likes = likes.upsert(stored_likes.of(connection, sorted(actors), _STEP))
        self._people.accept(thorough=thorough)
        self._likes.accept(thorough=thorough)
        if thorough:
            self._thorough_horizon = now.horizon
        settled_at = self._settled_at(now)
        if settled_at is None or since > snapshot.since:
            settled_at = snapshot.since  # somebody writes for so long that only a thorough look goes back far enough
        return replace(
            snapshot,
            population=population,
            recent_likes=likes,
            slots=now.slots,
            read_at=now.at,
            horizon=now.horizon,
            settled_at=settled_at,
        )

    def _settled_at(self, now: Instant) -> datetime | None:
        """Return the time of the latest look by which nobody had begun who has not ended, None if there was none."""
        self._began.append(now)
        while len(self._began) > 1 and self._began[1].next <= now.horizon:
            self._began.popleft()
        if self._began[0].next > now.horizon:
            return None
        return self._began[0].at - CLOCK_STEP

    def _bounded(self, ids: set[int]) -> set[int]:
        if len(ids) > self._max_changes:
            raise TooManyChanges(f"More than {self._max_changes} people changed at once: all are written anew.")
        return ids


class _Looks:
    """What was seen in a table by (id, instant), and which of that is applied already."""

    def __init__(self, statement: sql.Composed) -> None:
        self._statement = statement
        self._applied: dict[int, datetime] = {}
        self._seen: dict[int, datetime] = {}

    def look(self, connection: psycopg.Connection[Any], since: datetime, horizon: int) -> set[int]:
        self._seen = {}
        with connection.cursor(binary=True) as cursor:
            cursor.execute(self._statement, {"since": since, "horizon": horizon, "limit": _MAX_SEEN})
            while rows := cursor.fetchmany(_STEP):  # one large fetch would keep the interpreter from requests
                for user_id, at in rows:
                    self._seen[user_id] = max(at, self._seen.get(user_id, at))
        if len(self._seen) >= _MAX_SEEN:
            raise TooManyChanges(f"{_MAX_SEEN} people or more changed at once: all are written anew.")
        return {user_id for user_id, at in self._seen.items() if self._applied.get(user_id) != at}

    def accept(self, *, thorough: bool) -> None:
        # A thorough look saw all that a later one may see again, so older ones are forgotten.
        self._applied = self._seen if thorough else self._applied | self._seen
