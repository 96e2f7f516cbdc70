"""What each serving worker says of itself, in Postgres: so that everybody who asks knows of all machines.

A worker writes its row whenever something changes and every `EVERY_S`; a row that is older than `STALE_S` belongs to a
worker that ended or cannot reach Postgres.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import class_row

EVERY_S: Final = 5.0
STALE_S: Final = 15.0
FORGOTTEN_S: Final = 3_600.0

REPORT: Final = sql.SQL(
    "insert into duet.serving_workers"
    " (worker_id, host, pid, release, refused, challenger, challenger_refused, pin_id, copies,"
    "  people_read_at, mark, challenger_mark)"
    " values (%(worker_id)s, %(host)s, %(pid)s, %(release)s, %(refused)s, %(challenger)s, %(challenger_refused)s,"
    "         %(pin_id)s, %(copies)s, %(people_read_at)s, %(mark)s, %(challenger_mark)s)"
    " on conflict (worker_id) do update set release = excluded.release, refused = excluded.refused,"
    "  challenger = excluded.challenger, challenger_refused = excluded.challenger_refused,"
    "  pin_id = excluded.pin_id, copies = excluded.copies, people_read_at = excluded.people_read_at,"
    "  mark = excluded.mark, challenger_mark = excluded.challenger_mark, seen_at = clock_timestamp()"
)
LEAVE: Final = sql.SQL("delete from duet.serving_workers where worker_id = %(worker_id)s")
FORGET: Final = sql.SQL(
    "delete from duet.serving_workers where seen_at < clock_timestamp() - make_interval(secs => %s)"
)


@dataclass(frozen=True)
class Worker:
    """One serving process: what it serves, and why what it should serve is not that; `age_s` since it said so.

    A mark tells the bytes of a release (see `mark_of`): None where nothing serves, and from workers that do not say it.
    """

    host: str
    pid: int
    release: str | None
    refused: str | None
    challenger: str | None
    challenger_refused: str | None
    pin_id: int | None
    copies: list[str]
    seen_at: datetime
    age_s: float
    mark: str | None
    challenger_mark: str | None

    @property
    def name(self) -> str:
        """Return `host:pid`."""
        return f"{self.host}:{self.pid}"


def live_workers(connection: psycopg.Connection[Any]) -> list[Worker]:
    """Return the workers that are there, by host and pid."""
    with connection.transaction(), connection.cursor(row_factory=class_row(Worker)) as cursor:
        return cursor.execute(
            "select host, pid, release, refused, challenger, challenger_refused, pin_id, copies, seen_at,"
            "       extract(epoch from clock_timestamp() - seen_at)::float8 as age_s,"
            "       mark, challenger_mark"
            "  from duet.serving_workers where seen_at > clock_timestamp() - make_interval(secs => %s)"
            " order by host, pid",
            (STALE_S,),
        ).fetchall()
