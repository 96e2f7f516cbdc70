"""Tables beside a finished step: short numbers, and no digit of a large one lost."""

import dagster as dg
import pytest

from pipelines.presentation import table


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.38319597939058025, 0.3832),
        (9.604123e-05, 9.6041e-05),
        (1234567.25, 1234567.25),
        (float("nan"), None),
        (7, 7),
        (True, True),
    ],
)
def test_a_number_is_shown_as_people_read_it(value: float, shown: float | None) -> None:
    made = table([{"figure": value}])
    assert isinstance(made, dg.TableMetadataValue)
    assert made.records[0].data == {"figure": shown}


def test_no_rows_are_said_to_be_none() -> None:
    assert table([]) == dg.MetadataValue.text("no rows")
