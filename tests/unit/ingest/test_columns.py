"""Parsing of whole columns: what is read, what is a fault, and that nothing is guessed."""

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.contract import columns
from feature_repo.contract.faults import Faults
from pipelines.ingest.files import times


def parsed(reader: Any, array: pa.Array, *arguments: Any, **options: Any) -> tuple[list[Any], list[str]]:
    faults = Faults(len(array))
    values = reader(array, faults, "x", *arguments, **options)
    return values.to_pylist(), faults.reasons()


def test_integers_are_read_from_text_ints_and_whole_floats() -> None:
    assert parsed(columns.integers, pa.array(["7", " 007 ", "-5.0", "+3", ""]), -9, 9) == ([7, 7, -5, 3, None], [])
    assert parsed(columns.integers, pa.array([1, None], pa.uint64()), 0, 9) == ([1, None], [])
    assert parsed(columns.integers, pa.array([2.0, 2.5, float("inf")]), 0, 9) == (
        [2, None, None],
        ["wrong_type: x", "not_finite: x"],
    )


@pytest.mark.parametrize(
    "array", [pa.array([2**64 - 1], pa.uint64()), pa.array(["9223372036854775808"]), pa.array([1e18])]
)
def test_an_integer_beyond_what_its_column_holds_is_out_of_range(array: pa.Array) -> None:
    assert parsed(columns.integers, array, 1, 2**63 - 1) == ([None], ["out_of_range: x"])


def test_the_largest_integer_is_read_exactly() -> None:
    assert parsed(columns.integers, pa.array([str(2**63 - 1)]), 1, 2**63 - 1) == ([2**63 - 1], [])


def test_whole_decimals_are_integers() -> None:
    array = pa.array([Decimal("12.00"), Decimal("1.50"), None, Decimal(2**63)], pa.decimal128(38, 2))
    assert parsed(columns.integers, array, 1, 2**63 - 1) == (
        [12, None, None, None],
        ["wrong_type: x", "out_of_range: x"],
    )


@pytest.mark.parametrize("array", [pa.array([True]), pa.array([b"1"]), pa.array([[1]])])
def test_a_column_of_another_type_is_a_wrong_type_not_a_crash(array: pa.Array) -> None:
    for reader, arguments in (
        (columns.integers, (0, 9)),
        (columns.numbers, (0.0, 9.0)),
        (times.instants, ()),
        (times.dates, ()),
        (columns.label_lists, ()),
    ):
        values, reasons = parsed(reader, array, *arguments)
        if reader is columns.label_lists:
            assert values in ([None], [[]])
        else:
            assert values == [None]
        assert reasons == ["wrong_type: x"]


def test_numbers_refuse_what_is_not_finite_or_not_a_number() -> None:
    assert parsed(columns.numbers, pa.array(["1.5", "1e2", ".5", "NaN", "-inf", "1,5", "0x10"]), -1e9, 1e9) == (
        [1.5, 100.0, 0.5, None, None, None, None],
        ["not_finite: x", "not_finite: x", "wrong_type: x", "wrong_type: x"],
    )


def test_flags_are_read_in_the_usual_spellings() -> None:
    texts = pa.array(["True", "f", "YES", "0", None, "maybe"])
    assert parsed(columns.flags, texts) == ([True, False, True, False, None, None], ["wrong_type: x"])
    assert parsed(columns.flags, pa.array([1, 0]))[0] == [True, False]
    assert parsed(columns.flags, pa.array(["1.0", "0.0"]))[0] == [True, False]
    for floats in (pa.array([1.0, 0.0, -0.0, None, 0.5]), pa.array([1, 0, 0, None, 0.5], pa.float16())):
        assert parsed(columns.flags, floats) == ([True, False, False, None, None], ["wrong_type: x"])
    assert parsed(columns.flags, pa.array([float("nan")])) == ([None], ["not_finite: x"])


def test_flags_are_read_through_the_words_of_the_mapping() -> None:
    words = {"active": "yes", "banned": "no"}
    assert parsed(columns.flags, pa.array(["Active", "banned", "gone"]), values=words) == (
        [True, False, None],
        ["bad_enum: x"],
    )


@pytest.mark.parametrize("keys", [{"1": "like", "0": "pass"}, {"1.0": "like", "0.0": "pass"}])
@pytest.mark.parametrize(
    "array", [pa.array(["1", "0"]), pa.array(["1.0", "0.0"]), pa.array([1, 0]), pa.array([1.0, 0])]
)
def test_a_whole_number_finds_its_key_however_it_is_written(keys: dict[str, str], array: pa.Array) -> None:
    assert parsed(columns.labels, array, keys) == (["like", "pass"], [])


def test_lists_are_split_trimmed_and_freed_of_repetitions() -> None:
    assert parsed(columns.label_lists, pa.array(["Jazz | jazz|Go", '["a", "b"]', "", None, "{x}"]))[0] == [
        ["jazz", "go"],
        ["a", "b"],
        [],
        [],
        ["x"],
    ]
    assert parsed(columns.label_lists, pa.array(["a,b/c"]), separator="/")[0] == [["a,b", "c"]]
    assert parsed(columns.label_lists, pa.array([["B", None, "b", ""], None]))[0] == [["b"], []]


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("women's football; '90s", ["women's football", "'90s"]),
        ("hiking (alpine)|(a) b", ["hiking (alpine)", "(a) b"]),
        ("(alpine) hiking, hiking (alpine)", ["(alpine) hiking", "hiking (alpine)"]),
        ('12" vinyl', ['12" vinyl']),
        (r'["caf\u00e9", "a, b", "say \"hi\""]', ["café", "a, b", 'say "hi"']),
        ("[\"women's football\", 'b']", ["women's football", "b"]),
        ("['a', 'b']", ["a", "b"]),
        ("['rock, pop', 'jazz']", ["rock", "pop", "jazz"]),
        ('{"rock, pop",jazz}', ["rock", "pop", "jazz"]),
        ("'m, f'", ["m", "f"]),
        ("[a, b]", ["a", "b"]),
        ("[1, 2.50, null]", ["1", "2.50"]),
        ("{\"rock 'n' roll\",jazz}", ["rock 'n' roll", "jazz"]),
        ("(a, b)", ["a", "b"]),
        ('"a, b"', ["a", "b"]),
        ("[]", []),
        ("[a, b", ["[a", "b"]),
    ],
)
def test_a_list_in_a_cell_keeps_the_quotes_and_brackets_of_its_labels(cell: str, labels: list[str]) -> None:
    array = pa.array([None, cell, "x|y"])
    assert parsed(columns.label_lists, array) == ([[], labels, ["x", "y"]], [])


def test_a_json_list_is_one_whatever_the_separator() -> None:
    assert parsed(columns.label_lists, pa.array(['["a", "b/c"]', "d/e"]), separator="/")[0] == [
        ["a", "b/c"],
        ["d", "e"],
    ]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (r'["a\u0000"]', "nul_character: x"),
        (r'["\ud800"]', "wrong_type: x"),
        ('["a", ["b"]]', "wrong_type: x"),
        ("[true]", "wrong_type: x"),
        ('[{"a": 1}]', "wrong_type: x"),
        ("[" * 5000 + "]" * 5000, "too_long: x"),
    ],
)
def test_a_json_list_that_holds_no_labels_is_a_fault_of_its_row_only(cell: str, reason: str) -> None:
    values, reasons = parsed(columns.label_lists, pa.array([cell, '["b"]']))
    assert (values[1], reasons) == (["b"], [reason])


def test_a_list_label_outside_the_value_map_or_too_long_faults_its_row() -> None:
    assert parsed(columns.label_lists, pa.array(["m|q", "M"]), values={"m": "man"}) == (
        [["man"], ["man"]],
        ["bad_enum: x"],
    )
    assert parsed(columns.label_lists, pa.array(["a|" + "b" * 65]))[1] == ["too_long: x"]
    assert parsed(columns.label_lists, pa.array(["|".join(map(str, range(101)))]))[1] == ["too_long: x"]


def test_the_first_reason_of_a_row_stands() -> None:
    faults = Faults(2)
    faults.mark(np.array([True, False]), "first", "a")
    faults.mark(np.array([True, True]), "second")
    assert faults.reasons() == ["first: a", "second"]
