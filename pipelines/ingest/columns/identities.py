"""Ids for people whose source has none that is a whole number: a hash of the source's own id.

A new id has 53 bits, because every JavaScript client rounds larger numbers. People who were imported when hashes had 63
bits keep the id they have: whoever is in the database under the longer hash is found there, on every import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import psycopg
import pyarrow as pa

from feature_repo.contract.identities import LARGEST_EXACT, former_ids, hashed_id

Known = Callable[[list[int]], set[int]]
"""Return which of some ids are people already."""


def nobody(_ids: list[int]) -> set[int]:
    """Know none of them, as in a database that never saw a longer hash."""
    return set()


def people_in(connection: psycopg.Connection[Any]) -> Known:
    """Return the look-up in `duet.users`; it asks once whether there is anybody with a longer id at all."""
    row = connection.execute("SELECT max(user_id) FROM duet.users").fetchone()
    if row is None or row[0] is None or row[0] <= LARGEST_EXACT:
        return nobody

    def known(ids: list[int]) -> set[int]:
        rows = connection.execute("SELECT user_id FROM duet.users WHERE user_id = ANY(%s)", (ids,))
        return {int(found) for (found,) in rows}

    return known


def hashed_ids(texts: Any, known: Known = nobody) -> Any:
    """Return int64 for an array of texts: the id that a person already has, else the new hash."""
    coded = texts.dictionary_encode()
    sources: list[str] = coded.dictionary.to_pylist()
    found: set[int] = set()
    if known is not nobody:
        found = known(list(_flat(former_ids(source) for source in sources)))
    ids = [next((old for old in former_ids(source) if old in found), None) if found else None for source in sources]
    chosen = [hashed_id(source) if old is None else old for source, old in zip(sources, ids, strict=True)]
    return pa.array(chosen, pa.int64()).take(coded.indices)


def _flat(lists: Iterable[list[int]]) -> Iterable[int]:
    return (item for items in lists for item in items)
