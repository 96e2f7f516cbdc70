"""A photograph of the people is read a part at a time, and gives what reading it whole gives."""

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.features.profiles import profile_rows
from pipelines.ingest.snapshots import PEOPLE_PER_PART, people_in_rows, people_parts, people_schema, read_people
from tests.unit.features.test_people_history import interactions

N = 7


@pytest.fixture
def path(tmp_path: Path) -> Path:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    rows = {
        "user_id": list(range(1, N + 1)),
        "birth_date": [date(1990, 1, day) for day in range(1, N + 1)],
        "gender": ["woman"] * N,
        "seeking": [["man"]] * N,
        "interests": [["chess"] * (n % 3) for n in range(N)],
        "bio_length": [0] * N,
        "created_at": [at] * N,
        "visible": [True] * N,
        "attributes": ['{"height": 180}'] * N,
    }
    schema = people_schema()
    table = pa.table(
        {name: pa.array(rows.get(name, [None] * N), type=schema.field(name).type) for name in schema.names}
    )
    pq.write_table(table, tmp_path / "people.parquet")
    return tmp_path / "people.parquet"


def test_parts_pack_into_the_rows_of_the_whole(path: Path) -> None:
    whole = profile_rows(read_people(path), {"height": 3}, interactions())
    parts = profile_rows(people_parts(path, 2), {"height": 3}, interactions())
    for one, other in zip(vars(whole).values(), vars(parts).values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_chosen_rows_are_found_in_whichever_part_they_are(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PEOPLE_PER_PART > N
    monkeypatch.setattr(people_parts, "__defaults__", (3,))
    assert people_in_rows(path, np.array([0, 2, 3, 6])).user_id.tolist() == [1, 3, 4, 7]
    assert people_in_rows(path, np.array([], dtype=np.int64)).user_id.tolist() == []
