"""Finds who is meant by an id on the command line: a number, or any text that an app or an import named them by."""

from dataclasses import dataclass
from typing import Any, Final

import psycopg

from feature_repo.contract.identities import canonical, former_ids, hashed_id

_MOST: Final = 2**63 - 1
_BY_NUMBER: Final = "select user_id, external_id, attributes->>'source_id' from duet.users where user_id = %s"
_BY_NAME: Final = "select user_id, external_id, attributes->>'source_id' from duet.users where external_id = %s"
_BY_HASH: Final = """
select user_id, external_id, attributes->>'source_id' from duet.users
 where user_id = any(%s) and external_id is null and attributes ? 'source_id'
"""


@dataclass(frozen=True)
class Known:
    """A person's number, and everything that they are known by as text."""

    user_id: int
    texts: list[str]


def spelled(name: str) -> str:
    """Return an id as it is kept and hashed: digits as they are, other text in its canonical form."""
    return name if name.isascii() and name.isdigit() else canonical(name)


def known_by(connection: psycopg.Connection[Any], name: str) -> Known | None:
    """Return who has an id, None where nobody has it."""
    text = spelled(name)
    if text.isascii() and text.isdigit():
        rows = connection.execute(_BY_NUMBER, (int(text),)).fetchall() if int(text) <= _MOST else []
    else:
        rows = connection.execute(_BY_NAME, (text,)).fetchall()
        if not rows:
            rows = connection.execute(_BY_HASH, ([hashed_id(text), *former_ids(text)],)).fetchall()
            rows = [row for row in rows if canonical(row[2]) == text]
    if not rows:
        return None
    user_id, external_id, source_id = rows[0]
    texts = [text, str(user_id), *(canonical(other) for other in (external_id, source_id) if other)]
    return Known(user_id, list(dict.fromkeys(texts)))
