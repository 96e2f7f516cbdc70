"""The sample ratio of the running experiment, measured beside the guard."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from infra.clock import SystemClock
from pipelines.experiments.report import RATIO_ALPHA
from pipelines.experiments.sample_ratio import EVERY, measure_sample_ratio
from registry.measurements import Measure, last_measurements
from tests.experiment_rows import Diary, begin

NOW = SystemClock().now()
SINCE = NOW - timedelta(minutes=8)


@pytest.fixture
def database(connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    connection.commit()
    connection.autocommit = True
    return connection


def answered(database: psycopg.Connection[Any], champion: int, challenger: int) -> None:
    begin(database, SINCE)
    diary = Diary(database)
    for number in range(champion + challenger):
        arm = "champion" if number < champion else "challenger"
        diary.answer(1 + number, SINCE + timedelta(seconds=1), arm=arm)
    diary.write()


def test_people_who_fit_the_share_have_a_large_p(database: psycopg.Connection[Any]) -> None:
    answered(database, 100, 104)
    found = measure_sample_ratio(database, NOW)
    assert found is not None
    assert (found.about, found.value > 0.5) == ("taste", True)


def test_people_who_do_not_are_kept_as_a_small_one_and_not_measured_again_at_once(
    database: psycopg.Connection[Any],
) -> None:
    answered(database, 150, 50)
    found = measure_sample_ratio(database, NOW)
    assert found is not None
    assert found.value < RATIO_ALPHA
    assert last_measurements(database)[Measure.SAMPLE_RATIO_P].value == pytest.approx(found.value)
    assert measure_sample_ratio(database, NOW + EVERY / 2) is None
    assert measure_sample_ratio(database, NOW + 2 * EVERY) is not None


def test_nothing_is_measured_without_an_experiment_or_with_too_few_people(database: psycopg.Connection[Any]) -> None:
    assert measure_sample_ratio(database, NOW) is None
    answered(database, 1, 1)
    assert measure_sample_ratio(database, NOW) is None
    assert last_measurements(database) == {}
