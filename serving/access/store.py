"""The table of API keys in Postgres, for the command line and for the service."""

from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from serving.access.keys import Key, new_key
from serving.errors import KeyNameTaken, NoSuchKey

ACTIVE = sql.SQL(
    "select key_id, name, secret_sha256, requests_per_minute, tester from duet.api_keys where revoked_at is null"
)
_INSERT = sql.SQL(
    "insert into duet.api_keys (key_id, name, secret_sha256, requests_per_minute, tester) values (%s, %s, %s, %s, %s)"
)
_LIST = sql.SQL(
    "select key_id, name, requests_per_minute, tester, created_at, revoked_at from duet.api_keys"
    " order by created_at, key_id"
)
_REVOKE = sql.SQL(
    "update duet.api_keys set revoked_at = coalesce(revoked_at, now()) where key_id = %(key)s or name = %(key)s"
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


def revoke_key(connection: psycopg.Connection[Any], key: str) -> None:
    """Revoke a key, by id or by name, for good; raises NoSuchKey."""
    if connection.execute(_REVOKE, {"key": key}).rowcount == 0:
        raise NoSuchKey(f"No key has the id or the name `{key}`: `duet keys list` shows them.")


def active_keys(rows: list[tuple[Any, ...]]) -> list[Key]:
    """Turn rows of `ACTIVE` into keys."""
    return [
        Key(key_id, name, bytes(secret_sha256), requests_per_minute, tester)
        for key_id, name, secret_sha256, requests_per_minute, tester in rows
    ]
