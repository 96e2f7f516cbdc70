"""Columns outside the contract become one JSON object per person; the numeric ones can become features.

A value keeps its type: text that is a JSON number is stored as a number, anything else as text.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.contract import faults as why
from feature_repo.contract.columns import is_text, mask_of, present, text_of, without
from feature_repo.contract.faults import Faults
from feature_repo.contract.json_values import unstorable

SOURCE_ID = "source_id"
"""The attribute that keeps the id of somebody who is known by a hash of it."""
# Leading zeros are not numbers: a post code `01234` must stay what it is.
_JSON_NUMBER = r"^-?(0|[1-9][0-9]{0,29})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?$"
_NEEDS_ESCAPE = r"[\"\\\x00-\x1f]"


@dataclass
class NumericColumns:
    """Which attributes held nothing but numbers so far; they are the ones that claim a slot."""

    seen: dict[str, bool] = field(default_factory=dict)

    def note(self, name: str, *, is_numeric: bool) -> None:
        """Remember one batch's verdict."""
        self.seen[name] = self.seen.get(name, True) and is_numeric

    def names(self) -> list[str]:
        """Return the numeric attributes in the order of first sight."""
        return [name for name, is_numeric in self.seen.items() if is_numeric]


def json_objects(
    columns: Mapping[str, Any],
    n_rows: int,
    faults: Faults,
    numeric: NumericColumns,
    names: Collection[str] = (),
) -> Any:
    """Return one JSON object as text per row; values that are absent have no key.

    Args:
        columns: attribute -> Arrow array of any type.
        n_rows: length of every array.
        faults: receives values that JSON cannot hold.
        numeric: receives which columns hold nothing but numbers.
        names: attributes that name something and stay text even where they look like numbers.
    """
    inner = pa.array([""] * n_rows, pa.string())
    for name, array in columns.items():
        key = ", " + json.dumps(name) + ": "
        values = _quoted(text_of(array)) if name in names else _json_values(array, faults, name, numeric)
        pair = pc.binary_join_element_wise(pa.scalar(key), values, "")
        # Not `null_handling="skip"`: pyarrow 25 then loses the rows in which every value is null.
        inner = pc.binary_join_element_wise(inner, pc.fill_null(pair, ""), "")
    return pc.binary_join_element_wise("{", pc.utf8_slice_codeunits(inner, 2), "}", "")


def _json_values(array: Any, faults: Faults, name: str, numeric: NumericColumns) -> Any:
    kind = array.type
    if pa.types.is_boolean(kind):
        numeric.note(name, is_numeric=False)
        return array.cast(pa.string())
    if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        _note(numeric, name, array)
        return array.cast(pa.string())
    if pa.types.is_floating(kind):
        array = array.cast(pa.float64(), safe=False)
        wild = present(array) & ~mask_of(pc.is_finite(array))
        faults.mark(wild, why.NOT_FINITE, name)
        _note(numeric, name, array)
        return without(array, wild).cast(pa.string())
    if is_text(kind):
        text = text_of(array)
        is_number = mask_of(pc.match_substring_regex(text, _JSON_NUMBER))
        there = present(text)
        if there.any():
            numeric.note(name, is_numeric=bool((is_number[there]).all()))
        return pc.if_else(pa.array(is_number), text, _quoted(text))
    numeric.note(name, is_numeric=False)
    return _nested(array, faults, name)


def _nested(array: Any, faults: Faults, name: str) -> Any:
    """Return values of any other type as JSON, one by one; a part that JSON cannot hold is a fault of its row."""
    found: list[str | None] = []
    reasons: list[str | None] = []
    for position in range(len(array)):
        text, reason = None, None
        try:
            # One by one: text that is no UTF-8 raises here, and only its own row may be lost.
            value = _plain(array[position].as_py())
            reason = unstorable(value)
            text = None if value is None or reason is not None else json.dumps(value)
        except (ValueError, OverflowError):
            reason = why.WRONG_TYPE
        found.append(text)
        reasons.append(reason)
    for reason in (why.NOT_FINITE, why.NUL, why.WRONG_TYPE):
        faults.mark(np.array([told == reason for told in reasons], dtype=bool), reason, name)
    return pa.array(found, pa.string())


def _plain(value: Any) -> Any:
    """Return a value of any depth in the types of JSON; raises ValueError for bytes that are no text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)


def _number(value: Decimal) -> int | float | str:
    """Return a decimal as a number of JSON, or as its text where a float would lose digits of it."""
    if value == value.to_integral_value():
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else str(value)


def _note(numeric: NumericColumns, name: str, array: Any) -> None:
    if array.null_count < len(array):
        numeric.note(name, is_numeric=True)


def _quoted(text: Any) -> Any:
    quoted = pc.binary_join_element_wise('"', text, '"', "")
    special = mask_of(pc.match_substring_regex(text, _NEEDS_ESCAPE))
    if not special.any():
        return quoted
    # The few values with quotes or control characters are escaped by the library that knows all cases.
    escaped = [json.dumps(value, ensure_ascii=False) for value in text.filter(pa.array(special)).to_pylist()]
    at = np.zeros(len(text), dtype=np.int64)
    at[special] = np.arange(len(escaped))
    return pc.if_else(pa.array(special), pa.array(escaped, pa.string()).take(pa.array(at)), quoted)
