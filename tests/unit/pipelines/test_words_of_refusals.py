"""Why data are refused before training, in words: the expectations themselves are held in test_validation_suites."""

from datetime import UTC, datetime
from typing import Any

import pytest

from pipelines.ingest.validation.config import ValidationConfig
from pipelines.ingest.validation.run import ExpectationOutcome, ValidationReport
from pipelines.ingest.validation.words import in_words


def told(
    table: str, column: str, facts: dict[str, Any], accepted: dict[str, Any] | None = None, year: int = 2026
) -> str:
    failed = ExpectationOutcome("suite", "values to be between (min 0)", column, False, 150, 150, "", '[{"x": -1}]')
    # One reason often breaks two expectations on the same column.
    report = ValidationReport([failed, failed])
    at = datetime(year, 1, 21, tzinfo=UTC)
    return in_words(table, report, facts=facts, accepted=accepted, as_of=at, config=ValidationConfig()).sentence()


@pytest.mark.parametrize(
    ("column", "facts", "accepted", "sentence"),
    [
        ("like_rate", {"rows": 1514, "like_rate": None}, None, "no like and no pass among the 1,514 interactions"),
        (
            "like_rate",
            {"like_rate": 0.0},
            {"like_rate": 1.0},
            "share of likes went from 1.00 to 0.00 since the last accepted .* --set snapshots.max_like_rate_drift=1",
        ),
        (
            "rows",
            {"rows": 60},
            {"rows": 4000},
            "60 interactions, and 4,000 in the last accepted snapshot, of .* --set snapshots.max_volume_drop=1",
        ),
        ("rows", {"rows": 1}, None, "there are 1 interactions, too few to learn from"),
        ("silent_days", {"silent_days": 90.5}, None, "90.5 days older .* --set snapshots.max_silence_days=92"),
    ],
)
def test_a_refusal_says_what_the_data_show_and_which_setting_lets_them_pass(
    column: str, facts: dict[str, Any], accepted: dict[str, Any] | None, sentence: str
) -> None:
    found = told("interactions", column, facts, accepted)
    assert found.startswith("2 of 2 expectations failed: ")
    for part in sentence.split(" .* "):
        assert found.count(part) == 1


def test_data_that_end_in_1970_ask_for_the_unit_and_not_for_birth_dates() -> None:
    found = told("people", "age_years", {"rows": 150}, year=1970)
    assert "the data end in January 1970, when 150 of 150 people were not born: is the `unit` of the times" in found


def test_what_has_no_words_is_told_with_its_range_and_rows() -> None:
    assert 'age_years values to be between (min 0): 150 of 150 rows, e.g. [{"x": -1}]' in told(
        "people", "age_years", {}
    )
