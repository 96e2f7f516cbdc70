"""The real experiment: everybody and every decision is accounted for, and no outcome leaks into a profile."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest

from pipelines.ingest import speed_dating
from pipelines.ingest.errors import RefusedFile
from pipelines.ingest.speed_dating import import_speed_dating, interactions_table, people_table, read_meetings
from tests.clocks import FixedClock

FILE = Path(os.environ.get("DUET_SHARED_DATA", "../shared/data")) / "speed-dating" / "speed_dating.csv"
needs_file = pytest.mark.skipif(not FILE.is_file(), reason=f"the shared data `{FILE}` is not here")


@needs_file
def test_551_people_and_8378_decisions_are_accounted_for(
    connection: psycopg.Connection[Any], clock: FixedClock, tmp_path: Path
) -> None:
    report = import_speed_dating(connection, FILE, data_dir=tmp_path, clock=clock)
    assert (report.people.new, report.people.n_quarantined) == (551, 0)
    assert report.interactions.read == 8_378
    assert report.interactions.new == 8_368
    # Number 7 among the women of wave 5 has no row of her own: her ten partners decided about nobody we know.
    assert report.interactions.quarantined == {"unknown_person: the partner has no row in the file": 10}
    assert connection.execute("select kind, count(*) from duet.interactions group by 1 order by 1").fetchall() == [
        ("like", 3_515),
        ("pass", 4_853),
    ]
    assert connection.execute("select count(*) from duet.attribute_slots").fetchone() == (20,)
    connection.commit()
    again = import_speed_dating(connection, FILE, data_dir=tmp_path, clock=clock)
    assert (again.people.unchanged, again.interactions.unchanged) == (551, 8_368)


@needs_file
def test_both_sides_of_a_meeting_decide_at_once_and_nobody_meets_two_people_at_once() -> None:
    table, _ = interactions_table(read_meetings(FILE))
    frame = table.to_pandas()
    both = frame.merge(frame, left_on=["actor_id", "target_id"], right_on=["target_id", "actor_id"])
    assert len(both) == len(frame)
    assert (both["occurred_at_x"] == both["occurred_at_y"]).all()
    assert not frame.duplicated(["actor_id", "occurred_at"]).any()


@needs_file
def test_everybody_was_there_before_their_first_meeting() -> None:
    meetings = read_meetings(FILE)
    came = people_table(meetings).to_pandas().set_index("user_id")["created_at"]
    events = interactions_table(meetings)[0].to_pandas()
    assert (events["occurred_at"] > events["actor_id"].map(came)).all()
    assert (events["occurred_at"] - events["actor_id"].map(came) < pd.Timedelta(days=28)).all()


@needs_file
def test_stated_preferences_are_shares_of_one_hundred_in_every_wave() -> None:
    people = people_table(read_meetings(FILE)).to_pandas()
    attributes = pd.json_normalize(people["attributes"].map(pd.io.json.ujson_loads))
    totals = attributes[[name for name in attributes if name.startswith("wants_")]].sum(axis=1, min_count=1).dropna()
    assert totals.between(99.9, 100.1).all()
    assert len(totals) > 540


def test_only_what_was_said_before_the_evening_is_read() -> None:
    outcomes = {
        "dec_o",
        "like",
        "prob",
        "match",
        "match_es",
        "satis_2",
        "you_call",
        "attr",
        "shar",
        "attr_o",
        "exphappy",
    }
    assert not outcomes & set(speed_dating._COLUMNS)
    assert not [name for name in speed_dating._COLUMNS if name.endswith(("_o", "_s", "_2", "_3"))]


def test_the_order_of_the_side_without_clashes_is_believed() -> None:
    # Women 1, 2 meet men 11, 12; the women's orders put both meetings of a man at one time.
    met = pd.DataFrame(
        [
            (1, 11, 0, 1),
            (1, 12, 0, 2),
            (2, 11, 0, 1),
            (2, 12, 0, 2),
            (11, 1, 1, 1),
            (11, 2, 1, 2),
            (12, 1, 1, 2),
            (12, 2, 1, 1),
        ],
        columns=["iid", "pid", "gender", "order"],
    ).assign(wave=1)
    assert speed_dating.believed_order(met).tolist() == [1, 2, 2, 1, 1, 2, 2, 1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b\n1,2\n", "not the speed-dating experiment"),
        (",".join(speed_dating._COLUMNS) + "\n", "not the speed-dating experiment"),
        (",".join(speed_dating._COLUMNS) + "\n" + ",".join(["x"] * len(speed_dating._COLUMNS)) + "\n", "text or gaps"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "file.csv").write_text(text)
    with pytest.raises(RefusedFile, match=sentence):
        read_meetings(tmp_path / "file.csv")
    with pytest.raises(RefusedFile, match="no file"):
        read_meetings(tmp_path / "none.csv")


def test_people_without_an_age_have_no_birth_date() -> None:
    row = dict.fromkeys(speed_dating._COLUMNS, 1.0) | {"age": np.nan, "line": 2}
    people = people_table(pd.DataFrame([row | {"wave": 1}]))
    assert people["birth_date"].to_pylist() == [None]
