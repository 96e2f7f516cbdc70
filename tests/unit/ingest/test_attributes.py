"""Extra columns as JSON: types are kept, text is escaped, numeric columns are recognised."""

import json
from typing import Any

import pyarrow as pa

from feature_repo.contract.faults import Faults
from pipelines.ingest.columns.attributes import NumericColumns, json_objects


def objects(columns: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    n_rows = len(next(iter(columns.values())))
    faults, numeric = Faults(n_rows), NumericColumns()
    texts = json_objects(columns, n_rows, faults, numeric).to_pylist()
    return [json.loads(text) for text in texts], numeric.names(), faults.reasons()


def test_numbers_stay_numbers_and_text_stays_text() -> None:
    found, numeric, _ = objects(
        {"a": pa.array(["1", "2.5"]), "zip": pa.array(["01234", "99"]), "t": pa.array(["x", ""])}
    )
    assert found == [{"a": 1, "zip": "01234", "t": "x"}, {"a": 2.5, "zip": 99}]
    assert numeric == ["a"]


def test_quotes_breaks_and_backslashes_survive() -> None:
    texts = ['say "hi"', "a\\b", "two\nlines", "tab\there", "é€"]
    found, _, _ = objects({'we"ird': pa.array(texts)})
    assert [row['we"ird'] for row in found] == texts


def test_a_row_without_any_value_is_an_empty_object() -> None:
    assert objects({"a": pa.array([None, "1"]), "b": pa.array([None, None], pa.float64())})[0] == [{}, {"a": 1}]


def test_typed_columns_keep_their_type_and_what_json_cannot_hold_is_a_fault() -> None:
    found, numeric, reasons = objects(
        {
            "flag": pa.array([True, False]),
            "n": pa.array([1.5, float("nan")]),
            "many": pa.array([[1, 2], None]),
        }
    )
    assert found[0] == {"flag": True, "n": 1.5, "many": [1, 2]}
    assert numeric == ["n"]
    assert reasons == ["not_finite: n"]


def test_a_column_that_is_numeric_in_one_batch_and_text_in_the_next_is_not_numeric() -> None:
    numeric = NumericColumns()
    for values in (["1", "2"], ["x", "3"]):
        json_objects({"a": pa.array(values)}, 2, Faults(2), numeric)
    assert numeric.names() == []
