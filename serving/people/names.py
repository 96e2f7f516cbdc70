"""What apps call people by: resolved into numbers where a call comes in, and put back where its answer leaves.

Everything between knows numbers alone. Whoever is asked about by number is answered by number, without a look here.
People imported under a hash of their own id are found by that id as well, unless it reads as a number.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Annotated, Any, Final

import numpy as np
from pydantic import PlainValidator, ValidatorFunctionWrapHandler, WithJsonSchema, WrapValidator
from pydantic_core import PydanticCustomError

from feature_repo.contract.identities import canonical, former_ids, hashed_id
from serving.people.statements import Storage

MAX_NAME: Final = 128
MAX_NUMBER: Final = 2**63 - 1
Name = int | str
_SURE: Final = 18
"""Digits that never say more than `MAX_NUMBER`."""
_WRONG: Final = (
    f"must be a whole number from 1 to {MAX_NUMBER}, or text of 1 to {MAX_NAME} characters that are no control "
    "characters; text of nothing but digits is a number, and `.` and `..` are no ids"
)
_OF_FOLDERS: Final = frozenset({".", ".."})
"""A path with one of them means another path: clients resolve it, and nobody could read or erase that person."""
_AGAIN: Final = "ask again."
_BY_NAME: Final = b"SELECT external_id, user_id FROM duet.users WHERE external_id = ANY($1::text[])"
_BY_HASH: Final = b"""
SELECT user_id, attributes->>'source_id' FROM duet.users
WHERE user_id = ANY($1::bigint[]) AND external_id IS NULL AND attributes ? 'source_id'
"""
_NAMES: Final = b"""
SELECT user_id, external_id, attributes->>'source_id' FROM duet.users
WHERE user_id = ANY($1::bigint[]) AND (external_id IS NOT NULL OR attributes ? 'source_id')
"""


def number_in(name: Name) -> int | None:
    """Return the number that a name is or says, None for a name that is none."""
    if isinstance(name, int):
        return name
    return int(name) if name.isascii() and name.isdigit() else None


def checked_name(name: object) -> Name:
    """Return a name as an app may send it; raises pydantic's error otherwise."""
    if type(name) is int and 1 <= name <= MAX_NUMBER:
        return name
    if isinstance(name, str) and len(name) <= MAX_NAME:
        if _is_text_name(name):
            return name
        number = number_in(name)
        if number is not None and str(number) == name and 1 <= number <= MAX_NUMBER:
            return name
    raise PydanticCustomError("person_id", _WRONG)


def _is_text_name(name: str) -> bool:
    """Say whether this is a name that is no number."""
    return (
        1 <= len(name) <= MAX_NAME
        and name not in _OF_FOLDERS
        and not (name.isascii() and name.isdigit())
        and not any(ord(c) < 32 or ord(c) == 127 for c in name)
    )


PersonId = Annotated[
    Name,
    PlainValidator(checked_name),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_NUMBER},
                {"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": r"^[^\x00-\x1f\x7f]+$"},
            ],
            "description": "A person's id: the number, the number as text (for JavaScript, which rounds beyond 2^53), "
            "or any other text that your app names them by. Answers name people as the request did.",
            "examples": [42, "user-7f3a"],
        }
    ),
]


def _checked_names(names: Any, each: ValidatorFunctionWrapHandler) -> Any:
    """Return a list of names; those that are plainly such are not looked at one by one."""
    return names if type(names) is list and _are_plain(names) else each(names)


def _are_plain(names: list[Any]) -> bool:
    """Say whether all are text of letters and marks, with or without digits; numbers are for the closer look."""
    if set(map(type, names)) != {str} or "" in names or max(map(len, names)) > MAX_NAME:
        return False
    digits = [name for name in names if name.isdigit()]
    return "".join(names).isprintable() and all(name[0] != "0" and len(name) <= _SURE for name in digits)


PersonIds = Annotated[list[PersonId], WrapValidator(_checked_names)]
"""Many names: what `PersonId` says of each, at a tenth of the cost."""


class Names:
    """Looks names up in Postgres; raises StorageUnavailable."""

    def __init__(self, reads: Storage) -> None:
        self._reads = reads

    async def numbers(self, names: Iterable[Name]) -> dict[Name, int]:
        """Return the number of each name; a name that nobody has is not in it."""
        found: dict[Name, int] = {}
        texts: dict[str, list[str]] = {}
        for name in names:
            number = number_in(name)
            if number is not None:
                found[name] = number
            else:
                texts.setdefault(canonical(str(name)), []).append(str(name))
        if not texts:
            return found
        known = dict(await self._reads.rows(_BY_NAME, [list(texts)], _AGAIN))
        known |= await self._hashed([text for text in texts if text not in known])
        return found | {name: known[text] for text, spelled in texts.items() if text in known for name in spelled}

    async def _hashed(self, texts: list[str]) -> dict[str, int]:
        """Return those who were imported under a hash of their id."""
        if not texts:
            return {}
        hashes = np.array([number for text in texts for number in (hashed_id(text), *former_ids(text))], dtype=np.int64)
        rows = await self._reads.rows(_BY_HASH, [hashes], _AGAIN)
        return {canonical(source): number for number, source in rows if _is_hash(number, source)}

    async def names(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return the name of each number as text: the one that an app gave, else its digits."""
        asked = list(numbers)
        names = {number: str(number) for number in asked}
        if asked:
            for number, name, source in await self._reads.rows(_NAMES, [np.array(asked, dtype=np.int64)], _AGAIN):
                if name is not None:
                    names[number] = name
                elif _is_hash(number, source) and _is_text_name(source):  # digits would name somebody else
                    names[number] = source
        return names


def renamed(answer: Any, names: Mapping[int, str]) -> dict[str, Any]:
    """Return an answer, a dataclass with `items` that are dataclasses, as one that names its people by text."""
    told = {field.name: getattr(answer, field.name) for field in fields(answer)}
    told["items"] = [
        {field.name: getattr(item, field.name) for field in fields(item)} | {"user_id": names[item.user_id]}
        for item in answer.items
    ]
    return told


def _is_hash(number: int, source: str) -> bool:
    return number == hashed_id(source) or number in former_ids(source)
