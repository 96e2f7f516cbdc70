"""Move Arrow tables into Postgres with COPY: whole columns become CSV in C, no row passes through Python.

It copies what it is given; checking rows against the contract is done before.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
from psycopg import sql


def copy_table(connection: psycopg.Connection[Any], target: sql.Composable, table: Any) -> None:
    """COPY an Arrow table into the columns of the same names; lists become Postgres arrays."""
    if table.num_rows == 0:
        return
    columns = [_postgres_array(column) if pa.types.is_list(column.type) else column for column in table.columns]
    buffer = pa.BufferOutputStream()
    pcsv.write_csv(pa.table(columns, names=table.column_names), buffer, pcsv.WriteOptions(include_header=False))
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
        target, sql.SQL(", ").join(map(sql.Identifier, table.column_names))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(memoryview(buffer.getvalue()))


def _postgres_array(column: Any) -> Any:
    """Return `{"a","b"}` for each list, null for null."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    items = array.flatten()
    if pa.types.is_string(items.type):
        items = pc.replace_substring(pc.replace_substring(items, "\\", "\\\\"), '"', '\\"')
        items = pc.binary_join_element_wise('"', items, '"', "")
    else:
        items = items.cast(pa.string())
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    offsets = pc.cumulative_sum(pa.concat_arrays([pa.array([0], pa.int32()), lengths.cast(pa.int32())]))
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, items), ",")
    text = pc.binary_join_element_wise("{", joined, "}", "")
    return pc.if_else(array.is_valid(), text, pa.scalar(None, pa.string()))
