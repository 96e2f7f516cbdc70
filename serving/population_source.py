"""Reads everybody who may be shown: features through Feast's online store, what changed since from Postgres.

Runs in a thread, on a connection of its own. Postgres decides who is visible; people whom the online store does not
know yet, or who changed after it was filled, get their profile from their row, with the same transformations.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.rows import dict_row

from feature_repo.people import People
from feature_repo.population import Population
from feature_repo.transforms import attribute_vectors, profile_vectors
from serving.people_store import PROFILE_COLUMNS
from serving.reasons import LIKES
from serving.recent_likes import KEPT, RecentLikes

ReadPeople = Callable[[NDArray[np.int64]], People]

OVERLAP: Final = timedelta(minutes=10)
"""A row may become visible to us later than its `updated_at` says: its transaction took that long to commit."""
_CHUNK: Final = 20_000
_LARGE_TAIL: Final = 5_000
_VISIBLE = b"SELECT user_id FROM duet.users WHERE visible ORDER BY user_id"
_NOW = b"SELECT clock_timestamp()"
_FILLED_AT = b"SELECT max(created_timestamp) FROM features.user_profile"
_SLOTS = b"SELECT name, slot FROM duet.attribute_slots"
_CHANGED = sql.SQL("""
    SELECT user_id, birth_date, gender, seeking, age_min, age_max, latitude, longitude, max_distance_km, interests,
           coalesce(length(bio), 0) AS bio_length, created_at, attributes, visible
    FROM duet.users WHERE updated_at > %s::timestamptz OR user_id = ANY(%s)
""")
_LIKES = b"""
    SELECT actor_id, array_agg(target_id ORDER BY occurred_at DESC) FROM (
        SELECT actor_id, target_id, occurred_at,
               row_number() OVER (PARTITION BY actor_id ORDER BY occurred_at DESC) AS place
        FROM duet.interactions WHERE kind = ANY(%s)
    ) AS likes WHERE place <= %s GROUP BY actor_id ORDER BY actor_id
"""


@dataclass(frozen=True)
class Snapshot:
    """The population and what belongs to it.

    `read_at` is the database's time of the last read, `filled_at` when the online store's source was last written.
    """

    population: Population
    recent_likes: RecentLikes
    slots: dict[str, int]
    read_at: datetime | None
    filled_at: datetime | None


def load(connection: psycopg.Connection[Any], read_stored: ReadPeople | None) -> Snapshot:
    """Read everybody; without `read_stored` (no online store) everybody comes from Postgres."""
    read_at = _instant(connection, _NOW)
    filled_at = _instant(connection, _FILLED_AT)
    slots = dict(connection.execute(_SLOTS).fetchall())
    ids = np.array([row[0] for row in connection.execute(_VISIBLE)], dtype=np.int64)
    stored = People.empty() if read_stored is None else read_stored(ids)
    unknown = ids[stored.positions(ids) < 0]
    since = None if filled_at is None or read_stored is None else filled_at - OVERLAP
    snapshot = Snapshot(Population.build(stored), _recent_likes(connection), slots, read_at, filled_at)
    changed = _with_changes(connection, snapshot, since, unknown)
    return replace(changed, population=changed.population.compacted())


def refresh(connection: psycopg.Connection[Any], snapshot: Snapshot) -> tuple[Snapshot, bool]:
    """Return the snapshot with the people who came, changed or hid since, and whether the online store was refilled."""
    read_at = _instant(connection, _NOW)
    since = None if snapshot.read_at is None else snapshot.read_at - OVERLAP
    changed = _with_changes(connection, replace(snapshot, read_at=read_at), since, np.empty(0, np.int64))
    if len(changed.population.tail) > _LARGE_TAIL:
        changed = replace(changed, population=changed.population.compacted())
    return changed, _instant(connection, _FILLED_AT) != snapshot.filled_at


def _with_changes(
    connection: psycopg.Connection[Any], snapshot: Snapshot, since: datetime | None, ids: NDArray[np.int64]
) -> Snapshot:
    population = snapshot.population
    for rows in _changed_rows(connection, since, ids):
        hidden = [row["user_id"] for row in rows if not row["visible"]]
        shown = [row for row in rows if row["visible"]]
        if hidden:
            population = population.remove(hidden)
        if shown:
            population = population.upsert(_people(shown, snapshot, population))
    return replace(snapshot, population=population)


def _changed_rows(
    connection: psycopg.Connection[Any], since: datetime | None, ids: NDArray[np.int64]
) -> Iterator[list[dict[str, Any]]]:
    # A named cursor needs a transaction, and streams: memory stays bounded at any number of changes.
    with (
        connection.transaction(),
        connection.cursor(name="changed_people", row_factory=dict_row) as cursor,
    ):
        cursor.execute(_CHANGED, ("-infinity" if since is None else since.isoformat(), ids.tolist()))
        while rows := cursor.fetchmany(_CHUNK):
            yield rows


def _people(rows: list[dict[str, Any]], snapshot: Snapshot, population: Population) -> People:
    columns = {name: [row[name] for row in rows] for name in (*PROFILE_COLUMNS, "attributes")}
    ids = np.array(columns["user_id"], dtype=np.int64)
    fresh = People.build(ids, profile=profile_vectors(columns), attributes=attribute_vectors(columns, snapshot.slots))
    positions = population.positions(fresh.user_ids)
    known = np.flatnonzero(positions >= 0)
    activity, reciprocity = fresh.activity.copy(), fresh.reciprocity.copy()
    if len(known):
        before = population.rows(positions[known])
        activity[known], reciprocity[known] = before.activity, before.reciprocity
    return replace(fresh, activity=activity, reciprocity=reciprocity)


def _recent_likes(connection: psycopg.Connection[Any]) -> RecentLikes:
    with connection.cursor() as cursor:
        cursor.execute(_LIKES, ([kind.value for kind in LIKES], KEPT))
        return RecentLikes.build(cursor.fetchall())


def _instant(connection: psycopg.Connection[Any], statement: bytes) -> datetime | None:
    row = connection.execute(statement).fetchone()
    return row[0] if row else None
