"""Whatever type a Parquet file gives a column, its values are read, or the file is refused once and by name."""

import json
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.ingest.columns.attributes import NumericColumns
from pipelines.ingest.columns.cleaning import clean_people
from pipelines.ingest.columns.mapping import Mapping, PeopleMapping
from pipelines.ingest.columns.resolution import resolve
from pipelines.ingest.errors import RefusedFile
from pipelines.ingest.files.opening import open_source
from pipelines.ingest.files.parquet_types import check_types, plain
from pipelines.ingest.tables import import_tables
from tests.clocks import FixedClock

NOW = datetime(2026, 6, 1, tzinfo=UTC)
MARS = pa.timestamp("us", "Mars/Base")
ONE, TWO = uuid.UUID(int=1), uuid.UUID("8f14e45f-ceea-467f-a0e6-0242ac120002")


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (pa.array(["a", None], pa.string_view()), ["a", None]),
        (pa.array(["a", None], pa.large_string()), ["a", None]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.array([b"a", None], pa.binary()), ["a", None]),
        (pa.array([b"a", None], pa.large_binary()), ["a", None]),
        (pa.array([b"a", None], pa.binary_view()), ["a", None]),
        (pa.array([b"ab", None], pa.binary(2)), ["ab", None]),
        (pa.array([ONE.bytes, None], pa.binary(16)), [str(ONE), None]),
        (pa.array([TWO.bytes, None], pa.uuid()), [str(TWO), None]),
        (pa.array([["a", "b"], None], pa.list_(pa.string(), 2)), [["a", "b"], None]),
        (pa.array([["a"], None], pa.list_view(pa.string())), [["a"], None]),
        (pa.array([["a"], None], pa.large_list_view(pa.string_view())), [["a"], None]),
        (pa.array([["a"], None], pa.large_list(pa.binary())), [["a"], None]),
        (pa.array([["a"], None], pa.large_list(pa.large_string())), [["a"], None]),
        (pa.array([None, None], pa.null()), [None, None]),
    ],
)
def test_views_dictionaries_fixed_lists_and_unmarked_strings_are_what_they_hold(array: Any, values: list[Any]) -> None:
    found = plain(array)
    found.validate(full=True)
    assert found.to_pylist() == values
    assert found.type in {pa.string(), pa.large_string(), pa.list_(pa.string()), pa.list_(pa.large_string())}


def cleaned(path: Path, columns: dict[str, Any], mapping: dict[str, Any] | None = None) -> tuple[Any, list[str]]:
    pq.write_table(pa.table(columns), path)
    source = open_source(path)
    resolved = resolve(PeopleMapping.model_validate(mapping or {}), source.header, path)
    check_types(resolved.origins, source.types, path.name)
    [batch] = source.batches()
    found = clean_people(batch.rows, batch.lines, resolved.origins, resolved.left, now=NOW, numeric=NumericColumns())
    assert found.good.num_rows + len(found.bad) == len(next(iter(columns.values())))
    return found.good.drop(["line"]).to_pylist(), found.reasons


def test_columns_of_a_warehouse_are_read(tmp_path: Path) -> None:
    columns = {
        "user_id": pa.array([Decimal(1), Decimal(2)], pa.decimal128(38, 0)),
        "Visible": [1.0, 0.0],
        "interests": pa.array([["a", "b"], ["c", "d"]], pa.list_(pa.string(), 2)),
        "gender": pa.array(["F", "m"], pa.string_view()),
        "bio": pa.array([b"hi", b"caf\xc3\xa9"]),
    }
    rows, reasons = cleaned(tmp_path / "p.parquet", columns)
    assert reasons == []
    assert [(r["user_id"], r["visible"], r["interests"], r["gender"], r["bio"]) for r in rows] == [
        (1, True, ["a", "b"], "f", "hi"),
        (2, False, ["c", "d"], "m", "café"),
    ]


@pytest.mark.parametrize(
    "kind",
    [
        listed(text)
        for listed in (pa.list_, pa.large_list, pa.list_view, lambda text: pa.list_(text, 2))
        for text in (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary())
    ],
    ids=str,
)
def test_labels_are_read_from_any_list_of_any_text(tmp_path: Path, kind: Any) -> None:
    columns = {"user_id": [1, 2], "interests": pa.array([["A", "b"], ["c", "a"]], kind)}
    rows, reasons = cleaned(tmp_path / "p.parquet", columns)
    assert ([row["interests"] for row in rows], reasons) == ([["a", "b"], ["c", "a"]], [])


@pytest.mark.parametrize("kind", [pa.uuid(), pa.binary(16)])
def test_uuids_are_hashed_as_their_text(tmp_path: Path, kind: Any) -> None:
    hashed = {"user_id": {"column": "user_id", "hash": True}}
    [row], _ = cleaned(tmp_path / "p.parquet", {"user_id": pa.array([TWO.bytes], kind)}, hashed)
    [text], _ = cleaned(tmp_path / "p.parquet", {"user_id": [str(TWO).upper()]}, hashed)
    assert row["user_id"] == text["user_id"]
    assert row["attributes"] == f'{{"source_id": "{TWO}"}}'


def test_bytes_that_are_no_text_are_a_fault_of_their_row_only(tmp_path: Path) -> None:
    columns = {
        "user_id": [1, 2, 3],
        "bio": pa.array([b"ok", b"\xff\xfe", None]),
        "city": pa.array([b"a", b"b", b"\xff"]),
    }
    rows, reasons = cleaned(tmp_path / "p.parquet", columns)
    assert [row["user_id"] for row in rows] == [1]
    assert reasons == ["wrong_type: bio", "wrong_type: city"]
    broken = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"a\xff"))
    rows, reasons = cleaned(tmp_path / "p.parquet", {"user_id": [1, 2], "gender": broken})
    assert ([row["gender"] for row in rows], reasons) == (["a"], ["wrong_type: gender"])


@pytest.mark.parametrize(
    ("column", "mapping", "sentence"),
    [
        ({"user_id": pa.array([True])}, {}, "`user_id` has the Parquet type `bool`, .*; ids are whole numbers"),
        ({"user_id": pa.array([ONE.bytes], pa.uuid())}, {}, r"map it with `\{column: user_id, hash: true\}`"),
        ({"user_id": [1], "created_at": [1]}, {}, "`created_at` has the Parquet type `int64`, .*`unit: s`"),
        ({"user_id": [1], "birth_date": [1]}, {}, "`birth_date` has the Parquet type `int64`"),
        ({"user_id": [1], "visible": [[True]]}, {}, "write true or false"),
        ({"user_id": [1], "interests": [[1]]}, {}, "write text or a list of texts"),
        ({"user_id": [1], "gender": [{"a": 1}]}, {}, "write text"),
        ({"user_id": [1], "latitude": [NOW]}, {}, "write numbers"),
        (
            {"user_id": [1], "birth_date": [NOW]},
            {"birth_date": {"column": "birth_date", "unit": "s"}},
            "leave `unit` out",
        ),
        (
            {"user_id": [1], "birth_date": pa.array([0], MARS)},
            {},
            "`birth_date` has times of the zone `Mars/Base`, .* not known",
        ),
        ({"user_id": [1], "seen": pa.array([0], MARS)}, {}, "`seen` has times of the zone `Mars/Base`"),
        (
            {"user_id": [1], "seen": pa.array([0], MARS)},
            {"ignore": ["seen"]},
            "`seen` has times of the zone `Mars/Base`",
        ),
        ({"user_id": [1], "visits": pa.array([[0]], pa.list_(MARS))}, {}, "`visits` has times of the zone `Mars/Base`"),
        (
            {"user_id": [1], "trip": pa.array([{"at": 0}], pa.struct([("at", MARS)]))},
            {},
            "`trip` has times of the zone `Mars/Base`",
        ),
    ],
)
def test_a_type_that_a_column_cannot_be_read_from_is_refused_once(
    tmp_path: Path, column: dict[str, Any], mapping: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RefusedFile, match=sentence):
        cleaned(tmp_path / "p.parquet", column, mapping)


@pytest.mark.parametrize("stars", [pa.array([True]), pa.array([[5]]), pa.array([NOW])])
def test_a_rating_of_a_type_that_is_no_number_is_refused_once(tmp_path: Path, stars: pa.Array) -> None:
    pq.write_table(pa.table({"actor": [1], "target": [2], "time": [NOW], "stars": stars}), tmp_path / "i.parquet")
    rated = {"interactions": {"rating": {"column": "Stars", "like_at_or_above": 4}}}
    with pytest.raises(RefusedFile, match=r"`stars` has the Parquet type .* `rating` cannot be read; write numbers"):
        import_tables(
            cast("Any", None),
            people=None,
            interactions=tmp_path / "i.parquet",
            data_dir=tmp_path,
            clock=FixedClock(NOW),
            mapping=Mapping.model_validate(rated),
        )


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([[1.0, float("nan")], [2.0]], "not_finite: extra"),
        ([{"a": float("-inf")}, {"a": 2.0}], "not_finite: extra"),
        ([{"a": [{"b": "x\x00y"}]}, {"a": [{"b": "y"}]}], "nul_character: extra"),
        ([{"a": b"\xff"}, {"a": b"y"}], "wrong_type: extra"),
        ([[Decimal("NaN").is_nan() and float("nan")], [1.0]], "not_finite: extra"),
    ],
)
def test_a_nested_value_that_json_cannot_hold_is_a_fault_of_its_row_only(
    tmp_path: Path, values: list[Any], reason: str
) -> None:
    rows, reasons = cleaned(tmp_path / "p.parquet", {"user_id": [1, 2], "extra": pa.array(values)})
    assert ([row["user_id"] for row in rows], reasons) == ([2], [reason])


def test_nested_attributes_keep_their_numbers_and_times(tmp_path: Path) -> None:
    columns = {
        "user_id": [1],
        "extra": pa.array([{"price": Decimal("1.50"), "at": NOW, "on": NOW.date(), "tags": ["a"], "id": b"b"}]),
        "pairs": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
    }
    [row], _ = cleaned(tmp_path / "p.parquet", columns)
    assert row["attributes"] == (
        '{"extra": {"price": 1.5, "at": "2026-06-01 00:00:00+00:00", "on": "2026-06-01", "tags": ["a"], "id": "b"}, '
        '"pairs": [["k", 1]]}'
    )


@pytest.mark.parametrize(
    ("value", "kind", "written"),
    [
        (Decimal(12345678901234567890), pa.decimal128(38, 0), "12345678901234567890"),
        (Decimal("12345678901234567.89"), pa.decimal128(38, 2), "12345678901234567.89"),
        (Decimal("-0.10"), pa.decimal128(5, 2), "-0.10"),
        (Decimal("0.0000000001"), pa.decimal128(38, 10), "0.0000000001"),
        (Decimal(10**70 + 1), pa.decimal256(76, 0), str(10**70 + 1)),
    ],
)
def test_a_decimal_keeps_all_its_digits(tmp_path: Path, value: Decimal, kind: Any, written: str) -> None:
    columns = {"user_id": [1], "n": pa.array([value], kind), "many": pa.array([[value, None]], pa.list_(kind))}
    [row], _ = cleaned(tmp_path / "p.parquet", columns)
    found = json.loads(row["attributes"], parse_float=Decimal)
    assert found["n"] == Decimal(written)
    assert Decimal(found["many"][0]) == Decimal(written)


def test_old_timestamps_far_away_keep_their_year(tmp_path: Path) -> None:
    far = [datetime(year, 1, 1) for year in (2024, 2600, 9999)]  # noqa: DTZ001 - a Parquet column without a zone
    table = pa.table({"user_id": [1, 2, 3], "until": pa.array(far, pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "p.parquet", use_deprecated_int96_timestamps=True)
    [batch] = open_source(tmp_path / "p.parquet").batches()
    assert batch.rows["until"].to_pylist() == far
