"""Ids for people whom an app names by text: a hash of the text, and the longer hashes that were given before.

A new id has 53 bits, because every JavaScript client rounds larger numbers.
"""

import hashlib
import re
from typing import Final

LARGEST_EXACT: Final = 2**53 - 1
"""The largest whole number that JSON carries to every client exactly."""
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")


def hashed_id(source_id: str) -> int:
    """Return the id, 1 to 2^53-1, of a person who is named by a text; a UUID is one however it is cased."""
    return (_digest(canonical(source_id)) & LARGEST_EXACT) or 1


def former_ids(source_id: str) -> list[int]:
    """Return the 63-bit ids that this person may have been given by earlier versions."""
    spellings = {source_id, *((source_id.lower(), source_id.upper()) if _UUID.fullmatch(source_id) else ())}
    return [longer for longer in map(_longer, sorted(spellings)) if longer > LARGEST_EXACT]


def canonical(source_id: str) -> str:
    """Return the one spelling of a text that names a person: a UUID in lower case, anything else as it is."""
    return source_id.lower() if _UUID.fullmatch(source_id) else source_id


def _longer(source_id: str) -> int:
    return (_digest(source_id) & (2**63 - 1)) or 1


def _digest(source_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(source_id.encode(), digest_size=8).digest(), "big")
