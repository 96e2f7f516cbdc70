"""Stage, check and merge rows inside one transaction: COPY into temporary tables, then set-based upserts.

A kill at any moment leaves nothing half: the caller's transaction holds everything until its commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from feature_repo.contract.faults import DUPLICATE, UNKNOWN
from pipelines.ingest.loading.bulk import without_indexes
from pipelines.ingest.loading.copying import copy_table
from pipelines.ingest.loading.report import Counts

_PEOPLE = sql.Identifier("staged_people")
_INTERACTIONS = sql.Identifier("staged_interactions")
_N_SLOTS = 24
# From here on, rebuilding the indexes of an empty table is cheaper than filling them row by row.
BULK_ROWS = 100_000


def begin(connection: psycopg.Connection[Any]) -> None:
    """Prepare the open transaction: one import at a time, no statement limit, empty staging tables."""
    connection.execute("SET LOCAL statement_timeout = 0")
    connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('duet.import'))")
    connection.execute(
        "CREATE TEMPORARY TABLE staged_people ON COMMIT DROP AS "
        "SELECT user_id, birth_date, gender, seeking, age_min, age_max, latitude, longitude, max_distance_km, "
        "interests, bio, created_at, last_active_at, visible, attributes, 0::bigint AS line "
        "FROM duet.users WITH NO DATA"
    )
    connection.execute(
        "CREATE TEMPORARY TABLE staged_interactions ON COMMIT DROP AS "
        "SELECT event_id, actor_id, target_id, kind, occurred_at, 0::bigint AS line "
        "FROM duet.interactions WITH NO DATA"
    )
    connection.execute("CREATE TEMPORARY TABLE staged_faults (line bigint, reason text, content jsonb) ON COMMIT DROP")


def stage_people(connection: psycopg.Connection[Any], table: Any) -> None:
    """COPY cleaned people into staging."""
    copy_table(connection, _PEOPLE, table)


def stage_interactions(connection: psycopg.Connection[Any], table: Any) -> None:
    """COPY cleaned interactions into staging."""
    copy_table(connection, _INTERACTIONS, table)


def _drop_repeated(connection: psycopg.Connection[Any], table: sql.Identifier, key: str) -> None:
    """Move all but the first row of each key to `staged_faults`."""
    connection.execute(
        sql.SQL(
            "WITH ranked AS (SELECT ctid AS place, row_number() OVER (PARTITION BY {key} ORDER BY line) AS n "
            "FROM {table}), "
            "gone AS (DELETE FROM {table} AS s USING ranked WHERE s.ctid = ranked.place AND ranked.n > 1 "
            "RETURNING s.line, to_jsonb(s) - 'line' AS content) "
            "INSERT INTO staged_faults SELECT line, {reason}, content FROM gone"
        ).format(table=table, key=sql.Identifier(key), reason=sql.Literal(f"{DUPLICATE}: {key}"))
    )


def merge_people(connection: psycopg.Connection[Any], columns: Sequence[str], now: datetime, counts: Counts) -> None:
    """Upsert the staged people; only the named columns of an existing person change, attributes are merged.

    Args:
        connection: inside the transaction that `begin` prepared.
        columns: the contract columns that the file has, `user_id` and `attributes` among them.
        now: what `created_at` is for a new person without one, and `updated_at` for a changed one.
        counts: receives new, updated and unchanged; the repeated rows wait in `staged_faults`.
    """
    connection.execute("ANALYZE staged_people")
    _drop_repeated(connection, _PEOPLE, "user_id")
    plain = [name for name in columns if name not in {"user_id", "attributes", "last_active_at", "line"}]
    kept = {name: sql.SQL("u.{0} IS DISTINCT FROM excluded.{0}").format(sql.Identifier(name)) for name in plain}
    sets: list[sql.Composable] = [sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in plain]
    changes: list[sql.Composable] = [
        *kept.values(),
        sql.SQL("u.attributes IS DISTINCT FROM u.attributes || excluded.attributes"),
    ]
    if "last_active_at" in columns:
        # Activity never moves back: interactions may have told of a later moment than the file.
        sets.append(sql.SQL("last_active_at = greatest(u.last_active_at, excluded.last_active_at)"))
        changes.append(sql.SQL("excluded.last_active_at > coalesce(u.last_active_at, '-infinity')"))
    inserted = [name for name in columns if name not in {"created_at", "line"}]
    values = [sql.SQL("s.{}").format(sql.Identifier(name)) for name in inserted]
    row = connection.execute(
        sql.SQL(
            "WITH merged AS (INSERT INTO duet.users AS u ({names}, created_at, updated_at) "
            "SELECT {values}, coalesce(s.created_at, old.created_at, %(now)s), %(now)s "
            "FROM staged_people AS s LEFT JOIN duet.users AS old ON old.user_id = s.user_id ORDER BY s.user_id "
            "ON CONFLICT (user_id) DO UPDATE SET {sets}, attributes = u.attributes || excluded.attributes, "
            "updated_at = excluded.updated_at WHERE {changes} RETURNING (xmax = 0) AS is_new) "
            "SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new), "
            "(SELECT count(*) FROM staged_people) FROM merged"
        ).format(
            names=sql.SQL(", ").join(map(sql.Identifier, inserted)),
            values=sql.SQL(", ").join(values),
            sets=sql.SQL(", ").join(sets or [sql.SQL("user_id = excluded.user_id")]),
            changes=sql.SQL(" OR ").join(changes),
        ),
        {"now": now},
    ).fetchone()
    counts.new, counts.updated, staged = row if row is not None else (0, 0, 0)
    counts.unchanged = staged - counts.new - counts.updated


def largest_id(connection: psycopg.Connection[Any]) -> int:
    """Return the largest id among the staged people, 0 without any."""
    row = connection.execute("SELECT max(user_id) FROM staged_people").fetchone()
    return 0 if row is None or row[0] is None else int(row[0])


def merge_interactions(connection: psycopg.Connection[Any], counts: Counts) -> None:
    """Insert the staged interactions that are new; unknown people and repeated ids wait in `staged_faults`."""
    connection.execute("ANALYZE staged_interactions")
    for column in ("actor_id", "target_id"):
        connection.execute(
            sql.SQL(
                "WITH gone AS (DELETE FROM staged_interactions AS s WHERE NOT EXISTS "
                "(SELECT FROM duet.users AS u WHERE u.user_id = s.{column}) "
                "RETURNING s.line, to_jsonb(s) - 'line' AS content) "
                "INSERT INTO staged_faults SELECT line, {reason}, content FROM gone"
            ).format(column=sql.Identifier(column), reason=sql.Literal(f"{UNKNOWN}: {column}"))
        )
    _drop_repeated(connection, _INTERACTIONS, "event_id")
    row = connection.execute("SELECT count(*) FROM staged_interactions").fetchone()
    staged = row[0] if row is not None else 0
    insert = sql.SQL(
        "INSERT INTO duet.interactions (event_id, actor_id, target_id, kind, occurred_at) "
        "SELECT event_id, actor_id, target_id, kind, occurred_at FROM staged_interactions ORDER BY occurred_at {}"
    )
    is_empty = connection.execute("SELECT NOT EXISTS (SELECT FROM duet.interactions)").fetchone() == (True,)
    if is_empty and staged >= BULK_ROWS:
        with without_indexes(connection):
            counts.new = connection.execute(insert.format(sql.SQL(""))).rowcount
    else:
        counts.new = connection.execute(insert.format(sql.SQL("ON CONFLICT (event_id) DO NOTHING"))).rowcount
    counts.unchanged = staged - counts.new
    _follow_activity(connection)


def _follow_activity(connection: psycopg.Connection[Any]) -> None:
    """Let people be there since their first interaction and active until their last own one."""
    connection.execute(
        "WITH seen AS ("
        "SELECT user_id, min(occurred_at) AS first_at, max(occurred_at) FILTER (WHERE is_own) AS last_at FROM ("
        "SELECT actor_id AS user_id, occurred_at, true AS is_own FROM staged_interactions UNION ALL "
        "SELECT target_id, occurred_at, false FROM staged_interactions) AS both_sides GROUP BY user_id) "
        "UPDATE duet.users AS u SET created_at = least(u.created_at, seen.first_at), "
        "last_active_at = greatest(u.last_active_at, seen.last_at) FROM seen WHERE u.user_id = seen.user_id "
        "AND (seen.first_at < u.created_at OR seen.last_at > coalesce(u.last_active_at, '-infinity'))"
    )


def claim_slots(connection: psycopg.Connection[Any], names: Sequence[str]) -> list[str]:
    """Give each numeric attribute one of the 24 feature slots, first come first served; return those left without."""
    taken: dict[str, int] = dict(connection.execute("SELECT name, slot FROM duet.attribute_slots").fetchall())
    free = [slot for slot in range(_N_SLOTS) if slot not in set(taken.values())]
    wanted = [name for name in names if name not in taken]
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO duet.attribute_slots (name, slot) VALUES (%s, %s)", list(zip(wanted, free, strict=False))
        )
    return wanted[len(free) :]
