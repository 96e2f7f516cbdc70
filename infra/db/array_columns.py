"""Columns of many rows as arrays: `array_agg` makes thousands of rows one, which costs the client next to nothing."""

from typing import Any, TypeVar

import numpy as np
import psycopg

from infra.db.pooled import Int64ArrayDumper, Int64ArrayLoader

_Cursor = TypeVar("_Cursor", bound=psycopg.Cursor[Any])


def take_arrays(cursor: _Cursor) -> _Cursor:
    """Have a binary cursor take int64[n] as int8[], and give int8[] and timestamptz[] as int64[n]; no value is null.

    Timestamps are microseconds since 2000.
    """
    cursor.adapters.register_dumper(np.ndarray, Int64ArrayDumper)
    for name in ("int8", "timestamptz"):
        cursor.adapters.register_loader(cursor.adapters.types[name].array_oid, Int64ArrayLoader)
    return cursor
