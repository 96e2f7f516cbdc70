"""As of when a run works, and what it refuses."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.errors import EmptySnapshot, ImpossibleInstant
from pipelines.ingest.config import SnapshotConfig
from pipelines.ingest.snapshots import choose_instant, parse_instant
from pipelines.results.inputs import before_window

NOW = datetime(2026, 6, 1, tzinfo=UTC)
MONTH = timedelta(days=30)


class Bounds:
    """Answers with the first and the last interaction."""

    def __init__(self, oldest: datetime | None, newest: datetime | None) -> None:
        self._row = (oldest, newest)

    def execute(self, _query: object) -> "Bounds":
        return self

    def fetchone(self) -> tuple[Any, Any]:
        return self._row


def connection(newest: datetime | None) -> Any:
    return Bounds(None if newest is None else newest - timedelta(days=100), newest)


def test_live_data_are_taken_as_of_now() -> None:
    chosen = choose_instant(connection(NOW - timedelta(days=2)), "", NOW, MONTH)
    assert chosen.at == NOW
    assert not chosen.is_historical


def test_old_data_are_taken_as_of_their_own_end() -> None:
    newest = NOW - timedelta(days=8_000)
    chosen = choose_instant(connection(newest), "", NOW, MONTH)
    assert chosen.at == newest + timedelta(seconds=1)
    assert chosen.is_historical


def test_an_instant_can_be_asked_for() -> None:
    wanted = NOW - timedelta(days=3)
    assert choose_instant(connection(NOW), wanted.isoformat(), NOW, MONTH).at == wanted


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("yesterday", "is not an instant"),
        ((NOW + timedelta(days=1)).isoformat(), "lies in the future"),
        ((NOW - timedelta(days=101)).isoformat(), "lies before the first interaction"),
    ],
)
def test_an_impossible_instant_is_refused(wanted: str, told: str) -> None:
    with pytest.raises(ImpossibleInstant, match=told):
        choose_instant(connection(NOW), wanted, NOW, MONTH)


def test_nothing_to_learn_from_is_said_plainly() -> None:
    with pytest.raises(EmptySnapshot, match="run `duet import` first"):
        choose_instant(connection(None), "", NOW, MONTH)


def test_an_instant_without_a_zone_is_utc() -> None:
    assert parse_instant("2026-01-31T12:00:00") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert parse_instant("2026-01-31T12:00:00+02:00") == datetime(2026, 1, 31, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "why"),
    [
        ({"since": "last spring"}, "`since` 'last spring' is not an instant"),
        ({"as_of": "2026-13-01"}, "`as_of` '2026-13-01' is not an instant"),
        ({"since": "2026-05-01", "as_of": "2026-05-01T02:00:00+02:00"}, "must be before as_of"),
    ],
)
def test_a_window_of_data_that_makes_no_sense_starts_no_run(window: dict[str, str], why: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(why)):
        SnapshotConfig(**window)


def test_the_window_of_an_artefact_begins_just_before_its_first_instant() -> None:
    assert before_window({}) is None
    assert before_window({"since": "1970-01-01T00:00:01+00:00"}) == 999_999
