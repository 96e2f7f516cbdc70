"""Find the rows that two stray quotes made one value of, in what the parser returned.

Such quotes obey the grammar of CSV, so only the value tells: one of its lines is a whole row, or its first line ends a
row and its last begins one. A line counts as a part of a row when it has the columns of one, and nothing stands in them
that the column holds nowhere else: text where all values are numbers, or words where all values are one word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.ingest.errors import RefusedFile

_LINE_END = re.compile(r"\r\n|\n|\r")
_NUMBER = r"[+-]?[0-9]+(?:[.,][0-9]+)?"
# Fewer values than these may all be one word by chance; numbers are none by chance.
_MANY = 20
# An expression that counts more delimiters grows too large for the engine.
_MANY_COLUMNS = 200
_SHAPES = [
    (re.compile(shape), least)
    for shape, least in (
        (_NUMBER, 1),
        (f"(?:{_NUMBER})?", 1),
        (r"\S*[0-9]\S*", _MANY),  # such as UUIDs
        (r"\S+", _MANY),
        (r"\S*", _MANY),
    )
]
_ANYTHING = re.compile(r"(?s:.*)")


def refuse_swallowed(file: str, rows: Any, lines: NDArray[np.int64], delimiter: str) -> None:
    """Raise RefusedFile for the first value of the rows (text columns) that holds what look like other rows."""
    n_delimiters = rows.num_columns - 1
    if n_delimiters < 1:
        return
    shapes: list[re.Pattern[str]] = []
    for position, (name, column) in enumerate(zip(rows.column_names, rows.columns, strict=True)):
        broken = _with_line_end(column)
        if not broken.any():
            continue
        at = np.flatnonzero(broken)
        values = column.filter(pa.array(broken))
        suspects = _suspects(values, delimiter, position, n_delimiters)
        for row, value in zip(at[suspects], values.filter(pa.array(suspects)).to_pylist(), strict=True):
            shapes = shapes or [_shape(other) for other in rows.columns]
            n_found = _rows_within(value, delimiter, position, shapes)
            if n_found:
                holds = "1 line that looks like a row" if n_found == 1 else f"{n_found} lines that look like rows"
                raise RefusedFile(
                    f"`{file}`: the quoted value of `{name}` in line {lines[row]} holds {holds}; say `quote: none` in "
                    "the mapping if the file does not quote, `quote: double` if that value is right."
                )


def _with_line_end(column: Any) -> NDArray[np.bool_]:
    found = pc.or_(pc.match_substring(column, "\n"), pc.match_substring(column, "\r"))
    return np.asarray(pc.fill_null(found, False).to_numpy(), dtype=bool)


def _suspects(values: Any, delimiter: str, position: int, n_delimiters: int) -> NDArray[np.bool_]:
    """Return which values of the column at `position` have lines with the delimiters of a row."""
    if n_delimiters > _MANY_COLUMNS:
        found = pc.greater_equal(pc.count_substring(values, delimiter), n_delimiters)
    else:
        out = re.escape(delimiter)
        whole, first, last = (
            rf"[^{out}\r\n]*(?:{out}[^{out}\r\n]*){{{count}}}"
            for count in (n_delimiters, n_delimiters - position, position)
        )
        found = pc.match_substring_regex(values, rf"(?s)[\r\n]{whole}[\r\n]|^{first}[\r\n](?:.*[\r\n])?{last}$")
    return np.asarray(found.to_numpy(), dtype=bool)


def _shape(column: Any) -> re.Pattern[str]:
    """Return the narrowest shape of all values of a column that are one line."""
    values = pc.utf8_trim_whitespace(pc.fill_null(column.filter(pa.array(~_with_line_end(column))), ""))

    def have(shape: re.Pattern[str]) -> bool:
        return bool(pc.all(pc.match_substring_regex(values, f"^(?:{shape.pattern})$")).as_py())

    return next((shape for shape, least in _SHAPES if len(values) >= least and have(shape)), _ANYTHING)


def _rows_within(value: str, delimiter: str, position: int, shapes: Sequence[re.Pattern[str]]) -> int:
    """Return how many rows begin inside of a value of the column at `position`."""
    first, *middle, last = _LINE_END.split(value)
    n_whole = sum(_fits(line, delimiter, shapes) for line in middle)
    ends = _fits(first, delimiter, shapes[position:]) and _fits(last, delimiter, shapes[: position + 1])
    # A line of two columns may well be one of a list: `1, pizza`.
    return n_whole + ends if ends or len(shapes) > 2 else 0


def _fits(line: str, delimiter: str, shapes: Sequence[re.Pattern[str]]) -> bool:
    if line.count(delimiter) != len(shapes) - 1:
        return False
    fields = line.split(delimiter)
    return all(shape.fullmatch(field.strip()) is not None for shape, field in zip(shapes, fields, strict=True))
