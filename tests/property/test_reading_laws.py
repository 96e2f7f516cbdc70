"""Laws of reading that hold for any file: no line vanishes, and every typed row fits the contract or has a reason."""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ingest.columns.attributes import NumericColumns
from pipelines.ingest.columns.cleaning import clean_people
from pipelines.ingest.columns.mapping import PeopleMapping
from pipelines.ingest.columns.resolution import resolve
from pipelines.ingest.errors import IngestError, RefusedFile
from pipelines.ingest.files.opening import open_source
from pipelines.ingest.files.parquet_types import check_types
from pipelines.ingest.loading.quarantine import _as_json, _picked

NOW = datetime(2026, 6, 1, tzinfo=UTC)
_INTEGERS = st.sampled_from([0, 1, -1, 7, 10**9, 2**53, 2**62, -(2**62), None])
_FLOATS = st.sampled_from([0.0, 1.0, -0.0, 1.5, 1e300, float("nan"), float("inf"), None])
_TEXTS = st.sampled_from(["", "1", "x", "nan", "\x00", "a|b", "2026-01-01", "true", "1.0", "é" * 70, None])
_BYTES = st.sampled_from([b"", b"1", b"\xff", b"\x00", None])
_TYPES: list[tuple[Any, Any]] = [
    (pa.int64(), _INTEGERS),
    (pa.float64(), _FLOATS),
    (pa.string(), _TEXTS),
    (pa.string_view(), _TEXTS),
    (pa.binary(), _BYTES),
    (pa.timestamp("ms"), _INTEGERS),
    (pa.timestamp("us", "Europe/Paris"), _INTEGERS),
    (pa.list_(pa.float64()), st.lists(_FLOATS, max_size=2)),
    (pa.list_(pa.string()), st.lists(_TEXTS, max_size=2)),
    (pa.struct([("a", pa.string()), ("b", pa.timestamp("us"))]), st.fixed_dictionaries({"a": _TEXTS, "b": _INTEGERS})),
    (pa.bool_(), st.sampled_from([True, False, None])),
]
_COLUMN = st.sampled_from(_TYPES).flatmap(
    lambda kind: st.lists(kind[1], min_size=3, max_size=3).map(lambda values: pa.array(values, kind[0]))
)


def _refused(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


_NAMES = ("birth_date", "gender", "interests", "latitude", "longitude", "created_at", "visible", "bio", "extra", "more")


@given(
    lines=st.lists(st.text(alphabet='a",', max_size=6), min_size=1, max_size=12), quote=st.sampled_from([None, "none"])
)
def test_every_line_of_a_file_is_a_row_a_part_of_one_or_malformed(lines: list[str], quote: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "f.csv")
        path.write_text("x,y\n" + "".join(f"{line}\n" for line in lines))
        seen: dict[int, int] = {}
        try:
            for batch in open_source(path, quote=quote).batches():
                values = zip(batch.lines.tolist(), batch.rows.to_pylist(), strict=True)
                seen |= {line: sum((value or "").count("\n") for value in row.values()) for line, row in values}
                seen |= {bad.line: bad.text.count("\n") for bad in batch.malformed}
        except RefusedFile:
            assert quote is None or not any(lines)
            return
        covered = {line + step for line, breaks in seen.items() for step in range(breaks + 1)}
        left = [lines[number - 2] for number in set(range(2, len(lines) + 2)) - covered]
        assert not [line for line in left if line.replace(",", "").replace('""', "")]
        assert covered <= set(range(2, len(lines) + 2))


@settings(max_examples=150, deadline=None)
@given(columns=st.dictionaries(st.sampled_from(_NAMES), _COLUMN, min_size=1, max_size=4))
def test_every_typed_row_fits_the_contract_or_can_be_shown_with_its_reason(columns: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "f.parquet")
        pq.write_table(pa.table({"user_id": [1, 2, 3], **columns}), path)
        try:
            source = open_source(path)
            found = resolve(PeopleMapping(), source.header, path)
            check_types(found.origins, source.types, path.name)
        except IngestError:
            return
        [batch] = source.batches()
        cleaned = clean_people(batch.rows, batch.lines, found.origins, found.left, now=NOW, numeric=NumericColumns())
        assert cleaned.good.num_rows + len(cleaned.bad) == 3
        assert len(cleaned.reasons) == len(cleaned.bad)
        for text in [*cleaned.good["attributes"].to_pylist(), *map(_as_json, _picked(batch.rows, cleaned.bad))]:
            assert "\\u0000" not in text
            json.loads(text, parse_constant=_refused)
