"""The shape that every importer hands to the loader: two Arrow schemas that mirror the tables.

`line` is where the row came from, so that what only the database can find wrong still names its line.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_STAMP = pa.timestamp("us", "UTC")

PEOPLE = pa.schema(
    [
        ("user_id", pa.int64()),
        ("birth_date", pa.date32()),
        ("gender", pa.string()),
        ("seeking", pa.list_(pa.string())),
        ("age_min", pa.int16()),
        ("age_max", pa.int16()),
        ("latitude", pa.float32()),
        ("longitude", pa.float32()),
        ("max_distance_km", pa.float32()),
        ("interests", pa.list_(pa.string())),
        ("bio", pa.string()),
        ("created_at", _STAMP),
        ("last_active_at", _STAMP),
        ("visible", pa.bool_()),
        ("attributes", pa.string()),
        ("line", pa.int64()),
    ]
)

INTERACTIONS = pa.schema(
    [
        ("event_id", pa.string()),
        ("actor_id", pa.int64()),
        ("target_id", pa.int64()),
        ("kind", pa.string()),
        ("occurred_at", _STAMP),
        ("line", pa.int64()),
    ]
)

_EVENT_NAMESPACE = uuid.UUID("6f1d6a53-5c0e-5d0a-9d8a-64756574e001")


def event_ids(actor_ids: Any, target_ids: Any, kinds: Any, occurred_at: Any) -> Any:
    """Return the uuid5 (32 hex digits) of each interaction's own content: the same event always has the same id."""
    names = pc.binary_join_element_wise(
        actor_ids.cast(pa.string()),
        target_ids.cast(pa.string()),
        kinds,
        occurred_at.cast(pa.int64()).cast(pa.string()),
        ":",
    )
    return hashed_event_ids(names)


def hashed_event_ids(names: Any) -> Any:
    """Return the uuid5 of each text within Duet's namespace, as 32 hex digits."""
    prefix = hashlib.sha1(_EVENT_NAMESPACE.bytes, usedforsecurity=False)
    digests = bytearray()
    for name in names.to_pylist():
        state = prefix.copy()
        state.update(name.encode())
        digests += state.digest()[:16]
    raw = np.frombuffer(bytes(digests), dtype=np.uint8).reshape(-1, 16).copy()
    return hex_uuids(raw, version=5)


def hex_uuids(raw: NDArray[np.uint8], *, version: int) -> Any:
    """Return uint8[n, 16] as 32 hex digits each, with the version and variant bits set in place."""
    raw[:, 6] = (raw[:, 6] & 0x0F) | (version << 4)
    raw[:, 8] = (raw[:, 8] & 0x3F) | 0x80
    text = raw.tobytes().hex().encode()
    offsets = np.arange(0, 32 * len(raw) + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(len(raw), pa.py_buffer(offsets), pa.py_buffer(text))
