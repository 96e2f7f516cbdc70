import datetime as dt

import numpy as np
import pandas as pd
import pytest

from feature_repo.errors import MalformedFeatures
from feature_repo.layout import ATTRIBUTES, PROFILE
from feature_repo.transforms import attribute_vectors, gender_code, interest_bucket, profile_vectors


def users() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": [1, 2, 3],
            "birth_date": [dt.date(1996, 6, 1), None, pd.NaT],
            "gender": ["woman", None, " Man "],
            "seeking": [["man", "nonbinary"], [], None],
            "age_min": pd.array([18, None, 30], dtype="Int16"),
            "age_max": pd.array([40, None, 35], dtype="Int16"),
            "latitude": [52.5, np.nan, -33.9],
            "longitude": [13.4, np.nan, 151.2],
            "max_distance_km": [50.0, None, None],
            "interests": [["chess", "Chess ", "rowing"], np.array(["go"], dtype=object), None],
            "bio_length": pd.array([10, None, 0], dtype="Int32"),
            "created_at": pd.to_datetime(["2026-01-01T12:00Z", None, "2026-01-02T00:00Z"]),
        }
    )


def column(rows: np.ndarray, name: str) -> list[float]:
    return [float(value) for value in rows[:, PROFILE.index(name)]]


def test_a_frame_of_users_becomes_packed_rows() -> None:
    rows = profile_vectors(users())
    assert rows.dtype == np.float32
    assert column(rows, "birth_day")[0] == 9648
    assert np.isnan(column(rows, "birth_day")[1:]).all()
    assert column(rows, "gender") == [1, 0, 2]
    assert column(rows, "seeking") == [2**2 + 2**3, 0, 0]
    assert column(rows, "age_min")[::2] == [18, 30]
    assert np.isnan(column(rows, "age_min")[1])
    assert column(rows, "n_interests") == [2, 1, 0]
    assert column(rows, "bio_length") == [10, 0, 0]
    assert column(rows, "created_day")[0] == 20454.5
    first = PROFILE.index("interests_00")
    bits = np.bitwise_count(rows[:, first:].astype(np.uint32)).sum(axis=1)
    assert bits.tolist() == [2, 1, 0]


def test_a_birth_date_with_a_time_of_day_is_that_day() -> None:
    given = [dt.datetime(1996, 6, 1, 23, 59, tzinfo=dt.UTC), dt.date(1996, 6, 1)]
    assert column(profile_vectors({"user_id": [1, 2], "birth_date": given}), "birth_day") == [9648, 9648]


def test_nobody_seeks_people_of_an_unknown_gender() -> None:
    rows = profile_vectors({"user_id": [1, 2], "seeking": [["woman", " "], [""]]})
    assert column(rows, "seeking") == [2 ** gender_code("woman"), 0]


def test_a_dict_of_lists_gives_the_same_rows_as_a_frame() -> None:
    frame = users()
    plain = {name: frame[name].tolist() for name in frame}
    np.testing.assert_array_equal(profile_vectors(plain), profile_vectors(frame))


def test_absent_columns_are_unknown_throughout() -> None:
    np.testing.assert_array_equal(profile_vectors({"user_id": [1, 2]}), PROFILE.default_rows(2))


def test_every_interest_bit_survives_float32() -> None:
    names = [f"interest {number}" for number in range(2000)]
    rows = profile_vectors({"user_id": [1], "interests": [names]})
    assert len({interest_bucket(name) for name in names}) == 240
    assert rows[0, PROFILE.index("interests_00") :].tolist() == [2.0**24 - 1] * 10


def test_gender_codes_do_not_depend_on_who_asked_first() -> None:
    assert [gender_code(name) for name in ("woman", "MAN", "nonbinary", None, "", "  ")] == [1, 2, 3, 0, 0, 0]
    assert 4 <= gender_code("two-spirit") <= 15
    assert gender_code("two-spirit") == gender_code(" Two-Spirit")


def test_attributes_go_to_their_slots_and_what_is_no_number_stays_out() -> None:
    rows = attribute_vectors(
        {"attributes": [{"fun": 7, "smokes": True, "job": "baker"}, '{"fun": 1.5}', None, {"fun": float("inf")}]},
        {"fun": 3, "smokes": 23, "job": 0},
    )
    assert rows.shape == (4, ATTRIBUTES.width)
    assert rows[:2, 3].tolist() == [7.0, 1.5]
    assert rows[0, 23] == 1.0
    assert np.count_nonzero(~np.isnan(rows)) == 3


def test_an_attribute_beyond_all_floats_stays_out_and_takes_nobody_along() -> None:
    rows = attribute_vectors({"attributes": [{"fun": 10**400}, {"fun": 7}]}, {"fun": 0})
    assert np.isnan(rows[0, 0])
    assert rows[1, 0] == 7.0


def test_a_slot_out_of_bounds_is_refused() -> None:
    with pytest.raises(MalformedFeatures, match="slot 24"):
        attribute_vectors({"attributes": []}, {"fun": 24})
