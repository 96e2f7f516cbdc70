"""What the suites refuse, each on a table in which exactly that is wrong."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.ingest.validation.config import ValidationConfig
from pipelines.ingest.validation.frames import (
    interaction_facts,
    interactions_frame,
    people_facts,
    people_frame,
    sampled,
    totals_frame,
)
from pipelines.ingest.validation.run import ValidationReport, validate
from pipelines.ingest.validation.suites import (
    interactions_suite,
    interactions_totals_suite,
    people_suite,
    people_totals_suite,
)

AT = datetime(2026, 1, 31, tzinfo=UTC)
CONFIG = ValidationConfig()


def people(**changes: Any) -> pd.DataFrame:
    n = 20
    frame = pd.DataFrame(
        {
            "user_id": np.arange(1, n + 1),
            "birth_date": [datetime(1990, 1, 1, tzinfo=UTC).date()] * n,
            "gender": "man",
            "seeking": [["woman"]] * n,
            "age_min": 20.0,
            "age_max": np.nan,
            "latitude": 50.0,
            "longitude": 8.0,
            "max_distance_km": np.nan,
            "interests": [[]] * n,
            "bio_length": 0,
            "created_at": pd.Timestamp(AT),
            "last_active_at": pd.NaT,
            "visible": True,
            "attributes": "{}",
        }
    )
    for column, (row, value) in changes.items():
        frame.loc[row, column] = value
    return frame


def interactions(**changes: Any) -> pd.DataFrame:
    n = 60
    frame = pd.DataFrame(
        {
            "actor_id": np.arange(n) % 10 + 1,
            "target_id": np.arange(n) % 10 + 11,
            "kind": ["like", "pass", "pass"] * (n // 3),
            "occurred_at": pd.Timestamp("2026-01-30", tz="UTC") + pd.to_timedelta(np.arange(n), unit="min"),
        }
    )
    for column, (row, value) in changes.items():
        frame.loc[row, column] = value
    return frame.assign(kind=frame["kind"].astype("category"))


def on_people(frame: pd.DataFrame, docs: Path, accepted: dict[str, Any] | None = None) -> ValidationReport:
    return validate(
        {
            "people": (people_frame(frame, AT, 1_000), people_suite(CONFIG)),
            "people_totals": (totals_frame(people_facts(frame)), people_totals_suite(CONFIG, accepted)),
        },
        docs,
        {"people": ["user_id"]},
    )


def on_interactions(frame: pd.DataFrame, docs: Path, accepted: dict[str, Any] | None = None) -> ValidationReport:
    facts = interaction_facts(frame, AT)
    return validate(
        {
            "interactions": (interactions_frame(frame, people(), 1_000), interactions_suite(AT)),
            "totals": (totals_frame(facts), interactions_totals_suite(CONFIG, accepted)),
        },
        docs,
        {"interactions": ["actor_id", "target_id"]},
    )


def failed_columns(report: ValidationReport) -> set[str]:
    return {failure.column for failure in report.failures}


def test_sound_tables_pass_and_their_pages_are_written(tmp_path: Path) -> None:
    report = on_people(people(), tmp_path / "people", {"rows": 20})
    assert report.passed, report.sentence()
    assert report.document is not None
    assert "people" in report.document.read_text()
    sound = on_interactions(interactions(), tmp_path / "interactions", {"rows": 60, "like_rate": 0.33})
    assert sound.passed, sound.sentence()


def test_impossible_people_are_named_by_their_id(tmp_path: Path) -> None:
    frame = people(latitude=(3, 200.0), age_max=(4, 19.0), birth_date=(5, datetime(1850, 1, 1, tzinfo=UTC).date()))
    frame.loc[7, "user_id"] = 7
    report = on_people(frame, tmp_path / "docs")
    assert failed_columns(report) == {"latitude", "age_max, age_min", "age_years", "user_id"}
    latitude = next(failure for failure in report.failures if failure.column == "latitude")
    assert (latitude.unexpected, latitude.checked) == (1, 20)
    assert '"user_id": "4"' in latitude.samples


def test_strangers_self_likes_and_the_future_are_refused(tmp_path: Path) -> None:
    frame = interactions(
        target_id=(0, 99), actor_id=(1, 12), occurred_at=(59, pd.Timestamp("2026-02-02", tz="UTC")), kind=(4, "wink")
    )
    report = on_interactions(frame, tmp_path / "docs")
    assert failed_columns(report) == {"target_is_known", "is_self", "occurred_at", "kind", "silent_days"}


@pytest.mark.parametrize(
    ("accepted", "column"),
    [({"rows": 1_000, "like_rate": 0.33}, "rows"), ({"rows": 60, "like_rate": 0.8}, "like_rate")],
)
def test_a_shrunken_or_drifted_table_is_refused(tmp_path: Path, accepted: dict[str, Any], column: str) -> None:
    report = on_interactions(interactions(), tmp_path / "docs", accepted)
    assert failed_columns(report) == {column}
    assert column in report.sentence()


def test_silence_before_the_instant_is_refused(tmp_path: Path) -> None:
    frame = interactions()
    frame["occurred_at"] -= pd.Timedelta(days=90)
    assert failed_columns(on_interactions(frame, tmp_path / "docs")) == {"silent_days"}


def test_a_sample_is_seeded_and_keeps_the_order() -> None:
    frame = interactions()
    part = sampled(frame, 10)
    assert len(part) == 10
    assert part.index.is_monotonic_increasing
    pd.testing.assert_frame_equal(part, sampled(frame, 10))
    assert sampled(frame, 60) is frame
