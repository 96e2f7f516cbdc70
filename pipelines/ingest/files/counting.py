"""Count what times and ids of an import look like, so that what is wrong is told where each row is believable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.contract.columns import is_text, mask_of, present, text_of
from infra.clock import EARLIEST
from pipelines.ingest.columns.mapping import ColumnSource

# Seconds that are read as milliseconds, or those as microseconds, all land within these first days of 1970.
_NEXT_YEAR = pa.scalar(EARLIEST.replace(year=EARLIEST.year + 1), pa.timestamp("us", "UTC"))
_A_MONTH = 31
_FIRST = pa.scalar(EARLIEST, pa.timestamp("us", "UTC"))
_COUNT_OF_SECONDS = r"^-?[0-9]{7,19}(\.[0-9]+)?$"


# What 1 and 10000000000 become where a column holds floats.
_AS_FLOAT = r"^[+-]?[0-9]+\.0+$|^[0-9](\.[0-9]+)?e\+[0-9]+$"


@dataclass
class _Seen:
    n_rows: int = 0
    n_first_year: int = 0
    n_first_days: int = 0
    n_unread_numbers: int = 0
    are_dates: bool = False


@dataclass
class TimeCount:
    """How many times or dates of each column were there, lie about 1970, or are numbers without a unit."""

    columns: dict[str, _Seen] = field(default_factory=dict)

    def note(self, name: str, origin: ColumnSource, array: Any, stamps: Any) -> None:
        """Count one batch of a column: as it was written, and as it was read."""
        seen = self.columns.setdefault(origin.column or name, _Seen())
        seen.n_rows += len(array) - array.null_count
        seen.are_dates = pa.types.is_date(stamps.type)
        if origin.unit is not None and seen.are_dates:
            days = pc.abs(stamps.cast(pa.int32()))
            seen.n_first_days += int(mask_of(pc.less_equal(days, _A_MONTH)).sum())
        elif origin.unit is not None:
            first_year = pc.and_(pc.greater(stamps, _FIRST), pc.less(stamps, _NEXT_YEAR))
            seen.n_first_year += int(mask_of(first_year).sum())
        elif origin.format is None and is_text(array.type):
            unread = ~present(stamps)
            if unread.any():
                seen.n_unread_numbers += int(
                    mask_of(pc.match_substring_regex(text_of(array.filter(pa.array(unread))), _COUNT_OF_SECONDS)).sum()
                )

    def notes(self) -> list[str]:
        """Return a sentence for each column most of whose times look wrong."""
        told = []
        for name, seen in self.columns.items():
            what = "dates" if seen.are_dates else "times"
            if seen.n_first_days * 2 > seen.n_rows:
                told.append(
                    f"{seen.n_first_days:,} of {seen.n_rows:,} dates of `{name}` lie within a month of 1970-01-01: is "
                    "its `unit` right? Seconds that are read as milliseconds land there, and so does 0."
                )
            if seen.n_first_year * 2 > seen.n_rows:
                told.append(
                    f"{seen.n_first_year:,} of {seen.n_rows:,} times of `{name}` lie in 1970: is its `unit` right? "
                    "Seconds that are read as milliseconds land there."
                )
            if seen.n_unread_numbers * 2 > seen.n_rows:
                told.append(
                    f"{seen.n_unread_numbers:,} of {seen.n_rows:,} {what} of `{name}` are plain numbers: if they count "
                    "since 1970, say in what in the mapping, e.g. `unit: s`."
                )
        return told


@dataclass
class IdCount:
    """How many hashed ids of each column are whole numbers that a float has spelled."""

    columns: dict[str, tuple[int, str]] = field(default_factory=dict)

    def note(self, column: str, texts: Any) -> None:
        """Count one batch of a column of ids that are hashed."""
        found = texts.filter(pc.fill_null(pc.match_substring_regex(texts, _AS_FLOAT), False))
        if len(found):
            before, first = self.columns.get(column, (0, found[0].as_py()))
            self.columns[column] = (before + len(found), first)

    def notes(self) -> list[str]:
        """Return a sentence for each column that has such ids."""
        return [
            f"{n_ids:,} {'id' if n_ids == 1 else 'ids'} of `{column}` {'is' if n_ids == 1 else 'are'} written like "
            f"`{first}`: with `hash: true` that is another person than the same number without a point or an exponent; "
            "write whole numbers as such."
            for column, (n_ids, first) in self.columns.items()
        ]
