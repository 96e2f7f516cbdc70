"""Turn one source column of any type into one contract column, without looking at single rows.

Every function takes an Arrow array (text from CSV, typed from Parquet), marks the rows that cannot be read in
`Faults`, and returns an array of the contract's type in which those rows are null. Nothing is guessed: a value that
does not parse is a fault, never a default.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.contract import faults as why
from feature_repo.contract.faults import Faults, Mask

_INTEGER = r"^[+-]?[0-9]+(\.0+)?$"
_NUMBER = r"^[+-]?([0-9]{1,30}\.?[0-9]{0,30}|\.[0-9]{1,30})([eE][+-]?[0-9]{1,2})?$"
_NOT_FINITE = r"^[+-]?(?i:nan|inf|infinity)$"
_LARGEST = "9223372036854775807"
# A column of ones and zeros in which one is missing is written as 1.0 and 0.0.
_TRUE = ("true", "t", "yes", "y", "1", "1.0")
_FALSE = ("false", "f", "no", "n", "0", "0.0")
_WHOLE = r"^([+-]?[0-9]+)\.0+$"
_WHOLE_KEY = re.compile(_WHOLE)
_DEFAULT_SEPARATORS = r"[|;,]"
_IN_BRACKETS = r"(?s)^\[(.*)\]$|^\{(.*)\}$|^\(([^()]*)\)$|^\"([^\"]*)\"$|^'([^']*)'$"
_IN_QUOTES = r"^\"([^\"]*)\"$|^'([^']*)'$"
# What lists of other languages leave of a label with a separator in it: `['rock, pop']`, `{"rock, pop"}`.
_LIST = r"(?s)^(\[.*\]|\{.*\})$"
_HALF_QUOTED = r"^[\"']([^\"']*)$|^([^\"']*)[\"']$"
# JSON may name one half of a character, which no text can hold.
_SURROGATE = re.compile("[\ud800-\udfff]")
MAX_TEXT = 10_000
MAX_LABEL = 64
MAX_LABELS = 100


def mask_of(array: Any) -> Mask:
    """Return a boolean Arrow array as numpy, null meaning false."""
    return np.asarray(pc.fill_null(array, False).to_numpy(zero_copy_only=False), dtype=bool)


def present(array: Any) -> Mask:
    """Return which values are there."""
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False), dtype=bool)


def without(array: Any, rows: Mask) -> Any:
    """Return the array with null in the rows of the mask."""
    return pc.if_else(pa.array(~rows), array, pa.scalar(None, array.type)) if rows.any() else array


def is_text(kind: Any) -> bool:
    """Return whether an Arrow type is a string type."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def text_of(array: Any) -> Any:
    """Return the array as trimmed text; empty text is null."""
    text = pc.utf8_trim_whitespace(array.cast(pa.string()))
    return without(text, mask_of(pc.equal(text, "")))


def integers(array: Any, faults: Faults, column: str, low: int, high: int) -> Any:
    """Return int64 in [low, high]."""
    kind = array.type
    if pa.types.is_uint64(kind):
        faults.mark(mask_of(pc.greater(array, pa.scalar(2**63 - 1, pa.uint64()))), why.OUT_OF_RANGE, column)
        values = without(array, faults.bad).cast(pa.int64())
    elif pa.types.is_integer(kind):
        values = array.cast(pa.int64())
    elif pa.types.is_floating(kind):
        array = _finite(array.cast(pa.float64()), faults, column)
        fractional = mask_of(pc.not_equal(pc.floor(array), array))
        faults.mark(fractional, why.WRONG_TYPE, column)
        # Beyond 2**53 a float no longer says which whole number it means.
        vague = mask_of(pc.greater(pc.abs(array), float(2**53)))
        faults.mark(vague, why.OUT_OF_RANGE, column)
        values = without(array, fractional | vague).cast(pa.int64())
    elif is_text(kind) or pa.types.is_decimal(kind):
        values = _integers_from_text(text_of(array), faults, column)
    else:
        return wrong_type(array, faults, column, pa.int64())
    outside = mask_of(pc.or_(pc.less(values, low), pc.greater(values, high)))
    faults.mark(outside, why.OUT_OF_RANGE, column)
    return without(values, outside)


def _integers_from_text(text: Any, faults: Faults, column: str) -> Any:
    fits = mask_of(pc.match_substring_regex(text, _INTEGER))
    faults.mark(mask_of(pc.match_substring_regex(text, _NOT_FINITE)), why.NOT_FINITE, column)
    faults.mark(present(text) & ~fits, why.WRONG_TYPE, column)
    text = without(text, ~fits)
    text = pc.replace_substring_regex(text, r"\.0+$", "")
    magnitude = pc.utf8_ltrim(pc.utf8_ltrim(text, characters="+-"), characters="0")
    length = pc.utf8_length(magnitude)
    too_large = mask_of(pc.or_(pc.greater(length, 19), pc.and_(pc.equal(length, 19), pc.greater(magnitude, _LARGEST))))
    faults.mark(too_large, why.OUT_OF_RANGE, column)
    magnitude = pc.if_else(pc.equal(magnitude, ""), "0", magnitude)
    values = without(magnitude, too_large).cast(pa.int64())
    return pc.if_else(pc.starts_with(text, "-"), pc.negate(values), values)


def numbers(array: Any, faults: Faults, column: str, low: float, high: float) -> Any:
    """Return finite float64 in [low, high]."""
    if is_text(array.type):
        text = text_of(array)
        fits = mask_of(pc.match_substring_regex(text, _NUMBER))
        faults.mark(mask_of(pc.match_substring_regex(text, _NOT_FINITE)), why.NOT_FINITE, column)
        faults.mark(present(text) & ~fits, why.WRONG_TYPE, column)
        values = pc.utf8_ltrim(without(text, ~fits), characters="+").cast(pa.float64())
    elif pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_decimal(array.type):
        values = _finite(array.cast(pa.float64(), safe=False), faults, column)
    else:
        return wrong_type(array, faults, column, pa.float64())
    outside = mask_of(pc.or_(pc.less(values, low), pc.greater(values, high)))
    faults.mark(outside, why.OUT_OF_RANGE, column)
    return without(values, outside)


def _finite(values: Any, faults: Faults, column: str) -> Any:
    wild = present(values) & ~mask_of(pc.is_finite(values))
    faults.mark(wild, why.NOT_FINITE, column)
    return without(values, wild)


def wrong_type(array: Any, faults: Faults, column: str, kind: Any) -> Any:
    """Mark every value that is there as being of the wrong type, and return nulls of `kind`."""
    faults.mark(present(array), why.WRONG_TYPE, column)
    return pa.nulls(len(array), kind)


def flags(array: Any, faults: Faults, column: str, values: Mapping[str, str] | None = None) -> Any:
    """Return booleans; `true/false`, `yes/no`, `t/f`, `y/n` and `1/0` are read, also as 1.0/0.0; or by `values`."""
    kind = array.type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        array = numbers(array, faults, column, -1e300, 1e300)
        text = text_of(pc.if_else(pc.equal(array, 0), 0.0, array))  # -0.0 is 0
        text = short(text)
    elif is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        if pa.types.is_boolean(kind) and values is None:
            return array
        text = pc.utf8_lower(text_of(array))
    else:
        return wrong_type(array, faults, column, pa.bool_())
    if values is not None:
        text = _mapped(text, faults, column, values)
    yes = mask_of(pc.is_in(text, pa.array(_TRUE)))
    no = mask_of(pc.is_in(text, pa.array(_FALSE)))
    faults.mark(present(text) & ~yes & ~no, why.WRONG_TYPE, column)
    return without(pa.array(yes), ~yes & ~no)


def texts(array: Any, faults: Faults, column: str, max_length: int = MAX_TEXT) -> Any:
    """Return text of at most `max_length` characters."""
    if pa.types.is_nested(array.type) or pa.types.is_binary(array.type):
        return wrong_type(array, faults, column, pa.string())
    text = text_of(array)
    long = mask_of(pc.greater(pc.utf8_length(text), max_length))
    faults.mark(long, why.TOO_LONG, column)
    return without(text, long)


def labels(array: Any, faults: Faults, column: str, values: Mapping[str, str] | None = None) -> Any:
    """Return lower-case labels (gender, kind); with `values`, each must be in the map."""
    text = pc.utf8_lower(texts(array, faults, column, MAX_LABEL))
    return text if values is None else _mapped(text, faults, column, values)


def spelling(source: str) -> str:
    """Return the one spelling of a source value: `M` is `m`, and `1.0` is `1`, as a gap in a column has it written."""
    return _WHOLE_KEY.sub(r"\1", source.strip().lower())


def short(text: Any) -> Any:
    """Return texts with `1.0` written as `1`."""
    return pc.replace_substring_regex(text, _WHOLE, r"\1")


def _mapped(text: Any, faults: Faults, column: str, values: Mapping[str, str]) -> Any:
    """Return what each lower-case text means by its one spelling."""
    known = {spelling(source): target for source, target in values.items()}
    position = pc.index_in(short(text), pa.array(list(known), pa.string()))
    found = pa.array(list(known.values()), pa.string()).take(position)
    faults.mark(present(text) & ~present(found), why.BAD_ENUM, column)
    return found


def label_lists(
    array: Any,
    faults: Faults,
    column: str,
    *,
    separator: str | None = None,
    values: Mapping[str, str] | None = None,
) -> Any:
    """Return `list<string>` of distinct lower-case labels in source order; text is split at `separator`.

    Without a separator text is split at `|`, `;` and `,`; brackets around all of it and quotes around a label are
    dropped. Text that is a JSON list is read as such.
    """
    n_rows = len(array)
    if is_text(array.type):
        parts = _listed(text_of(array), faults, column, separator)
    elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        if not is_text(array.type.value_type):
            return wrong_type(array, faults, column, pa.list_(pa.string()))
        parts = array
    else:
        return wrong_type(array, faults, column, pa.list_(pa.string()))
    parents = np.asarray(pc.list_parent_indices(parts).to_numpy(zero_copy_only=False), dtype=np.int64)
    items = pc.utf8_lower(text_of(pc.list_flatten(parts).cast(pa.string())))
    rows_of = _row_marker(parents, n_rows)
    faults.mark(rows_of(mask_of(pc.match_substring(items, "\x00"))), why.NUL, column)
    long = mask_of(pc.greater(pc.utf8_length(items), MAX_LABEL))
    faults.mark(rows_of(long), why.TOO_LONG, column)
    if values is not None:
        inner = Faults(len(items))
        items = _mapped(items, inner, column, values)
        faults.mark(rows_of(inner.bad), why.BAD_ENUM, column)
    coded = items.dictionary_encode()
    codes = np.asarray(pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False), dtype=np.int64)
    kept = np.flatnonzero(codes >= 0)
    _, first = np.unique(parents[kept] * (len(coded.dictionary) + 1) + codes[kept], return_index=True)
    kept = kept[np.sort(first)]
    counts = np.bincount(parents[kept], minlength=n_rows)
    faults.mark(counts > MAX_LABELS, why.TOO_LONG, column)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), items.take(pa.array(kept)))


def _listed(text: Any, faults: Faults, column: str, separator: str | None) -> Any:
    """Return the parts of each text; a JSON list of anything but plain values is a fault."""
    written = pc.replace_substring_regex(text, _IN_BRACKETS, r"\1\2\3\4\5")
    parts = (
        pc.split_pattern_regex(written, _DEFAULT_SEPARATORS)
        if separator is None
        else pc.split_pattern(written, separator)
    )
    labels = pc.replace_substring_regex(pc.utf8_trim_whitespace(parts.values), _IN_QUOTES, r"\1\2")
    lists = mask_of(pc.match_substring_regex(text, _LIST))
    if lists.any():
        inside = pa.array(np.repeat(lists, np.diff(np.asarray(parts.offsets))))
        labels = pc.if_else(inside, pc.replace_substring_regex(labels, _HALF_QUOTED, r"\1\2"), labels)
    parts = pa.ListArray.from_arrays(parts.offsets, labels)
    may_be_json = mask_of(pc.starts_with(text, "["))
    if not may_be_json.any():
        return parts
    coded = without(text, ~may_be_json).dictionary_encode()
    found = [_json_list(cell) for cell in coded.dictionary.to_pylist()]
    is_wrong = [items is not None and not all(map(_is_label, items)) for items in found]
    faults.mark(mask_of(pa.array(is_wrong, pa.bool_()).take(coded.indices)), why.WRONG_TYPE, column)
    sound = pa.array([None if wrong else items for items, wrong in zip(found, is_wrong, strict=True)], parts.type)
    return pc.coalesce(sound.take(coded.indices), parts)


def _json_list(cell: str) -> list[Any] | None:
    """Return the items of a JSON list, numbers as they are written; None for other text."""
    try:
        found: list[Any] = json.loads(cell, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None
    return found


def _is_label(item: object) -> bool:
    return item is None or (isinstance(item, str) and _SURROGATE.search(item) is None)


def _row_marker(parents: Any, n_rows: int) -> Callable[[Mask], Mask]:
    def rows_of(items: Mask) -> Mask:
        return np.bincount(parents[items], minlength=n_rows).astype(bool)

    return rows_of
