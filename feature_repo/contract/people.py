"""The contract of a person's row: the bounds of every column, and the one check that imports and the API make.

Columns come as Arrow arrays. Nothing is repaired: a value fits, or its row is a fault with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.contract import columns as read
from feature_repo.contract import faults as why
from feature_repo.contract.columns import mask_of, present
from feature_repo.contract.faults import Faults
from infra.clock import EARLIEST

LARGEST_ID: Final = 2**63 - 1
YOUNGEST: Final = 18
OLDEST: Final = 120
CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far ahead of our clock a time may be."""
NUMBERS: Final[Mapping[str, tuple[float, float]]] = {
    "latitude": (-90.0, 90.0),
    "longitude": (-180.0, 180.0),
    "max_distance_km": (0.0, 40_100.0),
}
AGES: Final = ("age_min", "age_max")
LISTS: Final = ("seeking", "interests")
INSTANTS: Final = ("created_at", "last_active_at")
CROSSED: Final = "age_min > age_max"
STAMP: Final = pa.timestamp("us", "UTC")

_LABELS: Final = f"at most {read.MAX_LABELS} different labels of at most {read.MAX_LABEL} characters"
_BOUNDS: Final[Mapping[str, str]] = {
    "user_id": f"a whole number from 1 to {LARGEST_ID}",
    "birth_date": f"the date of birth of somebody {YOUNGEST} to {OLDEST} years old",
    "gender": f"text of at most {read.MAX_LABEL} characters",
    "bio": f"text of at most {read.MAX_TEXT} characters",
    **{name: f"a number from {low:g} to {high:g}" for name, (low, high) in NUMBERS.items()},
    **dict.fromkeys(AGES, f"a whole number from {YOUNGEST} to {OLDEST}"),
    **dict.fromkeys(LISTS, _LABELS),
    "attributes": "JSON of finite numbers and of text without NUL characters",
    **dict.fromkeys(INSTANTS, f"a time from {EARLIEST.year} to now"),
}
_SENTENCES: Final[Mapping[str, str]] = {
    why.MISSING: "is missing: it must be {bounds}",
    why.FUTURE: "lies in the future: it must be {bounds}",
    why.DUPLICATE: "stands in an earlier row already",
    why.NUL: "must not hold a NUL character",
}


def fitted(
    name: str,
    array: Any,
    faults: Faults,
    *,
    separator: str | None = None,
    values: Mapping[str, str] | None = None,
) -> Any:
    """Return a column that is neither an id nor a time as the contract has it, null where its row is a fault.

    `separator` splits lists that are text; `values` maps labels, and those that it lacks are faults.
    """
    if name in NUMBERS:
        return read.numbers(array, faults, name, *NUMBERS[name])
    if name in AGES:
        return read.integers(array, faults, name, YOUNGEST, OLDEST)
    if name in LISTS:
        return read.label_lists(array, faults, name, separator=separator, values=values)
    if name == "gender":
        return read.labels(array, faults, name, values)
    if name == "visible":
        return pc.fill_null(read.flags(array, faults, name, values), True)
    return read.texts(array, faults, name)


def past(stamps: Any, faults: Faults, name: str, now: datetime) -> Any:
    """Return instants (`timestamp[us, UTC]`); those before 1970 or ahead of our clock are faults."""
    faults.mark(mask_of(pc.less(stamps, pa.scalar(EARLIEST, STAMP))), why.OUT_OF_RANGE, name)
    faults.mark(mask_of(pc.greater(stamps, pa.scalar(now + CLOCK_SKEW, STAMP))), why.FUTURE, name)
    return stamps


def birth_dates(born: Any, faults: Faults, now: datetime) -> Any:
    """Return dates of birth (`date32`); those of nobody of age, or of nobody alive, are faults."""
    today = now.astimezone(UTC).date()
    faults.mark(mask_of(pc.greater(born, pa.scalar(today))), why.FUTURE, "birth_date")
    outside = pc.or_(
        pc.greater(born, pa.scalar(_years_before(today, YOUNGEST))),
        pc.less(born, pa.scalar(_years_before(today, OLDEST))),
    )
    faults.mark(mask_of(outside), why.OUT_OF_RANGE, "birth_date")
    return born


def _years_before(day: date, years: int) -> date:
    # 29 February has no counterpart in most years; the day before is on the generous side.
    return day.replace(year=day.year - years, day=28 if (day.month, day.day) == (2, 29) else day.day)


def consistent(arrays: Mapping[str, Any], faults: Faults) -> None:
    """Mark the rows whose ages are not in order, and those with one half of a place."""
    if "age_min" in arrays and "age_max" in arrays:
        faults.mark(mask_of(pc.greater(arrays["age_min"], arrays["age_max"])), why.OUT_OF_RANGE, CROSSED)
    if "latitude" in arrays and "longitude" in arrays:
        here, there = present(arrays["latitude"]), present(arrays["longitude"])
        faults.mark(here & ~there, why.MISSING, "longitude")
        faults.mark(there & ~here, why.MISSING, "latitude")


def explained(reason: str) -> tuple[str, str]:
    """Return the column that a reason of `Faults` is about, and what to do as the end of a sentence about it."""
    kind, _, column = reason.partition(": ")
    if column == CROSSED:
        return "age_min", "must not be above `age_max`"
    return column, _SENTENCES.get(kind, "must be {bounds}").format(bounds=_BOUNDS.get(column, "what its type says"))
