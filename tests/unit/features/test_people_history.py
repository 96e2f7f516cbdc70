"""People as of an instant: the reference that the point-in-time join must equal."""

from datetime import date

import numpy as np
import pandas as pd

from feature_repo.layout import ACTIVITY, PROFILE
from pipelines.features.aggregates import vectors_at
from pipelines.features.events import Events, microseconds
from pipelines.features.history import PeopleHistory
from pipelines.features.profiles import profile_rows

START = pd.Timestamp("2026-01-01", tz="UTC")


def day(number: float) -> pd.Timestamp:
    return START + pd.Timedelta(days=number)


def interactions() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "actor_id": [1, 2, 1],
            "target_id": [2, 1, 3],
            "kind": pd.Categorical(["like", "like", "pass"]),
            "occurred_at": pd.DatetimeIndex([day(1), day(2.5), day(4)]).as_unit("us"),
        }
    )


def users() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": [3, 1, 2, 4],
            "birth_date": [date(1990, 1, 1)] * 4,
            "gender": ["woman"] * 4,
            "seeking": [[]] * 4,
            "interests": [[]] * 4,
            "created_at": pd.DatetimeIndex([day(0), day(30), day(0), day(30)]).as_unit("us"),
            "attributes": ["{}"] * 4,
        }
    )


def test_each_person_is_read_from_the_latest_snapshot_at_or_before() -> None:
    rows = profile_rows(users(), {}, interactions())
    events = Events.from_frame(interactions(), rows.user_ids)
    history = PeopleHistory.build(rows.people(), events, [day(2), day(3), day(5)])
    for at, snapshot in ((day(1), None), (day(2), day(2)), (day(2.9), day(2)), (day(3), day(3)), (day(9), day(5))):
        people = history.as_of(microseconds(at))
        expected = ACTIVITY.default_rows(4) if snapshot is None else vectors_at(events, snapshot)[0]
        np.testing.assert_array_equal(people.activity, expected)
    assert history.as_of(0).user_ids.tolist() == [1, 2, 3, 4]


def test_a_profile_is_stamped_before_the_first_decision_even_when_the_import_calls_it_newer() -> None:
    rows = profile_rows(users(), {}, interactions())
    assert rows.user_ids.tolist() == [1, 2, 3, 4]
    stamps = dict(zip(rows.user_ids.tolist(), rows.at_us.tolist(), strict=True))
    assert stamps[1] == microseconds(day(1))
    assert stamps[3] == microseconds(day(0))
    assert stamps[4] == microseconds(day(30))
    assert rows.profile.shape == (4, PROFILE.width)
