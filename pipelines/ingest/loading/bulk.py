"""Load rows that are valid by construction into an empty `duet.interactions` as fast as Postgres takes them.

Binary COPY built by numpy, with the table's indexes and keys taken down and put back in the same transaction: checking
two foreign keys and five indexes row by row costs ten times more than rebuilding them. A kill rolls all of it back.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from feature_repo.kinds import KINDS
from pipelines.ingest.world.meetings import EventColumns, mix

_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TRAILER = struct.pack(">h", -1)
_POSTGRES_EPOCH_S = 946_684_800
_COPY = "COPY duet.interactions (event_id, actor_id, target_id, kind, occurred_at) FROM STDIN (FORMAT binary)"


@contextmanager
def without_indexes(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Take down the keys and indexes of `duet.interactions` for the length of the block, inside the transaction."""
    constraints = connection.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conrelid = 'duet.interactions'::regclass AND contype IN ('p', 'f', 'u') ORDER BY contype DESC"
    ).fetchall()
    indexes = connection.execute(
        "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index AS i "
        "WHERE i.indrelid = 'duet.interactions'::regclass AND NOT EXISTS "
        "(SELECT FROM pg_constraint AS c WHERE c.conindid = i.indexrelid AND c.contype IN ('p', 'u'))"
    ).fetchall()
    table = sql.Identifier("duet", "interactions")
    for name, _ in constraints:
        connection.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, sql.Identifier(name)))
    for name, _ in indexes:
        connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(*name.replace('"', "").split("."))))
    yield
    connection.execute("SET LOCAL maintenance_work_mem = '512MB'")
    for name, definition in constraints:
        # The catalogue's own text of the definition: nothing a person typed.
        connection.execute(
            sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(table, sql.Identifier(name), sql.SQL(definition))
        )
    for _, definition in indexes:
        connection.execute(sql.SQL(definition))


def copy_events(connection: psycopg.Connection[Any], events: EventColumns, *, seed: int, first: int) -> None:
    """COPY one chunk; the event ids follow from the world's seed and the place `first` of the chunk's first event."""
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.write(_HEADER)
        ids = _event_ids(len(events), seed, first)
        for code, kind in enumerate(KINDS):
            rows = np.flatnonzero(events.kind == code)
            if len(rows):
                copy.write(_packed(events, ids, rows, kind))
        copy.write(_TRAILER)


def _packed(events: EventColumns, ids: NDArray[np.uint8], rows: NDArray[np.int64], kind: str) -> bytes:
    record = np.empty(
        len(rows),
        dtype=[
            ("n_fields", ">i2"),
            ("id_length", ">i4"),
            ("id", "u1", 16),
            ("actor_length", ">i4"),
            ("actor", ">i8"),
            ("target_length", ">i4"),
            ("target", ">i8"),
            ("kind_length", ">i4"),
            ("kind", f"S{len(kind)}"),
            ("at_length", ">i4"),
            ("at", ">i8"),
        ],
    )
    record["n_fields"] = 5
    record["id_length"], record["id"] = 16, ids[rows]
    record["actor_length"], record["actor"] = 8, events.actor[rows] + 1
    record["target_length"], record["target"] = 8, events.target[rows] + 1
    record["kind_length"], record["kind"] = len(kind), kind.encode()
    record["at_length"], record["at"] = 8, (events.at_s[rows] - _POSTGRES_EPOCH_S) * 1_000_000
    return record.tobytes()


def _event_ids(n_events: int, seed: int, first: int) -> NDArray[np.uint8]:
    """Return uint8[n, 16]: version 8 (vendor defined) UUIDs that depend only on the seed and the event's place."""
    place = np.arange(first, first + n_events, dtype=np.uint64)
    salt = mix(np.array([seed], dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15))
    words = np.stack([mix(place ^ salt), mix(mix(place + salt) ^ np.uint64(0x94D049BB133111EB))], axis=1)
    raw = words.astype(">u8").view(np.uint8).reshape(n_events, 16).copy()
    raw[:, 6] = (raw[:, 6] & 0x0F) | 0x80
    raw[:, 8] = (raw[:, 8] & 0x3F) | 0x80
    return raw
