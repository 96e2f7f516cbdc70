"""Who was erased after a backup was taken: a restore brings them back, so they are erased again.

Their hashes are in the database that is overwritten, and in the journal that every pass over the erasures writes beside
the data: a line of JSON each. A copy of the journal belongs where the backups are.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psycopg

from infra.db import erasures
from infra.db.erasures import OpenErasure

JOURNAL: Final = "erasures.jsonl"
NOBODY_FOUND: Final = (
    "Nobody here is named by the erasures since then: either they all came later, or DUET_LOGGING__PERSON_SALT is not "
    "the one that these were written with, and people who were erased are back."
)
_EVERYBODY: Final = "select user_id, external_id, attributes->>'source_id' from duet.users order by user_id"
_SINCE: Final = "select person from duet.erasures where requested_at > %s"


def note(data_dir: Path, connection: psycopg.Connection[Any], erasure: OpenErasure) -> None:
    """Add an erasure to the journal, unless it is there."""
    path = data_dir / JOURNAL
    row = connection.execute("select person from duet.erasures where erasure_id = %s", (erasure.erasure_id,)).fetchone()
    told = {"requested_at": erasure.requested_at.isoformat(), "person": row[0] if row else []}
    line = json.dumps(told, sort_keys=True)
    if path.exists() and line in path.read_text(encoding="ascii").splitlines():
        return
    path.touch(mode=0o600)
    with path.open("a", encoding="ascii") as file:
        file.write(f"{line}\n")


def journaled(paths: Iterable[Path], since: datetime) -> set[str]:
    """Return the hashes of whoever was erased after an instant, by journals."""
    found: set[str] = set()
    for path in paths:
        if path.is_file():
            for line in path.read_text(encoding="ascii").splitlines():
                told = json.loads(line)
                if datetime.fromisoformat(told["requested_at"]) > since:
                    found |= set(told["person"])
    return found


def recorded(connection: psycopg.Connection[Any], since: datetime) -> set[str]:
    """Return the hashes of whoever was erased after an instant, by a database; none where it has no such table."""
    known = connection.execute("select to_regclass('duet.erasures')").fetchone()
    if known is None or known[0] is None:
        return set()
    return {name for (person,) in connection.execute(_SINCE, (since,)) for name in person}


def erase_again(
    connection: psycopg.Connection[Any], hashed: set[str], name_person: Callable[[object], str], actor: str
) -> int:
    """Begin to erase everybody whom one of the hashes means, delete their rows, and return how many they are."""
    again = [(user_id, texts) for user_id, texts in _known(connection) if hashed & {*map(name_person, texts)}]
    for user_id, texts in again:
        begun = erasures.begin(connection, user_id, texts, name_person, way="restore", actor=actor)
        if begun is not None:
            erasures.erase_rows(connection, begun)
    return len(again)


def _known(connection: psycopg.Connection[Any]) -> Iterator[tuple[int, list[str]]]:
    with connection.cursor() as cursor:
        for user_id, external_id, source_id in cursor.execute(_EVERYBODY):
            yield user_id, [str(user_id), *dict.fromkeys(name for name in (external_id, source_id) if name)]
