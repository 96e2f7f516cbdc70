"""The row contract: source columns in, rows that fit the database out, and a reason for every other row.

Pure and vectorised. What only the database knows (unknown people, keys seen earlier in the file) is found by the
loader. Nothing is repaired: a row fits or it is quarantined.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.contract import columns as read
from feature_repo.contract import faults as why
from feature_repo.contract import people
from feature_repo.contract.columns import mask_of, present, without
from feature_repo.contract.faults import Faults
from feature_repo.kinds import KINDS
from pipelines.ingest.columns.attributes import SOURCE_ID, NumericColumns, json_objects
from pipelines.ingest.columns.identities import Known, hashed_ids, nobody
from pipelines.ingest.columns.mapping import ColumnSource, Rating
from pipelines.ingest.files.counting import IdCount, TimeCount
from pipelines.ingest.files.parquet_types import is_bytes
from pipelines.ingest.files.times import dates, instants
from pipelines.ingest.loading.frames import INTERACTIONS, PEOPLE, event_ids, hashed_event_ids

_KIND_NAMES = {kind: kind for kind in KINDS}
_UUID = r"^[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}$"


@dataclass(frozen=True)
class Cleaned:
    """Rows that fit, and which source rows do not."""

    good: Any
    bad: NDArray[np.int64]
    reasons: list[str]


class _Rows:
    """One batch and where its contract columns come from."""

    def __init__(
        self,
        table: Any,
        origins: Mapping[str, ColumnSource],
        faults: Faults,
        known: Known,
        times: TimeCount | None,
        *,
        null_values: Collection[str],
        ids: IdCount | None,
    ) -> None:
        self._table = table
        self._origins = origins
        self._known = known
        self._times = times
        self._null_values = [value.strip() for value in null_values]
        self._id_count = ids
        self.n_rows: int = table.num_rows
        self.faults = faults

    def source(self, name: str) -> ColumnSource:
        return self._origins.get(name, _ABSENT)

    def column(self, name: str) -> Any:
        """Return the source array of a contract column; text with NUL characters is a fault."""
        origin = self._origins.get(name)
        if origin is None:
            return pa.nulls(self.n_rows, pa.string())
        if origin.column is None:
            return pa.array([origin.constant] * self.n_rows)
        return self.raw(origin.column)

    def raw(self, column: str) -> Any:
        array = self._table.column(column)
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.nulls(0, array.type)
        if pa.types.is_null(array.type):
            array = array.cast(pa.string())
        if is_bytes(array.type) or (read.is_text(array.type) and not _is_sound(array)):
            array = self._decoded(array, column)
        if read.is_text(array.type):
            nul = mask_of(pc.match_substring(array, "\x00"))
            self.faults.mark(nul, why.NUL, column)
            array = without(array, nul)
        return self._without_null_values(array)

    def _without_null_values(self, array: Any) -> Any:
        """Take out what the mapping calls no value, blanks or not; of a number, any way to write it is meant."""
        kind = array.type
        is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        if not self._null_values or not (is_number or read.is_text(kind) or pa.types.is_boolean(kind)):
            return array
        text, values = read.text_of(array), self._null_values
        if is_number:
            text, values = read.short(text), [read.spelling(value) for value in values]
        return without(array, mask_of(pc.is_in(text, pa.array(values, pa.string()))))

    def _decoded(self, array: Any, column: str) -> Any:
        """Return bytes as text; those that are no UTF-8 are a fault."""
        raw = array.cast(pa.binary(), safe=False).to_pylist()
        texts = [None if value is None else _utf8(value) for value in raw]
        broken = np.array([value is not None and text is None for value, text in zip(raw, texts, strict=True)], bool)
        self.faults.mark(broken, why.WRONG_TYPE, column)
        return pa.array(texts, pa.string())

    def ids(self, name: str) -> Any:
        """Return ids 1 to 2^63-1, hashed when the source says so; a missing one is a fault."""
        array = self.column(name)
        if self.source(name).hash:
            texts = read.texts(array, self.faults, name, 1000)
            if self._id_count is not None:
                self._id_count.note(self.source(name).column or name, texts)
            values = hashed_ids(texts, self._known)
        else:
            values = read.integers(array, self.faults, name, 1, people.LARGEST_ID)
        return self.required(values, name)

    def instants(self, name: str, now: datetime) -> Any:
        """Return instants from 1970 to now."""
        origin, array = self.source(name), self.column(name)
        stamps = instants(
            array,
            self.faults,
            name,
            text_format=origin.format,
            unit=origin.unit,
            timezone=origin.timezone,
        )
        self._note(name, array, stamps)
        return people.past(stamps, self.faults, name, now)

    def birth_dates(self, now: datetime) -> Any:
        """Return dates of birth of people of age."""
        name = "birth_date"
        origin, array = self.source(name), self.column(name)
        born = dates(array, self.faults, name, text_format=origin.format, unit=origin.unit)
        self._note(name, array, born)
        return people.birth_dates(born, self.faults, now)

    def _note(self, name: str, array: Any, read_as: Any) -> None:
        if self._times is not None:
            self._times.note(name, self.source(name), array, read_as)

    def required(self, values: Any, name: str) -> Any:
        self.faults.mark(~present(values), why.MISSING, name)
        return values

    def cleaned(self, arrays: Mapping[str, Any], schema: Any) -> Cleaned:
        """Cut the faulty rows out and cast the rest to the schema; absent columns stay absent."""
        bad = self.faults.bad
        fields = [item for item in schema if item.name in arrays]
        keep = pa.array(~bad)
        good = pa.table(
            [arrays[f.name].filter(keep).cast(f.type, safe=False) for f in fields], schema=pa.schema(fields)
        )
        return Cleaned(good, np.flatnonzero(bad), self.faults.reasons())


_ABSENT = ColumnSource(column="-", constant=None)


def _is_sound(array: Any) -> bool:
    """Return whether text is UTF-8; a Parquet file may claim it falsely."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _utf8(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def clean_people(
    table: Any,
    lines: NDArray[np.int64],
    origins: Mapping[str, ColumnSource],
    extras: Sequence[str],
    *,
    now: datetime,
    numeric: NumericColumns,
    known: Known = nobody,
    times: TimeCount | None = None,
    null_values: Collection[str] = (),
    ids: IdCount | None = None,
) -> Cleaned:
    """Return the people of one batch; `good` has only the contract columns that `origins` names, and `attributes`."""
    faults = Faults(table.num_rows)
    rows = _Rows(table, origins, faults, known, times, null_values=null_values, ids=ids)
    arrays: dict[str, Any] = {"user_id": rows.ids("user_id")}
    for name, origin in origins.items():
        if name in people.INSTANTS:
            arrays[name] = rows.instants(name, now)
        elif name == "birth_date":
            arrays[name] = rows.birth_dates(now)
        elif name != "user_id":
            arrays[name] = people.fitted(
                name, rows.column(name), faults, separator=origin.separator, values=origin.values
            )
    people.consistent(arrays, faults)
    arrays["attributes"] = _attributes(rows, extras, numeric)
    arrays["line"] = pa.array(lines)
    return rows.cleaned(arrays, PEOPLE)


def _attributes(rows: _Rows, extras: Sequence[str], numeric: NumericColumns) -> Any:
    columns = {name: rows.raw(name) for name in extras}
    if rows.source("user_id").hash:
        columns = {**columns, SOURCE_ID: rows.column("user_id")}
    return json_objects(columns, rows.n_rows, rows.faults, numeric, names={SOURCE_ID})


def clean_interactions(
    table: Any,
    lines: NDArray[np.int64],
    origins: Mapping[str, ColumnSource],
    rating: Rating | None,
    *,
    now: datetime,
    known: Known = nobody,
    times: TimeCount | None = None,
    null_values: Collection[str] = (),
    ids: IdCount | None = None,
) -> Cleaned:
    """Return the interactions of one batch, each with its event id."""
    faults = Faults(table.num_rows)
    rows = _Rows(table, origins, faults, known, times, null_values=null_values, ids=ids)
    actors = rows.ids("actor_id")
    targets = rows.ids("target_id")
    kinds = _kinds(rows, rating)
    occurred = rows.required(rows.instants("occurred_at", now), "occurred_at")
    faults.mark(mask_of(pc.equal(actors, targets)), why.SELF)
    arrays = {
        "event_id": _event_ids(rows, origins, (actors, targets, kinds, occurred)),
        "actor_id": actors,
        "target_id": targets,
        "kind": kinds,
        "occurred_at": occurred,
        "line": pa.array(lines),
    }
    return rows.cleaned(arrays, INTERACTIONS)


def _kinds(rows: _Rows, rating: Rating | None) -> Any:
    if rating is not None:
        scores = read.numbers(rows.raw(rating.column), rows.faults, rating.column, -1e12, 1e12)
        rows.required(scores, rating.column)
        return pc.if_else(pc.greater_equal(scores, rating.like_at_or_above), "like", "pass")
    kinds = read.labels(rows.column("kind"), rows.faults, "kind", rows.source("kind").values or _KIND_NAMES)
    return rows.required(kinds, "kind")


def _event_ids(rows: _Rows, origins: Mapping[str, ColumnSource], content: Sequence[Any]) -> Any:
    faults = rows.faults
    given = pa.nulls(rows.n_rows, pa.string())
    if "event_id" in origins:
        given = read.texts(rows.column("event_id"), faults, "event_id", 1000)
        if rows.source("event_id").hash:
            named = present(given)
            hashed = hashed_event_ids(given.filter(pa.array(named)))
            given = _spread(hashed, named)
        else:
            faults.mark(present(given) & ~mask_of(pc.match_substring_regex(given, _UUID)), why.WRONG_TYPE, "event_id")
            given = pc.utf8_lower(pc.replace_substring(given, "-", ""))
    derived = ~present(given) & ~faults.bad
    if not derived.any():
        return given
    keep = pa.array(derived)
    fresh = event_ids(*(column.filter(keep) for column in content))
    return pc.coalesce(_spread(fresh, derived), given)


def _spread(values: Any, rows: NDArray[np.bool_]) -> Any:
    """Put `values` at the rows of the mask, null elsewhere."""
    at = np.cumsum(rows) - 1
    return values.take(pa.array(at, mask=~rows))
