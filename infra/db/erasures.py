"""Erasures as Postgres keeps them: begun once, carried on by whoever comes next, and told by a salted hash."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

BEGIN: Final = "select duet.begin_erasure(%s, %s, %s, %s, %s)"
ERASE_ROWS: Final = "select duet.erase_rows(%s)"
REPORT: Final = "select duet.erasure_report(%s)"
_OPEN: Final = """
select erasure_id, user_id, known_as, known_from, requested_at, rows_erased_at, places, models
  from duet.erasures where finished_at is null
"""


@dataclass(frozen=True)
class OpenErasure:
    """An erasure that is not finished: whom it looks for, since when they were known, and what was found so far."""

    erasure_id: int
    user_id: int
    known_as: list[str]
    known_from: datetime | None
    requested_at: datetime
    rows_erased_at: datetime | None
    places: dict[str, dict[str, Any]]
    models: list[dict[str, Any]]


def hashes(texts: Iterable[str], name_person: Callable[[object], str]) -> list[str]:
    """Return the salted hashes of everything that a person is known by."""
    return [name_person(text) for text in dict.fromkeys(texts)]


def begin(
    connection: psycopg.Connection[Any],
    user_id: int,
    texts: list[str],
    name_person: Callable[[object], str],
    *,
    way: str,
    actor: str,
) -> int | None:
    """Hide a person and note that they are to be erased; return the erasure's number, None where nobody has the id."""
    row = connection.execute(BEGIN, (user_id, texts, hashes(texts, name_person), way, actor)).fetchone()
    return None if row is None else row[0]


def erase_rows(connection: psycopg.Connection[Any], erasure_id: int) -> None:
    """Delete the person of an erasure and all interactions of theirs or about them, where that is still to be done."""
    connection.execute(ERASE_ROWS, (erasure_id,))


def report(connection: psycopg.Connection[Any], person: str) -> dict[str, Any] | None:
    """Return the newest erasure of whoever has this hash, None where there was none."""
    row = connection.execute(REPORT, (person,)).fetchone()
    return None if row is None else row[0]


def open_erasures(connection: psycopg.Connection[Any], *, due_at: datetime | None = None) -> list[OpenErasure]:
    """Return the erasures that are not finished, oldest first; with `due_at` only those to be looked at by then."""
    due = sql.SQL(" and coalesce(look_again_at, '-infinity') <= %(due_at)s" if due_at is not None else "")
    with connection.cursor(row_factory=class_row(OpenErasure)) as cursor:
        statement = sql.SQL("{}{} order by erasure_id").format(sql.SQL(_OPEN), due)
        return cursor.execute(statement, {"due_at": due_at}).fetchall()


def keep(
    connection: psycopg.Connection[Any],
    erasure_id: int,
    places: dict[str, dict[str, Any]],
    models: list[dict[str, Any]],
    *,
    look_again_at: datetime | None,
) -> None:
    """Keep what was found; without `look_again_at` the erasure is finished, and only hashes of the person are left."""
    connection.execute(
        "update duet.erasures set places = %(places)s, models = %(models)s, look_again_at = %(again)s"
        " where erasure_id = %(id)s",
        {"id": erasure_id, "places": Jsonb(places), "models": Jsonb(models), "again": look_again_at},
    )
    if look_again_at is None:
        connection.execute(
            "update duet.erasures set finished_at = clock_timestamp(), user_id = null, known_as = null,"
            " known_from = null where erasure_id = %s and rows_erased_at is not null",
            (erasure_id,),
        )
