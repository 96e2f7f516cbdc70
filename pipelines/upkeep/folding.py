"""Fold old rows into daily totals: each batch deletes rows and adds them to their totals in one statement.

So a kill loses nothing and counts nothing twice; whatever is left goes the next time. Another table is one more entry
of `FOLDS`, with a daily table of the same columns. Rows that a running experiment is judged by stay.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from psycopg import Connection, sql


@dataclass(frozen=True)
class Fold:
    """A table, the column of its time, its daily table, and how that one's columns come about from the rows of a day.

    `keys` tell totals apart, `totals` are sums: a day may be folded in several parts.
    """

    table: str
    at: str
    daily: str
    keys: Mapping[str, sql.SQL]
    totals: Mapping[str, sql.SQL]


FOLDS: Final = (
    Fold(
        "impressions",
        "shown_at",
        "impressions_daily",
        {
            "release": sql.SQL("coalesce(release, '')"),
            "variant": sql.SQL("coalesce(variant, '')"),
            "source": sql.SQL("coalesce(source, '')"),
            "level": sql.SQL("coalesce(level, 0)"),
        },
        {"shown": sql.SQL("count(*)")},
    ),
    Fold(
        "answers",
        "answered_at",
        "answers_daily",
        {
            "experiment": sql.SQL("coalesce(experiment, '')"),
            "arm": sql.SQL("arm"),
            "variant": sql.SQL("variant"),
            "release": sql.SQL("coalesce(release, '')"),
            "reason": sql.SQL("coalesce(reason, '')"),
            "level": sql.SQL("level"),
            "cached": sql.SQL("cached"),
            "failed": sql.SQL("failed"),
        },
        {
            "answers": sql.SQL("count(*)"),
            "shown": sql.SQL("sum(shown)"),
            "took_ms": sql.SQL("sum(took_ms::double precision)"),
        },
    ),
)
_EXPERIMENT = "select min(started_at) from duet.experiments where state <> 'off'"
_BATCH = sql.SQL("""
    with gone as (
        delete from {table} where ctid = any (array(
            select ctid from {table} where {at} < %(before)s order by {at} limit %(rows)s))
        returning *),
    folded as (
        insert into {daily} as kept (day, {columns})
        select ({at} at time zone 'UTC')::date, {values} from gone group by {groups}
        on conflict (day, {key_columns}) do update set {added}
        returning 1)
    select (select count(*) from gone), (select count(*) from folded)
""")
_OLDEST = sql.SQL("select min({at}) from {table} where {at} < %(before)s")


def fold_before(connection: Connection[Any], now: datetime, kept: timedelta) -> datetime:
    """Return until when rows are folded: whole days (UTC) older than `kept`, and nothing of a running experiment."""
    row = connection.execute(_EXPERIMENT).fetchone()
    edges: list[datetime] = [now - kept, *([row[0]] if row and row[0] else [])]
    return min(edges).replace(hour=0, minute=0, second=0, microsecond=0)


def oldest_before(connection: Connection[Any], fold: Fold, before: datetime) -> datetime | None:
    """Return the time of the oldest row that is to be folded, None where there is none."""
    statement = _OLDEST.format(at=sql.Identifier(fold.at), table=sql.Identifier("duet", fold.table))
    row = connection.execute(statement, {"before": before}).fetchone()
    found: datetime | None = row[0] if row else None
    return found


def fold_rows(
    connection: Connection[Any],
    fold: Fold,
    before: datetime,
    batch_rows: int,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Fold the rows before an instant, oldest first, and commit each batch; return how many went.

    `progress` is told the rows so far after each batch, and may raise to end early.
    """
    statement, folded = _statement(fold), 0
    connection.commit()  # else a batch would be a savepoint, kept only with the whole
    while True:
        with connection.transaction():
            row = connection.execute(statement, {"before": before, "rows": batch_rows}).fetchone()
        gone = int(row[0]) if row else 0
        if not gone:
            return folded
        folded += gone
        if progress is not None:
            progress(folded)


def _statement(fold: Fold) -> sql.Composed:
    comma = sql.SQL(", ")
    computed = {**fold.keys, **fold.totals}
    return _BATCH.format(
        table=sql.Identifier("duet", fold.table),
        daily=sql.Identifier("duet", fold.daily),
        at=sql.Identifier(fold.at),
        columns=comma.join(map(sql.Identifier, computed)),
        values=comma.join(computed.values()),
        groups=comma.join(map(sql.SQL, map(str, range(1, 2 + len(fold.keys))))),
        key_columns=comma.join(map(sql.Identifier, fold.keys)),
        added=comma.join(sql.SQL("{0} = kept.{0} + excluded.{0}").format(sql.Identifier(name)) for name in fold.totals),
    )
