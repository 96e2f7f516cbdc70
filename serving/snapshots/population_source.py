"""Reads everybody who may be shown: features through Feast's online store, what changed since from Postgres.

Runs in a thread or a process of its own, on a connection of its own. Postgres decides who is visible; people whom the
online store does not know yet, or who changed after it was filled, get their profile from their row, with the same
transformations.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.types.json import set_json_loads
from pydantic_core import from_json

from feature_repo.population.people import People
from feature_repo.population.population import Population
from feature_repo.population.traits import GivenTraits, TraitIndex
from feature_repo.transforms import attribute_vectors, profile_vectors
from infra.db.array_columns import take_arrays
from infra.db.horizon import HORIZON, LATEST, NEXT, unseen
from registry.scoring.recent_likes import RecentLikes
from serving.people.people_store import PROFILE_COLUMNS
from serving.snapshots import stored_likes, stored_traits

Int64 = NDArray[np.int64]

OVERLAP: Final = timedelta(minutes=10)
"""A row may become visible to us later than its `updated_at` says: its transaction took that long to commit."""
MANY_LIKES: Final = 100_000
"""From so many people whose likes changed, reading the likes of everybody costs less."""
_CHUNK: Final = 20_000
# `now()` stands for a moment before the horizon is read, so whoever begins to write after it does so later.
_NOW = sql.SQL("""
    SELECT now(), {}, {}, (SELECT jsonb_object_agg(name, slot) FROM duet.attribute_slots)
""").format(HORIZON, NEXT)
_PROFILED_AT = b"SELECT max(created_timestamp) FROM features.user_profile"
_VISIBLE = sql.SQL("SELECT array_agg(user_id ORDER BY user_id) FROM duet.users WHERE visible")
CHANGED: Final = sql.SQL("""
    SELECT user_id, updated_at FROM duet.users, {latest} WHERE updated_at > %(since)s AND {new_user}
    UNION ALL
    SELECT user_id, deleted_at FROM duet.deletions, {latest} WHERE deleted_at > %(since)s AND {new_deletion}
    LIMIT %(limit)s
""").format(latest=LATEST, new_user=unseen("users"), new_deletion=unseen("deletions"))
"""Who changed or was deleted after `since` and unseen by a look with `horizon`, and when; at most `limit` rows."""
_CHANGED_IDS = sql.SQL("SELECT array_agg(DISTINCT user_id) FROM ({changed}) AS changed").format(changed=CHANGED)
_NAT: Final = int(np.iinfo(np.int64).min)
# A column of everybody asked about comes as one JSON array: a row for each of them would cost four times as much here.
_PEOPLE = sql.SQL("""
    SELECT {columns} FROM (SELECT * FROM duet.users WHERE user_id = ANY(%s) AND visible ORDER BY user_id) AS shown
""").format(
    columns=sql.SQL(", ").join(
        sql.SQL("json_agg({})").format(sql.SQL(value))
        for value in (
            "user_id",
            f"coalesce(birth_date - date '1970-01-01', {_NAT})",
            "gender",
            "seeking",
            "age_min",
            "age_max",
            "latitude::float8",
            "longitude::float8",
            "max_distance_km::float8",
            "interests",
            "coalesce(length(bio), 0)",
            "(extract(epoch FROM created_at) * 1000000)::bigint",
            "attributes",
        )
    )
)


@dataclass(frozen=True)
class PopulationSnapshot:
    """The population and what belongs to it.

    `read_at` and `horizon` are the database's time of the last read and the oldest transaction that ran then,
    `filled_at` is until when the online store was filled. `settled_at` is a moment before which no row was written
    that this does not know; None until `serving.snapshots.fresh_changes` has found one.
    """

    population: Population
    recent_likes: RecentLikes
    slots: dict[str, int]
    read_at: datetime | None
    filled_at: datetime | None
    horizon: int = 0
    settled_at: datetime | None = None

    @property
    def since(self) -> datetime | None:
        """Return from when on a row may have changed since it was read; None when that is not known."""
        if self.settled_at is not None or self.read_at is None:
            return self.settled_at
        return self.read_at - OVERLAP


@dataclass(frozen=True)
class Instant:
    """The database's time, the oldest transaction that ran then and the next to begin, and its slots of attributes."""

    at: datetime
    horizon: int
    next: int
    slots: dict[str, int]


class StoredFeatures(Protocol):
    """The online store: who is in it, and until when it was filled."""

    def many(self, user_ids: Int64) -> People:
        """Return those of `user_ids` that the store knows; raises FeaturesUnavailable."""
        ...

    def filled_at(self) -> datetime | None:
        """Return until when all views were filled, None before the first time; raises FeaturesUnavailable."""
        ...


def load(connection: psycopg.Connection[Any], stored: StoredFeatures | None) -> PopulationSnapshot:
    """Read everybody; without `stored` (no online store) everybody comes from Postgres, without activity.

    Raises FeaturesUnavailable.
    """
    now = instant(connection)
    filled_at = None if stored is None else stored.filled_at()  # before its rows: a filling that runs is seen later
    ids = _ids(connection, _VISIBLE)
    known = People.empty() if stored is None else stored.many(ids)
    late = ids[known.positions(ids) < 0]
    row = connection.execute(_PROFILED_AT).fetchone()
    if len(known) and row is not None and row[0] is not None:
        late = np.union1d(late, _changed_since(connection, row[0] - OVERLAP, 0))
    elif len(known):
        late = ids
    population = with_people(connection, Population.build(known), late, now.slots).compacted()
    if len(known):  # the online store knows no traits
        traits = TraitIndex.build(population.base.user_ids, stored_traits.everybody(connection))
        population = replace(population, traits=traits)
    del known  # a quarter of a gigabyte per million people, and the likes are about to need as much
    likes = stored_likes.everybody(connection).aligned(population.base.user_ids)
    return PopulationSnapshot(population, likes, now.slots, now.at, filled_at, now.horizon)


def advanced(connection: psycopg.Connection[Any], snapshot: PopulationSnapshot) -> PopulationSnapshot:
    """Return the snapshot as of now, whatever has changed since it was read and whoever was deleted; compacted."""
    if snapshot.read_at is None:
        return load(connection, None)
    since = snapshot.read_at - OVERLAP
    now = instant(connection)
    visible = _ids(connection, _VISIBLE)
    population = snapshot.population
    gone = np.setdiff1d(population.base.user_ids, visible, assume_unique=True)
    came = visible[population.positions(visible) < 0]
    late = np.union1d(_changed_since(connection, since, snapshot.horizon), came)
    population = with_people(connection, population.remove(gone), late, now.slots).compacted()
    likes = _likes_since(connection, snapshot, since, came).aligned(population.base.user_ids)
    return PopulationSnapshot(population, likes, now.slots, now.at, snapshot.filled_at, now.horizon)


def instant(connection: psycopg.Connection[Any]) -> Instant:
    """Return what the database says of this instant; the connection must not be in a transaction."""
    row = connection.execute(_NOW).fetchone()
    if row is None:
        raise psycopg.DataError("The database did not tell the time.")
    at, horizon, following, slots = row
    return Instant(at, horizon, following, slots or {})


def with_people(
    connection: psycopg.Connection[Any],
    population: Population,
    user_ids: Int64,
    slots: dict[str, int],
    chunk: int = _CHUNK,
) -> Population:
    """Return the population with these people as their rows are now; those hidden or deleted are not in it."""
    shown: list[People] = []
    traits: list[GivenTraits] = []
    for columns in _columns(connection, user_ids, chunk):
        shown.append(_people(columns, slots, population))
        traits.append(GivenTraits.of(columns["user_id"], columns["attributes"], slots))
    people = People.concat(shown)
    gone = np.setdiff1d(user_ids, people.user_ids)
    if len(gone):
        population = population.remove(gone)
    return population.upsert(people, GivenTraits.together(traits))


def _columns(connection: psycopg.Connection[Any], user_ids: Int64, chunk: int) -> Iterator[dict[str, Any]]:
    """Yield the columns of a part of these people, as `profile_vectors` and `attribute_vectors` take them."""
    with take_arrays(connection.cursor(binary=True)) as cursor:
        set_json_loads(from_json, cursor)
        for start in range(0, len(user_ids), chunk):
            found = cursor.execute(_PEOPLE, (user_ids[start : start + chunk],)).fetchone()
            if found is None or found[0] is None:
                continue
            columns = dict(zip((*PROFILE_COLUMNS, "attributes"), found, strict=True))
            columns["birth_date"] = np.array(columns["birth_date"], dtype=np.int64).view("datetime64[D]")
            columns["created_at"] = np.array(columns["created_at"], dtype=np.int64).view("datetime64[us]")
            yield columns


def _people(columns: dict[str, Any], slots: dict[str, int], population: Population) -> People:
    ids = np.array(columns["user_id"], dtype=np.int64)
    fresh = People.build(ids, profile=profile_vectors(columns), attributes=attribute_vectors(columns, slots))
    positions = population.positions(fresh.user_ids)
    known = np.flatnonzero(positions >= 0)
    activity, reciprocity = fresh.activity.copy(), fresh.reciprocity.copy()
    if len(known):
        before = population.rows(positions[known])
        activity[known], reciprocity[known] = before.activity, before.reciprocity
    return replace(fresh, activity=activity, reciprocity=reciprocity)


def _likes_since(
    connection: psycopg.Connection[Any], snapshot: PopulationSnapshot, since: datetime, came: Int64
) -> RecentLikes:
    ids = np.union1d(stored_likes.actors_since(connection, since, snapshot.horizon, MANY_LIKES + 1), came)
    if len(ids) > MANY_LIKES:
        return stored_likes.everybody(connection)
    return snapshot.recent_likes.upsert(stored_likes.of(connection, ids.tolist()))


def _changed_since(connection: psycopg.Connection[Any], since: datetime, horizon: int) -> Int64:
    return _ids(connection, _CHANGED_IDS, {"since": since, "horizon": horizon, "limit": None})


def _ids(connection: psycopg.Connection[Any], query: sql.Composable, parameters: dict[str, Any] | None = None) -> Int64:
    """Return the array that a query gives, ascending; nobody where it gives null."""
    with take_arrays(connection.cursor(binary=True)) as cursor:
        row = cursor.execute(sql.Composed([query]), parameters).fetchone()
    return np.empty(0, np.int64) if row is None or row[0] is None else np.asarray(row[0])
