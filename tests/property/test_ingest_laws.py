"""Laws of an import that hold for any file: every row is accounted for, and importing again changes nothing."""

import csv
import io
from pathlib import Path
from typing import Any

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from pipelines.ingest.errors import RefusedFile
from pipelines.ingest.tables import import_tables
from tests.clocks import FixedClock

_WORDS = st.sampled_from(
    ["", "1", "2", "3", "x", "nan", "-1", "1e3", "99999999999999999999", "a|b", '"', "two\nlines", "\x00"]
)
_PERSON = st.tuples(
    st.sampled_from(["1", "2", "3", "4", "", "x"]),
    st.one_of(st.just("woman"), _WORDS),
    st.one_of(st.sampled_from(["1990-01-01", "2030-01-01"]), _WORDS),
    st.one_of(st.just("48.5"), _WORDS),
    st.one_of(st.just("2.5"), _WORDS),
    _WORDS,
)
_EVENT = st.tuples(
    st.sampled_from(["1", "2", "3", "9", "x"]),
    st.sampled_from(["1", "2", "3", ""]),
    st.sampled_from(["like", "pass", "LIKE", "hug"]),
    st.sampled_from(["2026-01-01", "2026-01-02T10:00:00+02:00", "2030-01-01", "never"]),
)


def as_csv(header: tuple[str, ...], rows: list[tuple[str, ...]], cut: set[int]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    for position, row in enumerate(rows):
        writer.writerow(row[:2] if position in cut else row)
    return buffer.getvalue().encode()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    people=st.lists(_PERSON, min_size=1, max_size=12),
    events=st.lists(_EVENT, min_size=1, max_size=12),
    cut=st.sets(st.integers(0, 11), max_size=2),
)
def test_every_row_lands_is_unchanged_or_is_quarantined_and_a_second_import_changes_nothing(
    connection: psycopg.Connection[Any],
    clock: FixedClock,
    tmp_path: Path,
    people: list[tuple[str, ...]],
    events: list[tuple[str, ...]],
    cut: set[int],
) -> None:
    connection.rollback()
    for table in ("interactions", "users", "imports", "quarantine", "attribute_slots"):
        connection.execute(sql.SQL("delete from {}").format(sql.Identifier("duet", table)))
    connection.commit()
    header = ("user_id", "gender", "birth_date", "latitude", "longitude", "extra")
    (tmp_path / "p.csv").write_bytes(as_csv(header, people, cut))
    (tmp_path / "i.csv").write_bytes(as_csv(("actor", "target", "kind", "time"), events, cut))

    def run() -> Any:
        return import_tables(
            connection, people=tmp_path / "p.csv", interactions=tmp_path / "i.csv", data_dir=tmp_path, clock=clock
        )

    try:
        first = run()
    except RefusedFile:
        assert connection.execute("select count(*) from duet.imports").fetchone() == (0,)
        return
    second = run()
    for report in (first, second):
        assert report.people.adds_up
        assert report.interactions.adds_up
    assert first.people.read == len(people)
    assert first.interactions.read == len(events)
    assert (second.people.landed, second.interactions.landed) == (0, 0)
    assert second.people.quarantined == first.people.quarantined
    assert second.interactions.quarantined == first.interactions.quarantined
    found = connection.execute(
        "select (select count(*) from duet.users), (select count(*) from duet.interactions)"
    ).fetchone()
    assert found == (first.people.new, first.interactions.new)
    connection.rollback()
