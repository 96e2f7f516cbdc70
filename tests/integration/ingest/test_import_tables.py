"""`import_tables` against a real Postgres: what lands, what is quarantined and why, what a second import changes."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.ingest.columns.mapping_file import load_mapping
from pipelines.ingest.errors import IngestError, RefusedFile, RefusedMapping
from pipelines.ingest.loading import load
from pipelines.ingest.loading.report import ImportReport
from pipelines.ingest.tables import import_tables
from tests.clocks import FixedClock

PEOPLE = """user_id,gender,seeking,birth_date,latitude,longitude,interests,height,city
1,woman,man,1990-05-01,48.85,2.35,tennis|jazz,170,Paris
2,Man,woman,1988-01-31,48.86,2.30,jazz,181.5,"Saint ""X"", Denis"
3,nonbinary,,1999-12-12,,,,160,
"""
INTERACTIONS = """actor,target,kind,time
1,2,like,2026-05-01T10:00:00Z
2,1,like,2026-05-01 11:00:00
3,1,pass,2026-05-02
"""

Importer = Callable[..., ImportReport]


@pytest.fixture
def run(connection: psycopg.Connection[Any], clock: FixedClock, tmp_path: Path) -> Importer:
    def import_texts(people: str | None = None, interactions: str | None = None, mapping: str = "") -> ImportReport:
        connection.commit()
        (tmp_path / "mapping.yaml").write_text(mapping)
        paths: dict[str, Path | None] = {"people": None, "interactions": None}
        for name, text in (("people", people), ("interactions", interactions)):
            if text is not None:
                paths[name] = tmp_path / f"{name}.csv"
                (tmp_path / f"{name}.csv").write_bytes(text.encode())
        report = import_tables(
            connection,
            **paths,
            data_dir=tmp_path / "data",
            clock=clock,
            mapping=load_mapping(tmp_path / "mapping.yaml") if mapping else None,
        )
        assert report.people.adds_up
        assert report.interactions.adds_up
        return report

    return import_texts


def rows(connection: psycopg.Connection[Any], query: Any) -> list[tuple[Any, ...]]:
    found = connection.execute(query).fetchall()
    connection.commit()
    return found


def test_people_and_interactions_land_with_their_attributes_and_slots(
    run: Importer, connection: psycopg.Connection[Any]
) -> None:
    report = run(PEOPLE, INTERACTIONS)
    assert (report.people.new, report.interactions.new, report.n_quarantined) == (3, 3, 0)
    assert rows(connection, "select user_id, gender, seeking, interests, attributes from duet.users order by 1") == [
        (1, "woman", ["man"], ["tennis", "jazz"], {"height": 170, "city": "Paris"}),
        (2, "man", ["woman"], ["jazz"], {"height": 181.5, "city": 'Saint "X", Denis'}),
        (3, "nonbinary", [], [], {"height": 160}),
    ]
    assert rows(connection, "select name, slot from duet.attribute_slots") == [("height", 0)]
    assert rows(connection, "select kind, people_rows, interaction_rows, quarantined_rows from duet.imports") == [
        ("tables", 3, 3, 0)
    ]


def test_a_first_large_import_lands_the_same_and_leaves_every_key_and_index_in_place(
    run: Importer, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (
        "select conname, pg_get_constraintdef(oid) from pg_constraint where conrelid = 'duet.interactions'::regclass "
        "union all select indexname, indexdef from pg_indexes where tablename = 'interactions' order by 1, 2"
    )
    before = rows(connection, shape)
    monkeypatch.setattr(load, "BULK_ROWS", 1)
    report = run(PEOPLE, INTERACTIONS + "1,99,like,2026-05-01\n1,2,like,2026-05-01T10:00:00Z\n")
    assert (report.interactions.new, report.interactions.n_quarantined) == (3, 2)
    assert rows(connection, shape) == before
    assert run(None, INTERACTIONS).interactions.unchanged == 3


def test_people_exist_since_their_first_interaction_and_are_active_until_their_last(
    run: Importer, connection: psycopg.Connection[Any]
) -> None:
    run(PEOPLE, INTERACTIONS)
    assert rows(connection, "select created_at::date::text, last_active_at::text from duet.users order by user_id") == [
        ("2026-05-01", "2026-05-01 10:00:00+00"),
        ("2026-05-01", "2026-05-01 11:00:00+00"),
        ("2026-05-02", "2026-05-02 00:00:00+00"),
    ]


def test_importing_the_same_files_again_changes_nothing(run: Importer, connection: psycopg.Connection[Any]) -> None:
    run(PEOPLE, INTERACTIONS)
    before = rows(connection, "select * from duet.users order by 1")
    report = run(PEOPLE, INTERACTIONS)
    assert (report.people.landed, report.people.unchanged) == (0, 3)
    assert (report.interactions.landed, report.interactions.unchanged) == (0, 3)
    assert rows(connection, "select * from duet.users order by 1") == before


def test_a_later_file_updates_only_the_columns_it_has(run: Importer, connection: psycopg.Connection[Any]) -> None:
    run(PEOPLE)
    report = run("user_id,bio,height\n1,hello,171\n9,new here,150\n")
    assert (report.people.new, report.people.updated) == (1, 1)
    assert rows(connection, "select gender, bio, attributes from duet.users where user_id = 1") == [
        ("woman", "hello", {"height": 171, "city": "Paris"})
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x,woman,,,,,,,", "wrong_type: user_id"),
        (",woman,,,,,,,", "missing_value: user_id"),
        ("0,woman,,,,,,,", "out_of_range: user_id"),
        ("9223372036854775808,woman,,,,,,,", "out_of_range: user_id"),
        ("5,woman,,2027-01-01,,,,,", "future_date: birth_date"),
        ("5,woman,,2015-01-01,,,,,", "out_of_range: birth_date"),
        ("5,woman,,1890-01-01,,,,,", "out_of_range: birth_date"),
        ("5,woman,,31/12/1980,,,,,", "wrong_type: birth_date"),
        ("5,woman,,,91,0,,,", "out_of_range: latitude"),
        ("5,woman,,,0,-181,,,", "out_of_range: longitude"),
        ("5,woman,,,NaN,0,,,", "not_finite: latitude"),
        ("5,woman,,,inf,0,,,", "not_finite: latitude"),
        ("5,woman,,,1,,,,", "missing_value: longitude"),
        ("5,wo\x00man,,,,,,,", "nul_character: gender"),
        ("5," + "w" * 65 + ",,,,,,,", "too_long: gender"),
        ("1,woman,,,,,,,", "duplicate_key: user_id"),
        ("5,woman", "malformed_row"),
    ],
)
def test_a_bad_person_is_quarantined_with_line_and_reason(
    run: Importer, connection: psycopg.Connection[Any], line: str, reason: str
) -> None:
    text = PEOPLE + line + "\n4,man,,,,,,,\n"
    report = run(text)
    if line.count(",") == 8:  # PEOPLE has nine columns
        assert report.people.quarantined == {reason: 1}
    assert report.people.new == 4
    [(at, found, row)] = rows(connection, 'select line, reason, "row" from duet.quarantine')
    assert (at, found) == (5, reason)
    assert isinstance(row, dict)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,99,like,2026-05-01", "unknown_person: target_id"),
        ("99,1,like,2026-05-01", "unknown_person: actor_id"),
        ("1,1,like,2026-05-01", "self_interaction"),
        ("1,2,hug,2026-05-01", "bad_enum: kind"),
        ("1,2,,2026-05-01", "missing_value: kind"),
        ("1,2,like,", "missing_value: occurred_at"),
        ("1,2,like,yesterday", "wrong_type: occurred_at"),
        ("1,2,like,2026-06-01T12:06:00Z", "future_date: occurred_at"),
        ("1,2,like,2026-05-01T10:00:00Z", "duplicate_key: event_id"),
        ("1,2.5,like,2026-05-01", "wrong_type: target_id"),
        ("1,2,like,2026-05-01,extra", "malformed_row"),
    ],
)
def test_a_bad_interaction_is_quarantined_with_line_and_reason(
    run: Importer, connection: psycopg.Connection[Any], line: str, reason: str
) -> None:
    report = run(PEOPLE, INTERACTIONS + line + "\n")
    assert report.interactions.quarantined == {reason: 1}
    assert report.interactions.new == 3
    assert report.quarantine_file is not None
    with report.quarantine_file.open(newline="") as file:
        [kept] = csv.DictReader(file)
    assert (kept["file"], kept["line"], kept["reason"]) == ("interactions.csv", "5", reason)
    assert isinstance(json.loads(kept["row"]), dict)
    assert rows(connection, "select quarantined_rows from duet.imports") == [(1,)]


def test_five_minutes_of_clock_skew_are_allowed(run: Importer) -> None:
    assert run(PEOPLE, "actor,target,kind,time\n1,2,like,2026-06-01T12:04:59Z\n").interactions.new == 1


def test_a_mapping_renames_translates_and_turns_ratings_into_decisions(
    run: Importer, connection: psycopg.Connection[Any]
) -> None:
    mapping = """
people:
  user_id: {column: login, hash: true}
  gender: {column: sex, values: {M: man, F: woman}}
  seeking: {column: wants, separator: "/", values: {M: man, F: woman}}
  birth_date: {column: born, format: "%d.%m.%Y"}
  visible: {constant: true}
  ignore: [secret]
interactions:
  actor: {column: who, hash: true}
  target: {column: whom, hash: true}
  occurred_at: {column: at, unit: ms}
  rating: {column: stars, like_at_or_above: 4}
null_values: [NA]
delimiter: ";"
"""
    report = run(
        "login;sex;wants;born;secret;town\nann;F;M/F;24.12.1990;s;NA\nbob;m;f;01.02.1991;s;Rome\ncal;x;;;;\n",
        "who;whom;at;stars\nann;bob;1777629600000;4\nbob;ann;1777629600000;3.9\n",
        mapping,
    )
    assert report.people.quarantined == {"bad_enum: gender": 1}
    assert rows(
        connection,
        "select attributes->>'source_id', gender, seeking, birth_date::text, attributes - 'source_id' "
        "from duet.users order by 1",
    ) == [
        ("ann", "woman", ["man", "woman"], "1990-12-24", {}),
        ("bob", "man", ["woman"], "1991-02-01", {"town": "Rome"}),
    ]
    assert rows(connection, "select kind, occurred_at::text from duet.interactions order by kind") == [
        ("like", "2026-05-01 10:00:00+00"),
        ("pass", "2026-05-01 10:00:00+00"),
    ]


def test_a_hashed_id_keeps_the_original_as_text_even_when_it_is_a_number(
    run: Importer, connection: psycopg.Connection[Any]
) -> None:
    run("login\n12\nx-7\n", None, "people: {user_id: {column: login, hash: true}}")
    found = rows(connection, "select attributes from duet.users order by attributes->>'source_id'")
    assert found == [({"source_id": "12"},), ({"source_id": "x-7"},)]
    assert rows(connection, "select * from duet.attribute_slots") == []


def test_one_constant_id_for_everybody_is_refused(run: Importer) -> None:
    with pytest.raises(RefusedMapping, match="same `user_id`"):
        run(PEOPLE, None, "people: {user_id: {constant: 5}}")


def test_a_mapping_that_names_an_unknown_column_is_refused_by_name(run: Importer) -> None:
    with pytest.raises(RefusedMapping, match=r"`sexx`, which `people\.csv` does not have"):
        run(PEOPLE, None, "people: {gender: sexx}")


def test_only_the_first_24_numeric_attributes_become_features_and_a_note_says_so(
    run: Importer, connection: psycopg.Connection[Any]
) -> None:
    names = [f"n{position}" for position in range(26)]
    report = run(f"user_id,{','.join(names)}\n1,{','.join('5' * 26)}\n")
    assert rows(connection, "select count(*), max(slot) from duet.attribute_slots") == [(24, 23)]
    assert [note for note in report.notes if "All 24 feature slots are taken: `n24`, `n25`" in note]


def test_parquet_is_read_with_its_types_and_rows_are_its_lines(
    connection: psycopg.Connection[Any], clock: FixedClock, tmp_path: Path
) -> None:
    table = pa.table(
        {
            "user_id": pa.array([1, 2, None, 4], pa.int64()),
            "latitude": [1.0, float("nan"), 2.0, None],
            "longitude": [1.0, 1.0, 2.0, None],
            "interests": [["Chess", "chess", "go"], [], None, ["go"]],
            "weight": [1.5, 2.5, 3.5, None],
        }
    )
    pq.write_table(table, tmp_path / "people.parquet")
    report = import_tables(
        connection, people=tmp_path / "people.parquet", interactions=None, data_dir=tmp_path, clock=clock
    )
    assert report.people.new == 2
    assert rows(connection, "select line, reason from duet.quarantine order by line") == [
        (2, "not_finite: latitude"),
        (3, "missing_value: user_id"),
    ]
    assert rows(connection, "select interests, attributes from duet.users order by user_id") == [
        (["chess", "go"], {"weight": 1.5}),
        (["go"], {}),
    ]


def test_lines_are_counted_across_quoted_breaks_blank_and_malformed_lines(
    run: Importer, connection: psycopg.Connection[Any]
) -> None:
    run('user_id,bio\n1,"two\nlines"\n\n2\n3,ok\nx,bad\n4,"a\n\nb",5\ny,bad\n')
    assert rows(connection, "select line, reason from duet.quarantine order by line") == [
        (5, "malformed_row"),
        (7, "wrong_type: user_id"),
        (8, "malformed_row"),
        (11, "wrong_type: user_id"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("people.csv", b"", "is empty"),
        ("people.csv", b"user_id,gender\n", "no rows"),
        ("people.csv", b"PAR1\x00\x01", "is Parquet, not CSV"),
        ("people.csv", bytes(range(32)) * 50, "binary data"),
        ("people.csv", b"name,gender\nx,y\n", "no column `user_id`"),
        ("people.csv", b"user_id,a,a\n1,2,3\n", "more than one column called `a`"),
        ("people.csv", b"user_id,\n1,2\n", "column without a name"),
        ("people.csv", b"user_id,bio\n1,caf\xe9\n", "not utf-8 at byte 17; .*--encoding latin-1"),
        ("people.parquet", b"user_id\n1\n", "called Parquet but is not"),
        ("people.parquet", b"PAR1" + b"x" * 50, "damaged Parquet"),
        ("missing.csv", None, "no file"),
    ],
)
def test_a_file_that_is_not_what_it_claims_to_be_is_refused_whole(
    connection: psycopg.Connection[Any],
    clock: FixedClock,
    tmp_path: Path,
    name: str,
    content: bytes | None,
    sentence: str,
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RefusedFile, match=sentence):
        import_tables(connection, people=tmp_path / name, interactions=None, data_dir=tmp_path, clock=clock)
    assert rows(connection, "select count(*) from duet.imports") == [(0,)]


def test_latin_1_is_read_when_it_is_declared(
    connection: psycopg.Connection[Any], clock: FixedClock, tmp_path: Path
) -> None:
    (tmp_path / "people.csv").write_bytes(b"user_id,bio\n1,caf\xe9\n")
    import_tables(
        connection,
        people=tmp_path / "people.csv",
        interactions=None,
        data_dir=tmp_path,
        clock=clock,
        encoding="latin-1",
    )
    assert rows(connection, "select bio from duet.users") == [("café",)]


def test_nothing_lands_when_the_second_file_is_refused(run: Importer, connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(RefusedFile, match="`kind`"):
        run(PEOPLE, "actor,target,time\n1,2,2026-01-01\n")
    assert rows(connection, "select count(*) from duet.users") == [(0,)]


def test_an_import_without_files_or_inside_a_transaction_is_refused(
    connection: psycopg.Connection[Any], clock: FixedClock, tmp_path: Path
) -> None:
    with pytest.raises(IngestError, match="nothing to import"):
        import_tables(connection, people=None, interactions=None, data_dir=tmp_path, clock=clock)
    (tmp_path / "people.csv").write_text(PEOPLE)
    connection.execute("select 1")
    with pytest.raises(IngestError, match="open transaction"):
        import_tables(connection, people=tmp_path / "people.csv", interactions=None, data_dir=tmp_path, clock=clock)


def test_an_import_of_messages_names_the_setting_that_lets_those_who_wait_be_found(run: Importer) -> None:
    people = "user_id,gender\n" + "".join(f"{user_id},woman\n" for user_id in range(1, 42))
    written = [f"1,{other},like,2026-05-01\n" for other in range(2, 42)]
    answers = [f"{other},1,like,2026-05-02\n" for other in range(2, 12)]
    header = "actor,target,kind,time\n"
    told = run(people, header + "".join(written + answers)).notes
    assert any("25% of the contacts were answered. `DUET_RANKING__PENDING_LIKES=true`" in note for note in told)
    one_pass = run(None, header + "".join([*written, *answers, "2,3,pass,2026-05-03\n"])).notes
    assert not any("PENDING_LIKES" in note for note in one_pass)
