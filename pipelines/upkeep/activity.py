"""The figures of the marketplace on one day (UTC): who was active, what they decided, who matched, who was shown.

A day computed again replaces its row. Once its impressions are folded into totals, how they were spread over people
can no longer be computed: what was computed before stays.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

import numpy as np
from psycopg import Connection, sql
from psycopg.rows import class_row

from feature_repo.kinds import LIKES, Kind, listed
from pipelines.metrics import gini

_DECISIONS: Final = sql.SQL("""
    select count(distinct actor_id), count(*) filter (where kind in ({likes})),
           count(*) filter (where kind in ({passes})), count(*) filter (where kind in ({messages}))
      from duet.interactions where occurred_at >= %(since)s and occurred_at < %(until)s
""").format(likes=listed(LIKES), passes=listed([Kind.PASS]), messages=listed([Kind.MESSAGE]))
# Who are a match at the end of the day and were none before it: a like of this day made it, and the other's likes of
# any time are looked up first, because most are not returned.
_MATCHES: Final = sql.SQL("""
    with likes as materialized (
        select distinct least(actor_id, target_id) as one, greatest(actor_id, target_id) as other
          from duet.interactions as mine
         where kind in ({likes}) and occurred_at >= %(since)s and occurred_at < %(until)s
           and exists (select from duet.interactions as theirs
                        where theirs.actor_id = mine.target_id and theirs.target_id = mine.actor_id
                          and theirs.kind in ({likes}) and theirs.occurred_at < %(until)s)
    )
    select count(*) from likes, duet.pair_state(one, other, %(until)s - interval '1 microsecond') as pair
     where pair.matched_at >= %(since)s
""").format(likes=listed(LIKES))
_EXPOSURE: Final = """
    select count(*) from duet.impressions where shown_at >= %(since)s and shown_at < %(until)s group by target_id
"""
_FOLDED: Final = "select coalesce(sum(shown), 0)::bigint from duet.impressions_daily where day = %(day)s"
_STORE: Final = """
    insert into duet.activity_daily as kept
        (day, people_active, likes, passes, messages, matches, shown, people_shown, exposure_gini)
    values (%(day)s, %(people_active)s, %(likes)s, %(passes)s, %(messages)s, %(matches)s, %(shown)s, %(people_shown)s,
            %(exposure_gini)s)
    on conflict (day) do update set
        people_active = excluded.people_active, likes = excluded.likes, passes = excluded.passes,
        messages = excluded.messages, matches = excluded.matches, shown = excluded.shown,
        people_shown = coalesce(excluded.people_shown, kept.people_shown),
        exposure_gini = coalesce(excluded.exposure_gini, kept.exposure_gini), computed_at = clock_timestamp()
"""
_COLUMNS: Final = "day, people_active, likes, passes, messages, matches, shown, people_shown, exposure_gini"
_BETWEEN: Final = f"select {_COLUMNS} from duet.activity_daily where day between %s and %s order by day"  # noqa: S608


@dataclass(frozen=True)
class DailyActivity:
    """The figures of one day; how exposure was spread is None where its impressions are folded already."""

    day: date
    people_active: int
    likes: int
    passes: int
    messages: int
    matches: int
    shown: int
    people_shown: int | None
    exposure_gini: float | None


def measure_day(connection: Connection[Any], day: date) -> DailyActivity:
    """Compute the figures of a day from the rows of that day and the totals of what was folded."""
    since = datetime.combine(day, time(), UTC)
    asked = {"since": since, "until": since + timedelta(days=1), "day": day}
    ((active, likes, passes, messages),) = connection.execute(_DECISIONS, asked).fetchall()
    ((matches,),) = connection.execute(_MATCHES, asked).fetchall()
    exposure = np.array([row[0] for row in connection.execute(_EXPOSURE, asked)], dtype=np.float64)
    ((folded,),) = connection.execute(_FOLDED, asked).fetchall()
    spread = (None, None) if folded else (exposure.size, gini(exposure) if exposure.size else None)
    return DailyActivity(day, active, likes, passes, messages, matches, folded + int(exposure.sum()), *spread)


def store_day(connection: Connection[Any], day: date) -> DailyActivity:
    """Compute a day and replace its row; both see the same instant of the database."""
    connection.commit()
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read")
        figures = measure_day(connection, day)
        connection.execute(_STORE, figures.__dict__)
    return figures


def last_stored_day(connection: Connection[Any]) -> date | None:
    """Return the latest day that was computed, None where none was."""
    row = connection.execute("select max(day) from duet.activity_daily").fetchone()
    found: date | None = row[0] if row else None
    return found


def stored_days(connection: Connection[Any], first: date, last: date) -> list[DailyActivity]:
    """Return the stored days between two days, both included, in order."""
    with connection.cursor(row_factory=class_row(DailyActivity)) as cursor:
        return cursor.execute(_BETWEEN, (first, last)).fetchall()
