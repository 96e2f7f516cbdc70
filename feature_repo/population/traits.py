"""Traits: the attributes of people that are no features, arranged so that people can be sought by them.

Text and flags are codes, so that no word is compared; numbers for which no slot was left are a column for each name. A
code stands for an attribute's name and one value. It is computed from these two alone, so that nothing has to be
agreed on between who writes people, who reads them and who asks for them. Postgres has the last word.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import MalformedFeatures
from feature_repo.transforms.attributes import numeric
from infra.db.id_rows import IdRows

Bools = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

SEPARATOR: Final = "\x1f"
TEXT_MARK: Final = '"'
"""Stands before text, so that the word true is another value than the flag."""
CODE_BYTES: Final = 8
_MARKED_PER_SEARCH: Final = 30
"""Rows that are marked one by one in the time of one search."""
MAX_NUMBERS: Final = 100
"""Names of numbers that are kept; by those beyond, in the order of the alphabet, nobody can be sought."""
_NO_NAMES: Final[frozenset[str]] = frozenset()
_NO_NUMBERS: Final[Mapping[str, Any]] = {}
_NAMES_FILE: Final = "trait_names.json"
_ARRAY_FILES: Final = ("trait_codes.npy", "trait_starts.npy", "trait_rows.npy")
_NUMBERS_FILE: Final = "trait_numbers.npy"


@lru_cache(maxsize=4096)
def trait_code(name: str, value: str | bool) -> int:  # noqa: FBT001 a value, not a switch
    """Return the code of an attribute that is this text or flag, an int64."""
    said = str(value).lower() if isinstance(value, bool) else TEXT_MARK + value
    return int.from_bytes(sha256(f"{name}{SEPARATOR}{said}".encode()).digest()[:CODE_BYTES], "big", signed=True)


@dataclass(frozen=True, eq=False)
class GivenTraits:
    """Who has which traits: the person `user_ids` int64[k] has the code `codes` int64[k], in any order.

    `texts` and `flags` are the names of the attributes that hold text and flags. Of each name in `numbers`, people
    int64[m] have the numbers float32[m].
    """

    user_ids: Int64
    codes: Int64
    texts: frozenset[str] = _NO_NAMES
    flags: frozenset[str] = _NO_NAMES
    numbers: Mapping[str, tuple[Int64, Float32]] = field(default_factory=lambda: _NO_NUMBERS)

    @classmethod
    def of(cls, user_ids: Sequence[int], attributes: Sequence[Any], slots: Mapping[str, int] = _NO_NUMBERS) -> Self:
        """Return the traits among the attributes, mappings by name, of each of these people."""
        owners: list[int] = []
        codes: list[int] = []
        texts: set[str] = set()
        flags: set[str] = set()
        numbers: dict[str, list[tuple[int, float]]] = {}
        for user_id, own in zip(user_ids, attributes, strict=True):
            for name, value in own.items() if isinstance(own, Mapping) else ():
                if isinstance(value, (bool, str)):
                    owners.append(user_id)
                    codes.append(trait_code(name, value))
                    (texts if isinstance(value, str) else flags).add(name)
                elif name not in slots and not math.isnan(number := numeric(value)):
                    numbers.setdefault(name, []).append((user_id, number))
        columns = {name: list(zip(*pairs, strict=True)) for name, pairs in numbers.items()}
        return cls(
            np.array(owners, np.int64),
            np.array(codes, np.int64),
            frozenset(texts),
            frozenset(flags),
            {name: (np.array(ids, np.int64), np.array(own, np.float32)) for name, (ids, own) in columns.items()},
        )

    @classmethod
    def together(cls, parts: Sequence["GivenTraits"]) -> Self:
        """Return the traits of all parts."""
        numbers: dict[str, tuple[Int64, Float32]] = {}
        for part in parts:
            for name, (ids, own) in part.numbers.items():
                before = numbers.get(name, (ids[:0], own[:0]))
                numbers[name] = np.concatenate([before[0], ids]), np.concatenate([before[1], own])
        return cls(
            np.concatenate([np.empty(0, np.int64), *(part.user_ids for part in parts)]),
            np.concatenate([np.empty(0, np.int64), *(part.codes for part in parts)]),
            _NO_NAMES.union(*(part.texts for part in parts)),
            _NO_NAMES.union(*(part.flags for part in parts)),
            numbers,
        )

    def without(self, user_ids: Int64) -> "GivenTraits":
        """Return the traits of everybody but these people."""
        kept = ~np.isin(self.user_ids, user_ids)
        numbers = {}
        for name, (ids, own) in self.numbers.items():
            left = ~np.isin(ids, user_ids)
            numbers[name] = ids[left], own[left]
        return GivenTraits(self.user_ids[kept], self.codes[kept], self.texts, self.flags, numbers)


@dataclass(frozen=True, eq=False)
class TraitIndex:
    """Who has which trait, among `n` people that stand in rows.

    Those who have `codes[i]` (int64[c], ascending) are `rows[starts[i]:starts[i + 1]]` (int32[k], ascending in each).
    `numbers` are columns float32[n] by name, NaN where somebody has none.
    """

    n: int
    codes: Int64
    starts: Int64
    rows: Int32
    texts: frozenset[str] = _NO_NAMES
    flags: frozenset[str] = _NO_NAMES
    numbers: Mapping[str, Float32] = field(default_factory=lambda: _NO_NUMBERS)

    @classmethod
    def build(cls, user_ids: Int64, given: GivenTraits) -> Self:
        """Sort the traits of the people `user_ids` int64[n], ascending; those of anybody else are left out."""
        people = IdRows.of(user_ids)
        at = people.find(given.user_ids)
        known = at >= 0
        rows, codes = at[known].astype(np.int32), given.codes[known]
        order = np.argsort(codes, kind="stable")  # what comes from another index is nearly sorted, and stays so
        codes, rows = codes[order], rows[order]
        is_new = codes[1:] != codes[:-1]
        first = np.flatnonzero(np.append(True, is_new)) if len(codes) else np.empty(0, np.int64)
        starts = np.append(first, len(codes))
        unordered = np.flatnonzero(~is_new & (rows[1:] < rows[:-1]))
        for at in np.unique(np.searchsorted(starts, unordered, side="right") - 1):
            rows[starts[at] : starts[at + 1]].sort()
        numbers = {name: _column(people, *given.numbers[name]) for name in sorted(given.numbers)[:MAX_NUMBERS]}
        return cls(len(user_ids), codes[first], starts, rows, given.texts, given.flags, numbers)

    def given(self, user_ids: Int64, kept: Bools | None = None) -> GivenTraits:
        """Return the traits of the people `user_ids` int64[n] that stand in the rows, or of those `kept` bool[n]."""
        rows, codes = self.rows, np.repeat(self.codes, np.diff(self.starts))
        if kept is not None:
            left = kept[rows]
            rows, codes = rows[left], codes[left]
        numbers = {}
        for name, column in self.numbers.items():
            known = np.flatnonzero(~np.isnan(column) if kept is None else ~np.isnan(column) & kept)
            numbers[name] = user_ids[known], column[known]
        return GivenTraits(user_ids[rows], codes, self.texts, self.flags, numbers)

    def count(self, codes: Int64) -> int:
        """Return how often people have one of `codes`; whoever has several counts as often."""
        return sum(len(self._rows(code)) for code in codes)

    def with_any(self, codes: Int64) -> Int64:
        """Return the rows of those who have one of `codes`, int64 ascending."""
        return self._rows(codes[0]).astype(np.int64) if len(codes) == 1 else np.flatnonzero(self._marked(codes))

    def having(self, rows: Int64, codes: Int64) -> Bools:
        """Return bool[m]: who of those in `rows` int64[m] has one of `codes`."""
        if self.count(codes) < _MARKED_PER_SEARCH * len(rows) * len(codes):
            return self._marked(codes)[rows]
        wanted = rows.astype(np.int32)  # of another type than what is searched, it would all be converted
        found = np.zeros(len(rows), dtype=np.bool_)
        for code in codes:
            having = self._rows(code)
            if len(having):
                found |= having[np.minimum(np.searchsorted(having, wanted), len(having) - 1)] == wanted
        return found

    def values(self, name: str, rows: Int64) -> Float32:
        """Return the numbers of this name of those in `rows` int64[m], float32[m]; NaN where somebody has none."""
        column = self.numbers.get(name)
        return np.full(len(rows), np.nan, dtype=np.float32) if column is None else column[rows]

    def _marked(self, codes: Int64) -> Bools:
        marked = np.zeros(self.n, dtype=np.bool_)
        for code in codes:
            marked[self._rows(code)] = True
        return marked

    def _rows(self, code: np.int64) -> Int32:
        at = int(np.searchsorted(self.codes, code))
        if at == len(self.codes) or self.codes[at] != code:
            return self.rows[:0]
        return self.rows[self.starts[at] : self.starts[at + 1]]

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Return what is mapped."""
        return self.codes, self.starts, self.rows, *self.numbers.values()

    def save(self, directory: Path) -> None:
        """Write the index into `directory`, which must exist."""
        arrays: tuple[NDArray[Any], ...] = self.codes, self.starts, self.rows
        for name, array in zip(_ARRAY_FILES, arrays, strict=True):
            np.save(directory / name, array, allow_pickle=False)
        columns = np.stack(list(self.numbers.values())) if self.numbers else np.empty((0, self.n), dtype=np.float32)
        np.save(directory / _NUMBERS_FILE, columns, allow_pickle=False)
        names = {"texts": sorted(self.texts), "flags": sorted(self.flags), "numbers": list(self.numbers)}
        (directory / _NAMES_FILE).write_text(json.dumps(names), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, n: int, *, mapped: bool = True) -> Self:
        """Read what `save` wrote of `n` people; raises MalformedFeatures where it is of others."""
        mode: Literal["r"] | None = "r" if mapped else None
        codes, starts, rows, columns = (
            np.asarray(np.load(directory / name, mmap_mode=mode, allow_pickle=False))
            for name in (*_ARRAY_FILES, _NUMBERS_FILE)
        )
        names = json.loads((directory / _NAMES_FILE).read_text(encoding="utf-8"))
        if len(starts) != len(codes) + 1 or starts[-1] != len(rows) or rows.max(initial=-1) >= n or columns.shape != (
            len(names["numbers"]), n
        ):  # fmt: skip
            raise MalformedFeatures(f"The traits in {directory.name!r} are of other people.")
        numbers = dict(zip(names["numbers"], columns, strict=True))
        return cls(n, codes, starts, rows, frozenset(names["texts"]), frozenset(names["flags"]), numbers)


def _column(people: IdRows, user_ids: Int64, values: Float32) -> Float32:
    column = np.full(len(people.ids), np.nan, dtype=np.float32)
    at = people.find(user_ids)
    column[at[at >= 0]] = values[at >= 0]
    return column


NO_TRAITS: Final = GivenTraits(np.empty(0, np.int64), np.empty(0, np.int64))
NOBODY_HAS_ANY: Final = TraitIndex(0, np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0, np.int32))
