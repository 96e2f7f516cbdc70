import math
from datetime import UTC, date, datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.transforms.measures import latest_birth_day, whole_years, whole_years_at

EPOCH = date(1970, 1, 1)


@given(today=st.dates(date(1980, 1, 1), date(2080, 1, 1)), age=st.integers(0, 120))
def test_whoever_is_born_by_that_day_is_old_enough_and_nobody_born_later(today: date, age: int) -> None:
    at = datetime(today.year, today.month, today.day, 13, tzinfo=UTC).timestamp()
    day = latest_birth_day(age, at)
    assert whole_years(np.array([day, day + 1]), at).tolist() == [age, age - 1]


def test_a_birthday_on_a_leap_day_comes_in_march() -> None:
    at = datetime(2026, 2, 28, 12, tzinfo=UTC).timestamp()
    assert latest_birth_day(26, at) == (date(2000, 2, 28) - EPOCH).days


def test_on_a_leap_day_everybody_born_by_the_end_of_february_has_had_their_birthday() -> None:
    at = datetime(2024, 2, 29, 12, tzinfo=UTC).timestamp()
    assert latest_birth_day(1, at) == (date(2023, 2, 28) - EPOCH).days
    assert latest_birth_day(4, at) == (date(2020, 2, 29) - EPOCH).days


def test_a_person_is_a_year_older_from_the_first_second_of_each_birthday_and_not_before() -> None:
    born = float((date(1950, 6, 1) - EPOCH).days)
    for age in range(1, 100):
        birthday = datetime(1950 + age, 6, 1, tzinfo=UTC).timestamp()
        assert (whole_years_at(born, birthday - 1), whole_years_at(born, birthday)) == (age - 1, age)


@given(st.integers(-40_000, 40_000).map(float) | st.just(math.nan), st.floats(-2e9, 4e9))
def test_the_age_of_one_person_is_that_of_many(birth_day: float, at: float) -> None:
    np.testing.assert_array_equal(whole_years_at(birth_day, at), whole_years(birth_day, at))
