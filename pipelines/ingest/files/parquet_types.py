"""Bring what a Parquet file may hold down to the few Arrow types that the column readers know.

Views, dictionaries, fixed lists and unmarked strings say nothing about people; UUIDs become their usual text. A type
that a contract column cannot be read from is refused once for the file, not row by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from feature_repo.contract import columns
from pipelines.ingest.columns.mapping import ColumnSource
from pipelines.ingest.errors import RefusedFile
from pipelines.ingest.files.formats import knows_zone

_UUID_BYTES = 16
_NUMBERS = ("age_min", "age_max", "latitude", "longitude", "max_distance_km", "rating")
_INSTANTS = ("created_at", "last_active_at", "occurred_at")
_LISTS = ("seeking", "interests")
_IDS = ("user_id", "actor_id", "target_id")


def is_uuid(kind: Any) -> bool:
    """Return whether a type holds UUIDs as 16 bytes, with the logical type or without."""
    named = getattr(kind, "extension_name", "") == "arrow.uuid"
    return named or (pa.types.is_fixed_size_binary(kind) and kind.byte_width == _UUID_BYTES)


def is_bytes(kind: Any) -> bool:
    """Return whether a type holds bytes without a mark that they are text."""
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def plain_type(kind: Any) -> Any:
    """Return the type that a column is read as."""
    if is_uuid(kind) or pa.types.is_null(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if is_bytes(kind):
        return pa.binary()
    if _is_list(kind):
        return pa.list_(plain_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, plain_type(field.type)) for field in kind])
    return kind


def plain(array: Any) -> Any:
    """Return the array as its plain type; bytes become text unless one of them is no UTF-8."""
    if isinstance(array, pa.ExtensionArray) and not is_uuid(array.type):
        return plain(array.storage)
    if pa.types.is_dictionary(array.type):
        return plain(array.dictionary_decode())
    if is_uuid(array.type):
        storage = array.storage if isinstance(array, pa.ExtensionArray) else array
        return pa.array([None if raw is None else _uuid_text(raw) for raw in storage.to_pylist()], pa.string())
    target = plain_type(array.type)
    for kind in (_as_text(target), target):
        if kind == array.type:
            return array
        try:
            if pa.types.is_list_view(array.type) or pa.types.is_large_list_view(array.type):
                return pa.array(array.to_pylist(), kind)  # pyarrow 25 casts list views to invalid lists
            return array.cast(pa.binary()).cast(kind) if is_bytes(array.type) else array.cast(kind)
        except (pa.ArrowException, ValueError):
            continue
    return array  # readers find the rows that are wrong


def _as_text(kind: Any) -> Any:
    """Return a plain type with text in place of bytes."""
    if pa.types.is_binary(kind):
        return pa.string()
    return pa.list_(_as_text(kind.value_type)) if pa.types.is_list(kind) else kind


def _uuid_text(raw: bytes) -> str:
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _is_list(kind: Any) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def _is_text(kind: Any) -> bool:
    return is_bytes(kind) or columns.is_text(kind)


def _unknown_zone(kind: Any) -> str | None:
    """Return a time zone at any depth of a type in which no time can be read."""
    if pa.types.is_timestamp(kind):
        return None if kind.tz is None or knows_zone(kind.tz) else str(kind.tz)
    inner = [kind.field(position).type for position in range(kind.num_fields)]
    return next((zone for zone in map(_unknown_zone, inner) if zone is not None), None)


def check_types(origins: Mapping[str, ColumnSource], types: Mapping[str, Any], name: str) -> None:
    """Raise RefusedFile for a Parquet type that no value can be read from, or not that of its contract column."""
    for column, given in types.items():
        zone = _unknown_zone(given)
        if zone is not None:
            raise RefusedFile(
                f"`{name}`: the column `{column}` has times of the zone `{zone}`, which is not known here; write them "
                "in UTC or in a zone such as `Europe/Paris`."
            )
    for column, source in origins.items():
        if source.column is None or source.column not in types:
            continue
        given = types[source.column]
        hint = _refusal(column, source, given)
        if hint is not None:
            raise RefusedFile(
                f"`{name}`: the column `{source.column}` has the Parquet type `{given}`, from which `{column}` cannot "
                f"be read; {hint}."
            )


def _refusal(column: str, source: ColumnSource, given: Any) -> str | None:
    """Return what to do where a contract column cannot be read from a type, None where it can."""
    kind = plain_type(given)
    is_text = _is_text(kind)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    is_time = pa.types.is_date(kind) or pa.types.is_timestamp(kind)
    if column in _IDS and source.hash is False:
        if is_uuid(given):
            return f"ids are whole numbers, so map it with `{{column: {source.column}, hash: true}}`"
        return None if is_text or is_number else "ids are whole numbers"
    if column in _NUMBERS:
        return None if is_text or is_number else "write numbers"
    if column in _INSTANTS or column == "birth_date":
        if source.unit is not None:
            return None if is_text or is_number else "leave `unit` out, which is for numbers since 1970"
        if is_number:
            return "say in the mapping what its numbers count since 1970, e.g. `unit: s`"
        return None if is_text or is_time else "write dates or timestamps"
    if column in _LISTS:
        is_labels = _is_list(kind) and _is_text(kind.value_type)
        return None if is_text or is_labels else "write text or a list of texts"
    if column == "visible":
        return None if is_text or is_number or pa.types.is_boolean(kind) else "write true or false"
    return "write text" if pa.types.is_nested(kind) else None
