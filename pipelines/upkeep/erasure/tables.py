"""The tables of Postgres: rows that name a person by number, and refused rows of imports that hold one of their ids."""

from typing import Final

from psycopg import sql

from infra.db.personal_data import PersonalTable
from pipelines.upkeep.erasure.found import LATE_ROWS, Gone, PlaceFound

_LEFT: Final = sql.SQL("select count(*) from {table} where {mine} and {at} <= %(until)s")
_GONE: Final = sql.SQL("delete from {table} where {mine} and {at} <= %(until)s")
# A value of a row as it was read: a text, or a number.
_QUARANTINED: Final = """
from duet.quarantine q where at <= %(until)s and exists (
    select from jsonb_each_text(case jsonb_typeof("row") when 'object' then "row" else '{}' end) as told
     where lower(told.value) = any(%(texts)s))
"""


def erase_table(gone: Gone, table: PersonalTable) -> PlaceFound:
    """Delete the rows of a table that name the person and are not about somebody who came back."""
    mine = sql.SQL(" or ").join(sql.SQL("{} = %(user_id)s").format(sql.Identifier(name)) for name in table.columns)
    parts = {
        "table": sql.Identifier(table.schema, table.name),
        "mine": sql.SQL("({})").format(mine),
        "at": sql.Identifier(table.at),
    }
    values = {"user_id": gone.user_id, "until": gone.since + LATE_ROWS}
    deleted = gone.connection.execute(_GONE.format(**parts), values).rowcount
    row = gone.connection.execute(_LEFT.format(**parts), values).fetchone()
    return PlaceFound(deleted, row[0] if row else 0)


def erase_quarantine(gone: Gone) -> PlaceFound:
    """Delete refused rows of imports in which a value is one of the person's ids."""
    values = {"texts": [text.lower() for text in gone.erasure.known_as], "until": gone.since + LATE_ROWS}
    deleted = gone.connection.execute("delete " + _QUARANTINED, values).rowcount
    row = gone.connection.execute("select count(*) " + _QUARANTINED, values).fetchone()
    return PlaceFound(deleted, row[0] if row else 0)
