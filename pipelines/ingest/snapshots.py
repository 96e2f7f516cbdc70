"""Photograph people and interactions as of an instant: two Parquet files that every later step reads.

Both come from one repeatable-read transaction, so that nobody in the interactions is missing among the people. Rows
stream from the server in chunks, sorted, so memory stays bounded and equal data give equal bytes. People are taken
as they are now (their table keeps no history); only interactions are cut at the instant.
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import Connection, sql

from feature_repo.kinds import KINDS, NO_LONGER_LIKES, listed
from infra.clock import in_utc
from infra.files import sha256_of
from pipelines.errors import EmptySnapshot, ImpossibleInstant

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa

PEOPLE_FILE = "people.parquet"
INTERACTIONS_FILE = "interactions.parquet"
SLOTS_FILE = "attribute_slots.json"
ROWS_PER_CHUNK = 200_000
PEOPLE_PER_PART = 50_000

_PEOPLE = sql.SQL("""
    SELECT user_id, birth_date, gender, seeking, age_min, age_max, latitude, longitude, max_distance_km, interests,
           coalesce(char_length(bio), 0) AS bio_length, created_at, last_active_at, visible, attributes::text
    FROM duet.users {whom} ORDER BY user_id
""")
# Of two decisions in the same microsecond the one that ends a like comes last, because it counts.
_INTERACTIONS = sql.SQL("""
    COPY (SELECT actor_id, target_id, kind, (extract(epoch FROM occurred_at) * 1000000)::bigint
          FROM {rows} WHERE occurred_at <= {as_of}
          ORDER BY occurred_at, actor_id, target_id, kind IN ({ends}), kind) TO STDOUT (FORMAT csv)
""")
_EVERY_INTERACTION = sql.SQL("duet.interactions")
# Each half by its own index: a condition with `or` would read the whole table.
_INTERACTIONS_OF = sql.SQL("""
    (SELECT * FROM duet.interactions WHERE actor_id = ANY ({ids})
     UNION ALL SELECT * FROM duet.interactions WHERE target_id = ANY ({ids}) AND actor_id <> ALL ({ids})) AS theirs
""")
_BOUNDS = sql.SQL("SELECT min(occurred_at), max(occurred_at) FROM duet.interactions")

Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class RunInstant:
    """The instant of a run and why it was chosen."""

    at: datetime
    newest_at: datetime
    reason: str

    @property
    def is_historical(self) -> bool:
        """Tell whether the clock of the run was set back to the end of old data."""
        return self.reason.startswith("historical")


@dataclass(frozen=True)
class SnapshotFile:
    """One finished file of a snapshot."""

    path: Path
    rows: int
    digest: str


def choose_instant(connection: Connection[Any], requested: str, now: datetime, live_within: timedelta) -> RunInstant:
    """Choose the instant that bounds a run.

    Args:
        connection: to the database with the contract's tables.
        requested: an ISO 8601 instant with a zone, or empty to choose: now while data are live, else one second after
            the last interaction, so that the windows "last 7 days" of old data sets are not empty.
        now: the wall clock.
        live_within: data whose newest interaction is older than this are historical.

    Raises:
        EmptySnapshot: there are no interactions.
        ImpossibleInstant: `requested` is malformed, in the future, or before the first interaction.
    """
    oldest_at, newest_at = connection.execute(_BOUNDS).fetchone() or (None, None)
    if newest_at is None or oldest_at is None:
        raise EmptySnapshot("there are no interactions to learn from; run `duet import` first")
    if requested:
        at = parse_instant(requested)
        if at > now:
            raise ImpossibleInstant(
                f"`as_of` {requested} lies in the future; choose an instant up to now or leave it empty"
            )
        if at < oldest_at:
            raise ImpossibleInstant(
                f"`as_of` {requested} lies before the first interaction at {oldest_at.isoformat()}; choose a later one"
            )
        return RunInstant(at, newest_at, "asked for")
    if now - newest_at > live_within:
        return RunInstant(
            newest_at + timedelta(seconds=1), newest_at, "historical: one second after the last interaction"
        )
    return RunInstant(now, newest_at, "live data: now")


def parse_instant(text: str, setting: str = "as_of") -> datetime:
    """Read an ISO 8601 instant; without a zone it is UTC.

    Raises:
        ImpossibleInstant: `text` is not an instant.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ImpossibleInstant(
            f"`{setting}` {text!r} is not an instant; write it like `2026-01-31T12:00:00+00:00`"
        ) from None
    return in_utc(at)


def export_people(connection: Connection[Any], directory: Path, progress: Progress | None = None) -> SnapshotFile:
    """Write everybody to `people.parquet`, ascending by id.

    Raises:
        EmptySnapshot: there is nobody.
    """
    path = directory / PEOPLE_FILE
    rows = _write(path, people_schema(), _people_batches(connection), progress, "people")
    if rows == 0:
        raise EmptySnapshot("there is nobody in `duet.users`; run `duet import` first")
    return SnapshotFile(path, rows, sha256_of(path))


def export_interactions(
    connection: Connection[Any], directory: Path, as_of: datetime, progress: Progress | None = None
) -> SnapshotFile:
    """Write the interactions up to and including `as_of` to `interactions.parquet`, ascending by time.

    Raises:
        EmptySnapshot: there are none.
    """
    path = directory / INTERACTIONS_FILE
    rows = _write(path, interactions_schema(), _interaction_batches(connection, as_of), progress, "interactions")
    if rows == 0:
        raise EmptySnapshot(f"there are no interactions up to {as_of.isoformat()}; choose a later `as_of`")
    return SnapshotFile(path, rows, sha256_of(path))


def people_of(connection: Connection[Any], user_ids: Sequence[int]) -> "pd.DataFrame":
    """Return some people as `read_people` does; whoever is gone is left out."""
    import pyarrow as pa

    batches = list(_people_batches(connection, user_ids))
    people: pd.DataFrame = pa.Table.from_batches(batches, people_schema()).to_pandas()
    return people


def interactions_of(connection: Connection[Any], user_ids: Sequence[int], as_of: datetime) -> "pd.DataFrame":
    """Return every interaction of some people up to an instant, in either role, as `read_interactions` does."""
    import pyarrow as pa

    rows = _INTERACTIONS_OF.format(ids=sql.Literal(list(user_ids)))
    batches = list(_interaction_batches(connection, as_of, rows))
    interactions: pd.DataFrame = pa.Table.from_batches(batches, interactions_schema()).to_pandas()
    return interactions


def read_people(path: Path, columns: list[str] | None = None) -> "pd.DataFrame":
    """Read a people snapshot; lists come back as Python lists, missing numbers as NaN."""
    import pyarrow.parquet as pq

    people: pd.DataFrame = pq.read_table(path, columns=columns).to_pandas()
    return people


def people_parts(path: Path, rows: int = PEOPLE_PER_PART) -> Iterator["pd.DataFrame"]:
    """Read a people snapshot a part at a time: a million people as Python objects would take gigabytes."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(rows):
            yield batch.to_pandas()


def people_in_rows(path: Path, rows: "npt.NDArray[np.int64]") -> "pd.DataFrame":
    """Read those people of a snapshot who stand at `rows`, ascending."""
    import numpy as np
    import pandas as pd

    parts, first = [], 0
    for part in people_parts(path):
        inside = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + len(part))] - first
        parts.append(part.iloc[inside])
        first += len(part)
    return pd.concat(parts, ignore_index=True) if parts else read_people(path)


def read_interactions(path: Path, columns: list[str] | None = None) -> "pd.DataFrame":
    """Read an interactions snapshot; `kind` is categorical and `occurred_at` aware, in UTC."""
    import pyarrow.parquet as pq

    interactions: pd.DataFrame = pq.read_table(path, columns=columns).to_pandas()
    return interactions


def people_schema() -> "pa.Schema":
    """Return the columns of `people.parquet`."""
    import pyarrow as pa

    instant = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            ("user_id", pa.int64()), ("birth_date", pa.date32()), ("gender", pa.string()),
            ("seeking", pa.list_(pa.string())), ("age_min", pa.int16()), ("age_max", pa.int16()),
            ("latitude", pa.float32()), ("longitude", pa.float32()), ("max_distance_km", pa.float32()),
            ("interests", pa.list_(pa.string())), ("bio_length", pa.int32()), ("created_at", instant),
            ("last_active_at", instant), ("visible", pa.bool_()), ("attributes", pa.string()),
        ]
    )  # fmt: skip


def interactions_schema() -> "pa.Schema":
    """Return the columns of `interactions.parquet`."""
    import pyarrow as pa

    kind = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            ("actor_id", pa.int64()),
            ("target_id", pa.int64()),
            ("kind", kind),
            ("occurred_at", pa.timestamp("us", tz="UTC")),
        ]
    )


def _write(
    path: Path, schema: "pa.Schema", batches: Iterator["pa.RecordBatch"], progress: Progress | None, what: str
) -> int:
    import pyarrow.parquet as pq

    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
            if progress is not None:
                progress(what, rows)
    return rows


def _people_batches(connection: Connection[Any], user_ids: Sequence[int] | None = None) -> Iterator["pa.RecordBatch"]:
    import pyarrow as pa

    schema = people_schema()
    with connection.cursor(name="people_snapshot") as cursor:
        cursor.itersize = ROWS_PER_CHUNK // 4
        some = sql.SQL("WHERE user_id = ANY ({})").format(sql.Literal(list(user_ids or ())))
        cursor.execute(_PEOPLE.format(whom=sql.SQL("") if user_ids is None else some))
        while rows := cursor.fetchmany(cursor.itersize):
            columns = zip(*rows, strict=True)
            arrays = [pa.array(list(column), type=kind.type) for column, kind in zip(columns, schema, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _interaction_batches(
    connection: Connection[Any], as_of: datetime, rows: sql.Composable = _EVERY_INTERACTION
) -> Iterator["pa.RecordBatch"]:
    """Stream COPY's text straight into Arrow's parser: no row ever becomes a Python object."""
    import pyarrow as pa
    import pyarrow.csv as pacsv

    schema = interactions_schema()
    names = ["actor_id", "target_id", "kind", "occurred_us"]
    types = {"actor_id": pa.int64(), "target_id": pa.int64(), "kind": pa.string(), "occurred_us": pa.int64()}
    position = pa.array(KINDS)
    query = _INTERACTIONS.format(as_of=sql.Literal(as_of), rows=rows, ends=listed(NO_LONGER_LIKES))
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        source = _Readable(iter(copy))
        first = source.read(1)
        if not first:
            return
        source.unread(first)
        reader = pacsv.open_csv(
            pa.PythonFile(source, mode="r"),
            read_options=pacsv.ReadOptions(column_names=names, block_size=8 * 2**20),
            convert_options=pacsv.ConvertOptions(column_types=types),
        )
        for part in reader:
            codes = pa.compute.index_in(part["kind"], value_set=position)
            kinds = pa.DictionaryArray.from_arrays(codes, position)
            at = part["occurred_us"].cast(pa.timestamp("us", tz="UTC"))
            yield pa.RecordBatch.from_arrays([part["actor_id"], part["target_id"], kinds, at], schema=schema)


class _Readable(io.RawIOBase):
    """Present the blocks of a COPY as a file to read from."""

    def __init__(self, blocks: Iterator[Any]) -> None:
        self._blocks = blocks
        self._held = b""

    def readable(self) -> bool:
        return True

    def unread(self, data: bytes) -> None:
        self._held = data + self._held

    def read(self, size: int = -1) -> bytes:
        parts, have = [self._held], len(self._held)
        while size < 0 or have < size:
            block = next(self._blocks, None)
            if block is None:
                break
            parts.append(bytes(block))
            have += len(parts[-1])
        joined = b"".join(parts)
        cut = len(joined) if size < 0 else size
        self._held = joined[cut:]
        return joined[:cut]


def export_slots(connection: Connection[Any], directory: Path) -> dict[str, int]:
    """Write which numeric attribute owns which slot to `attribute_slots.json`."""
    rows = connection.execute("SELECT name, slot FROM duet.attribute_slots ORDER BY slot").fetchall()
    slots = {str(name): int(slot) for name, slot in rows}
    (directory / SLOTS_FILE).write_text(json.dumps(slots, sort_keys=True))
    return slots
