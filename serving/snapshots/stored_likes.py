"""Reads each person's latest likes from Postgres: of everybody in one stream, or of those whose likes changed since.

The table is read in ranges of its pages, and what was read is sorted and cut in blocks: memory is bounded by the people
and not by the likes.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from feature_repo.kinds import LIKES, UNDOS, Kind, listed
from infra.db.array_columns import take_arrays
from infra.db.horizon import LATEST, unseen
from registry.scoring.recent_likes import KEPT, RecentLikes

Int64 = NDArray[np.int64]
BLOCK_LIKES: Final = 4_000_000

_PAGES: Final = 1024

# The kinds are written out, so that the partial indexes on new likes and on answers can be used.
_ALL = sql.SQL("""
    SELECT block.* FROM generate_series(
        0, pg_relation_size('duet.interactions') / current_setting('block_size')::bigint, %(pages)s
    ) AS page, LATERAL (
        SELECT array_agg(actor_id) AS actors, array_agg(target_id), array_agg(occurred_at) FROM duet.interactions
        WHERE ctid >= ('(' || page || ',0)')::tid AND ctid < ('(' || page + %(pages)s || ',0)')::tid
          AND kind IN ({likes})
    ) AS block WHERE actors IS NOT NULL
""").format(likes=listed(LIKES))
# What was taken back has an index of its own, and the one on times finds the newest of it where there is much.
ACTORS: Final = sql.SQL("""
    SELECT person, max(recorded_at) FROM (
        SELECT actor_id AS person, recorded_at FROM duet.interactions, {latest}
        WHERE recorded_at > %(since)s AND {new} AND kind IN ({likes})
        UNION ALL
        SELECT unnest(CASE kind WHEN {unblock} THEN ARRAY[actor_id, target_id] ELSE ARRAY[actor_id] END), recorded_at
        FROM duet.interactions, {latest} WHERE recorded_at > %(since)s AND {new} AND kind IN ({undos})
    ) AS acted GROUP BY person LIMIT %(limit)s
""").format(
    latest=LATEST,
    new=unseen("interactions"),
    likes=listed(LIKES),
    undos=listed(UNDOS),
    unblock=listed([Kind.UNBLOCK]),
)
"""Whose likes changed after `since`, unseen by a look with `horizon`, and when last; at most `limit` people."""
_LATEST = sql.SQL("""
    SELECT actor_id, ARRAY(
        SELECT target_id FROM duet.interactions i WHERE i.actor_id = asked.actor_id AND kind IN ({likes})
          AND target_id NOT IN (SELECT other FROM duet.undone(asked.actor_id) WHERE NOT likes)
        ORDER BY occurred_at DESC, target_id LIMIT %s
    ) FROM unnest(%s::bigint[]) AS asked (actor_id) ORDER BY actor_id
""").format(likes=listed(LIKES))
# Whose likes of whom ended with what somebody took back.
_UNDONE = sql.SQL("""
    SELECT array_agg(pair.person), array_agg(pair.other) FROM (
        SELECT actor_id AS person, target_id AS other FROM duet.interactions WHERE kind IN ({undos})
        UNION SELECT target_id, actor_id FROM duet.interactions WHERE kind IN ({unblock})
    ) AS pair, duet.pair_state(pair.person, pair.other, 'infinity') AS state WHERE state.liked_at IS NULL
""").format(undos=listed(UNDOS), unblock=listed([Kind.UNBLOCK]))


def everybody(
    connection: psycopg.Connection[Any], *, block_likes: int = BLOCK_LIKES, pages: int = _PAGES
) -> RecentLikes:
    """Read the latest likes of everybody who ever liked somebody, in one pass over the table, `pages` at a time."""
    kept = (np.empty(0, np.int64),) * 3
    with take_arrays(connection.cursor(binary=True)) as cursor:
        undone = _undone(cursor)
        undoers = np.array([person for person, _ in undone], dtype=np.int64)
        for found in _blocks(cursor, block_likes, pages):
            block = _without(undone, undoers, found)
            kept = _latest(*(np.concatenate(pair) for pair in zip(kept, block, strict=True)))
    actors, targets, _ = kept
    user_ids, first = np.unique(actors, return_index=True)
    table = np.full((len(user_ids), KEPT), -1, dtype=np.int64)
    lengths = np.diff(np.append(first, len(actors)))
    rows = np.repeat(np.arange(len(user_ids)), lengths)
    table[rows, np.arange(len(actors)) - np.repeat(first, lengths)] = targets
    return RecentLikes(user_ids, table)


def actors_since(connection: psycopg.Connection[Any], since: datetime, horizon: int, limit: int) -> Int64:
    """Return up to `limit` people whose likes changed, as recorded after `since`, unseen by a look with `horizon`."""
    with connection.cursor(binary=True) as cursor:
        rows = cursor.execute(ACTORS, {"since": since, "horizon": horizon, "limit": limit}).fetchall()
    return np.array([actor for actor, _ in rows], dtype=np.int64)


def of(connection: psycopg.Connection[Any], user_ids: Sequence[int], step: int = 5_000) -> RecentLikes:
    """Read the latest likes of these people, `step` at a time; those without any are in the answer too."""
    found: list[tuple[int, Sequence[int]]] = []
    with connection.cursor(binary=True) as cursor:
        for start in range(0, len(user_ids), step):
            found += cursor.execute(_LATEST, (KEPT, list(user_ids[start : start + step]))).fetchall()
    return RecentLikes.build(sorted(found))


def _blocks(cursor: psycopg.Cursor[Any], block_likes: int, pages: int) -> Iterator[tuple[Int64, Int64, Int64]]:
    parts: list[tuple[Int64, Int64, Int64]] = []
    n = 0
    for part in cursor.stream(_ALL, {"pages": pages}):
        parts.append(part)
        n += len(part[0])
        if n >= block_likes:
            yield tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore[misc]
            parts, n = [], 0
    if parts:
        yield tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore[misc]


def _undone(cursor: psycopg.Cursor[Any]) -> set[tuple[int, int]]:
    """Return who liked whom and does no more, because of what was taken back."""
    row = cursor.execute(_UNDONE).fetchone()
    return set() if row is None or row[0] is None else set(zip(*(column.tolist() for column in row), strict=True))


def _without(
    undone: set[tuple[int, int]], undoers: Int64, block: tuple[Int64, Int64, Int64]
) -> tuple[Int64, Int64, Int64]:
    """Return the likes of a block but for those that are `undone`, all of them by `undoers`."""
    actors, targets, _ = block
    doubtful = np.flatnonzero(np.isin(actors, undoers))  # few people take anything back
    gone = [pair in undone for pair in zip(actors[doubtful].tolist(), targets[doubtful].tolist(), strict=True)]
    kept = np.ones(len(actors), dtype=np.bool_)
    kept[doubtful] = ~np.array(gone, dtype=np.bool_)
    return tuple(column[kept] for column in block)  # type: ignore[return-value]


def _latest(actors: Int64, targets: Int64, at: Int64) -> tuple[Int64, Int64, Int64]:
    """Keep the latest KEPT likes of each actor, sorted by actor, latest first, ties by target."""
    order = np.lexsort((targets, -at, actors))
    actors = actors[order]
    first = np.flatnonzero(np.append(True, actors[1:] != actors[:-1])) if len(actors) else np.empty(0, np.int64)
    place = np.arange(len(actors)) - np.repeat(first, np.diff(np.append(first, len(actors))))
    kept = order[place < KEPT]
    return actors[place < KEPT], targets[kept], at[kept]
