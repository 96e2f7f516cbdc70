"""The table of API keys in Postgres, for the command line and for the service."""

from datetime import datetime
from typing import Any, Literal, NamedTuple

import psycopg
from psycopg import sql

from serving.access.keys import Key, new_key
from serving.errors import AmbiguousKey, KeyNameTaken, NoSuchKey

ACTIVE = sql.SQL(
    "select key_id, name, secret_sha256, requests_per_minute, tester from duet.api_keys where revoked_at is null"
)
_INSERT = sql.SQL(
    "insert into duet.api_keys (key_id, name, secret_sha256, requests_per_minute, tester) values (%s, %s, %s, %s, %s)"
)
_IS_ID = sql.SQL("select from duet.api_keys where key_id = %s")
_LIST = sql.SQL(
    "select key_id, name, requests_per_minute, tester, created_at, revoked_at from duet.api_keys"
    " order by created_at, key_id"
)
_MEANT = {
    "id": sql.SQL("key_id = %(key)s"),
    "name": sql.SQL("name = %(key)s"),
    None: sql.SQL("(key_id = %(key)s or name = %(key)s)"),
}
_REVOKE = sql.SQL(
    "with meant as (select key_id from duet.api_keys where {meant}), ended as ("
    " update duet.api_keys set revoked_at = coalesce(revoked_at, now())"
    " where key_id in (select key_id from meant) and (select count(*) from meant) = 1)"
    " select count(*) from meant"
)


class ListedKey(NamedTuple):
    """What may be shown of a key."""

    key_id: str
    name: str
    requests_per_minute: int | None
    tester: bool
    created_at: datetime
    revoked_at: datetime | None


def create_key(
    connection: psycopg.Connection[Any], name: str, *, requests_per_minute: int | None = None, tester: bool = False
) -> str:
    """Store a new key and return it whole: the only time that anybody sees it; raises KeyNameTaken."""
    key_id, key, secret_sha256 = new_key()
    if connection.execute(_IS_ID, (name,)).fetchone() is not None:
        raise KeyNameTaken(f"`{name}` is the id of a key: choose another name.")
    try:
        with connection.transaction():
            connection.execute(_INSERT, (key_id, name, secret_sha256, requests_per_minute, tester))
    except psycopg.errors.UniqueViolation:
        raise KeyNameTaken(
            f"A key is named `{name}` already: choose another name; names of revoked keys stay taken."
        ) from None
    return key


def list_keys(connection: psycopg.Connection[Any]) -> list[ListedKey]:
    """Return every key, the revoked ones among them, oldest first."""
    return [ListedKey(*row) for row in connection.execute(_LIST).fetchall()]


def revoke_key(connection: psycopg.Connection[Any], key: str, by: Literal["id", "name"] | None = None) -> None:
    """Revoke one key for good, by id, by name or by whichever it is; raises NoSuchKey and AmbiguousKey."""
    row = connection.execute(_REVOKE.format(meant=_MEANT[by]), {"key": key}).fetchone()
    found = row[0] if row else 0
    if found == 0:
        raise NoSuchKey(f"No key has the {by or 'id or the name'} `{key}`: `duet keys list` shows them.")
    if found > 1:
        raise AmbiguousKey(f"`{key}` is the id of one key and the name of another: say `--by id` or `--by name`.")


def active_keys(rows: list[tuple[Any, ...]]) -> list[Key]:
    """Turn rows of `ACTIVE` into keys."""
    return [
        Key(key_id, name, bytes(secret_sha256), requests_per_minute, tester)
        for key_id, name, secret_sha256, requests_per_minute, tester in rows
    ]
