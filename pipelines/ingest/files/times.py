"""Turn one source column of any type into instants or dates, without looking at single rows.

A value that does not parse is a fault, never a default. A zone moves an instant to UTC; it never moves a date of birth,
which is the same day everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.contract import faults as why
from feature_repo.contract.columns import is_text, mask_of, numbers, present, text_of, without, wrong_type
from feature_repo.contract.faults import Faults, Mask
from pipelines.ingest.files.formats import ISO, reads_zone

# The day or the month at the end of `2024-03-01` is no offset: a zone stands behind a time. Whatever zone pandas reads
# must be seen here too, or it would be applied and the declared one on top of it.
_TIME = r"[Tt ]\s*[0-9]{1,2}(:?[0-9]{1,2}(:?[0-9]{1,2}([.,][0-9]*)?)?)?"
_ZONE = r"\s*([Zz]|[+-][0-9]{1,2}(:?[0-9]{1,2})?)$"
_ZONED = _TIME + _ZONE
# The first day of a year or a month is nobody's day of birth for want of another.
_WITHOUT_DAY = r"^\s*[0-9]{4}([-/.\\ ]?[0-9]{1,2})?\s*$"
# To pandas these are the instant of the import, whatever the format.
_WORDS = pa.array(["now", "today"])
_UTC = pa.timestamp("us", "UTC")
_UNITS = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}
_YEAR_1_US, _YEAR_9999_US = -62_135_596_800_000_000, 253_402_300_799_000_000
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def instants(
    array: Any,
    faults: Faults,
    column: str,
    *,
    text_format: str | None = None,
    unit: str | None = None,
    timezone: str = "UTC",
) -> Any:
    """Return `timestamp[us, UTC]`; what carries no zone is read in `timezone`, numbers in `unit` since 1970."""
    if unit is not None:
        counted = numbers(array, faults, column, -1e30, 1e30)
        micros = np.asarray(pc.fill_null(counted, 0.0).to_numpy(zero_copy_only=False)) * _UNITS[unit]
        outside = (micros < _YEAR_1_US) | (micros > _YEAR_9999_US)
        faults.mark(outside, why.OUT_OF_RANGE, column)
        whole = pa.array(np.where(outside, 0.0, micros).round().astype(np.int64))
        return without(whole, outside | ~present(counted)).cast(_UTC)
    if pa.types.is_date(array.type) or pa.types.is_timestamp(array.type):
        stamps = _typed(array, faults, column)
        is_zoned = pa.types.is_timestamp(array.type) and array.type.tz is not None
        return stamps if is_zoned else _localised(stamps, timezone)
    if not is_text(array.type):
        return wrong_type(array, faults, column, _UTC)
    text = text_of(array)
    stamps = _parsed(text, faults, column, text_format)
    if timezone == "UTC" or (text_format is not None and reads_zone(text_format)):
        return stamps
    if text_format not in {None, ISO}:
        return _localised(stamps, timezone)
    zoned = pc.fill_null(pc.match_substring_regex(text, _ZONED), False)
    return pc.if_else(zoned, stamps, _localised(stamps, timezone))


def _typed(array: Any, faults: Faults, column: str) -> Any:
    """Return dates and timestamps of any resolution as `timestamp[us, UTC]` of the same number."""
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("s" if pa.types.is_date32(array.type) else "ms"), safe=False)
    # A cast to microseconds would wrap around without a word.
    counted = array.cast(pa.int64())
    a_second = _PER_SECOND[array.type.unit]
    low, high = _YEAR_1_US // 1_000_000 * a_second, _YEAR_9999_US // 1_000_000 * a_second
    low, high = max(low, -(2**63)), min(high, 2**63 - 1)
    outside = mask_of(pc.or_(pc.less(counted, low), pc.greater(counted, high)))
    faults.mark(outside, why.OUT_OF_RANGE, column)
    naive = without(counted, outside).cast(pa.timestamp(array.type.unit))
    return naive.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).cast(_UTC)


def _parsed(text: Any, faults: Faults, column: str, text_format: str | None) -> Any:
    """Return text as `timestamp[us, UTC]`, taking UTC where it carries no zone."""
    parsed = _read(without(text, mask_of(pc.is_in(text, _WORDS))), text_format or ISO)
    unread = present(text) & ~np.asarray(parsed.notna())
    if unread.any():
        # pandas counts nanoseconds, and so knows no year before 1678 or after 2261.
        far = _rows_where(text, unread, lambda value: _as_datetime(value, text_format) is not None)
        faults.mark(far, why.OUT_OF_RANGE, column)
        faults.mark(unread, why.WRONG_TYPE, column)
    return pa.Array.from_pandas(parsed, type=_UTC, safe=False)


def _read(text: Any, text_format: str) -> pd.Series[Any]:
    if text_format == ISO:
        zoned = mask_of(pc.match_substring_regex(text, _ZONED))
        if zoned.any() and not zoned[present(text)].all():
            # To pandas, what carries no zone has that of the row before.
            return _read(without(text, ~zoned), ISO).where(zoned, _read(without(text, zoned), ISO))
    # Offsets such as +0130 or a bare +01 are ISO 8601; letting pandas see one zone keeps its fast path.
    frame = pd.Series(text.to_pandas(), dtype="object")
    return pd.to_datetime(frame, errors="coerce", utc=True, format=text_format)


def _rows_where(text: Any, rows: Mask, holds: Callable[[str], bool]) -> Mask:
    coded = without(text, ~rows).dictionary_encode()
    answers = np.array([holds(value) for value in coded.dictionary.to_pylist()] + [False])
    codes = np.asarray(pc.fill_null(coded.indices, len(answers) - 1).to_numpy(zero_copy_only=False), dtype=np.int64)
    return np.asarray(answers[codes])


def _as_datetime(text: str, text_format: str | None) -> datetime | None:
    try:
        if text_format in {None, ISO}:
            return datetime.fromisoformat(text)
        return datetime.strptime(text, text_format)  # noqa: DTZ007 - only whether, or the day, is asked
    except (ValueError, OverflowError):
        return None


def _localised(stamps: Any, timezone: str) -> Any:
    """Read wall-clock time as time in `timezone`; a doubtful hour is its earlier reading, a skipped one moves on."""
    if timezone == "UTC":
        return stamps
    naive = stamps.cast(pa.int64()).cast(pa.timestamp("us"))
    zoned = pc.assume_timezone(naive, timezone, ambiguous="earliest", nonexistent="latest")
    return zoned.cast(_UTC)


def dates(array: Any, faults: Faults, column: str, *, text_format: str | None = None, unit: str | None = None) -> Any:
    """Return `date32`: the day that is written, whatever zone stands behind it; numbers count in UTC."""
    if unit is not None:
        return _days(instants(array, faults, column, unit=unit))
    if pa.types.is_date32(array.type):
        return array
    if pa.types.is_date(array.type):
        return array.cast(pa.date32(), safe=False)
    if pa.types.is_timestamp(array.type):
        if array.type.tz is not None:
            array = pc.local_timestamp(array)
        return _days(_typed(array, faults, column))
    if not is_text(array.type):
        return wrong_type(array, faults, column, pa.date32())
    text = text_of(array)
    if text_format is not None and reads_zone(text_format):
        return _days_as_written(text, faults, column, text_format)
    if text_format in {None, ISO}:
        without_day = mask_of(pc.match_substring_regex(text, _WITHOUT_DAY))
        faults.mark(without_day, why.WRONG_TYPE, column)
        text = without(text, without_day)
        zoned = mask_of(pc.match_substring_regex(text, _ZONED))
        if zoned.any():
            text = pc.if_else(pa.array(zoned), pc.replace_substring_regex(text, _ZONE, ""), text)
    return _days(_parsed(text, faults, column, text_format))


def _days_as_written(text: Any, faults: Faults, column: str, text_format: str) -> Any:
    coded = text.dictionary_encode()
    found = [_as_datetime(value, text_format) for value in coded.dictionary.to_pylist()]
    days = pa.array([None if at is None else at.date() for at in found], pa.date32()).take(coded.indices)
    faults.mark(present(text) & ~present(days), why.WRONG_TYPE, column)
    return days


def _days(stamps: Any) -> Any:
    return stamps.cast(pa.int64()).cast(pa.timestamp("us")).cast(pa.date32(), safe=False)
