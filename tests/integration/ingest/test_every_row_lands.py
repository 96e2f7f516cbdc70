"""Whole imports against a real Postgres: each row of a file lands or is quarantined, and means what it says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contract.identities import LARGEST_EXACT
from infra.errors import ConfigurationError
from pipelines.ingest.columns.mapping_file import load_mapping
from pipelines.ingest.errors import IngestError
from pipelines.ingest.loading.report import ImportReport
from pipelines.ingest.tables import import_tables
from tests.clocks import FixedClock
from tests.unit.ingest.test_identities import hashed_before

Importer = Callable[..., ImportReport]
THREE = "user_id\n1\n2\n3\n"
USERS: LiteralString = "select user_id, gender, visible, attributes from duet.users order by 1"
TIMES: LiteralString = (
    "select actor_id, kind, (occurred_at at time zone 'utc')::text from duet.interactions order by 1, 3"
)


@dataclass(frozen=True)
class Case:
    people: str | Mapping[str, Any] = THREE
    interactions: str | None = None
    mapping: str = ""
    landed: tuple[int, int] = (0, 0)
    quarantined: dict[str, int] = field(default_factory=dict)
    query: LiteralString | None = None
    rows: tuple[tuple[Any, ...], ...] = ()
    notes: tuple[str, ...] = ()


@pytest.fixture
def run(connection: psycopg.Connection[Any], clock: FixedClock, tmp_path: Path) -> Importer:
    def load(people: str | Mapping[str, Any], interactions: str | None = None, mapping: str = "") -> ImportReport:
        connection.commit()
        (tmp_path / "m.yaml").write_text(mapping)
        people_file = tmp_path / ("p.csv" if isinstance(people, str) else "p.parquet")
        if isinstance(people, str):
            people_file.write_text(people, newline="")
        else:
            pq.write_table(pa.table(dict(people)), people_file)
        interactions_file = None if interactions is None else tmp_path / "i.csv"
        if interactions_file is not None and interactions is not None:
            interactions_file.write_text(interactions)
        report = import_tables(
            connection,
            people=people_file,
            interactions=interactions_file,
            data_dir=tmp_path / "data",
            clock=clock,
            mapping=load_mapping(tmp_path / "m.yaml"),
        )
        assert report.people.adds_up
        assert report.interactions.adds_up
        return report

    return load


CASES = {
    "capitalised names hide who is hidden": Case(
        "User_ID,Gender,VISIBLE\n1,F,no\n2,m,yes\n", landed=(2, 0), query=USERS,
        rows=((1, "f", False, {}), (2, "m", True, {})),
    ),
    "blanks around names and values": Case(
        "user_id, gender , height \n1, f, 170 \n", landed=(1, 0), query=USERS, rows=((1, "f", True, {"height": 170}),),
        notes=("Columns of `p.csv` kept as attributes: `height`.",),
    ),
    "near misses are pointed at": Case(
        "user_id,hidden\n1,no\n", landed=(1, 0), query=USERS, rows=((1, None, True, {"hidden": "no"}),),
        notes=("kept as attributes: `hidden`.", "`hidden` says the opposite of `visible`"),
    ),
    "people hidden by the opposite of visible stay hidden": Case(
        "user_id,Deleted\n1,yes\n2,No\n", mapping="people: {visible: {column: deleted, values: {yes: no, no: yes}}}",
        landed=(2, 0), query=USERS, rows=((1, None, False, {}), (2, None, True, {})),
    ),
    "birth dates in seconds that are read as milliseconds": Case(
        "user_id,birth_date\n1,641520000\n2,-157766400\n3,641520000000\n",
        mapping="people: {birth_date: {column: birth_date, unit: ms}}", landed=(3, 0),
        notes=("2 of 3 dates of `birth_date` lie within a month of 1970-01-01: is its `unit` right?",),
    ),
    "birth dates that are numbers without a unit": Case(
        "user_id,birth_date\n1,641520000\n2,-63072000\n", quarantined={"wrong_type: birth_date": 2},
        notes=("2 of 2 dates of `birth_date` are plain numbers",),
    ),
    "what null is called, beside blanks and in Parquet": Case(
        {
            "user_id": [1, 2, 3], "gender": ["NA", " NA ", "na"], "age_min": [20, -1, 30],
            "height": [-1.0, 170.5, None],
            "n": [float("nan"), 1.0, -1.0], "d": pa.array(["-1.00", None, None]).cast(pa.decimal128(9, 2)),
            "bio": pa.array([b"NA", b"hi", None]),
        },
        mapping="null_values: [NA, -1.0, NaN]", landed=(3, 0),
        query="select gender, age_min, bio, attributes from duet.users order by user_id",
        rows=((None, 20, None, {}), (None, None, "hi", {"height": 170.5, "n": 1}), ("na", 30, None, {})),
    ),
    "a row of nothing but null values": Case(
        "user_id\nNA\n1\n", mapping="null_values: NA", landed=(1, 0), quarantined={"missing_value: user_id": 1},
    ),
    "labels with quotes, brackets and escapes": Case(
        "user_id\tinterests\n1\twomen's football|hiking (alpine)\n2\t[\"caf\\u00e9\", \"a, b\"]\n"
        "3\t[\"x\\u0000\"]\n4\t['a', \"b\"]\n5\t[\"a\", [1]]\n",
        mapping="quote: none", landed=(3, 0), quarantined={"nul_character: interests": 1, "wrong_type: interests": 1},
        query="select interests from duet.users order by user_id",
        rows=((["women's football", "hiking (alpine)"],), (["café", "a, b"],), (["a", "b"],)),
    ),
    "a nested NUL among labels": Case(
        {"user_id": [1, 2], "interests": [["x\x00"], ["y"]]},
        landed=(1, 0), quarantined={"nul_character: interests": 1},
    ),
    "a date is midnight in its zone": Case(
        interactions="actor,target,kind,time\n1,2,like,2026-03-01\n2,1,like,2026-03-01 00:00:00\n3,1,pass,20260301\n",
        mapping="interactions: {time: {column: time, timezone: asia/kolkata}}", landed=(3, 3), query=TIMES,
        rows=tuple((actor, kind, "2026-02-28 18:30:00") for actor, kind in ((1, "like"), (2, "like"), (3, "pass"))),
    ),
    "seconds that are read as milliseconds": Case(
        interactions="actor,target,kind,time\n1,2,like,1719264011\n2,1,like,1719264012\n",
        mapping="interactions: {time: {column: time, unit: ms}}", landed=(3, 2),
        notes=("2 of 2 times of `time` lie in 1970: is its `unit` right?",),
    ),
    "numbers without a unit": Case(
        interactions="actor,target,kind,time\n1,2,like,1719264011\n", landed=(3, 0),
        quarantined={"wrong_type: occurred_at": 1}, notes=("1 of 1 times of `time` are plain numbers",),
    ),
    "the zero of other languages": Case(
        "user_id,created_at,last_active_at\n1,-62135596800,0\n2,0,-1\n3,1719264011,0\n",
        "actor,target,kind,time\n3,3,like,-62135596800\n3,1,like,0\n",
        "people: {created_at: {column: created_at, unit: s}, last_active_at: {column: last_active_at, unit: s}}\n"
        "interactions: {time: {column: time, unit: s}}",
        landed=(1, 0),
        quarantined={
            "out_of_range: created_at": 1, "out_of_range: last_active_at": 1,
            "out_of_range: occurred_at": 1, "unknown_person: target_id": 1,
        },
        query="select user_id, created_at::date::text, last_active_at::date::text from duet.users",
        rows=((3, "2024-06-24", "1970-01-01"),),
    ),
    "the last day before 1970 and the first after": Case(
        interactions="actor,target,kind,time\n1,2,like,1969-12-31T23:59:59Z\n1,2,like,0001-01-01\n"
        "2,1,like,1970-01-01T00:00:00Z\n",
        landed=(3, 1), quarantined={"out_of_range: occurred_at": 2}, query=TIMES,
        rows=((2, "like", "1970-01-01 00:00:00"),),
    ),
    "nested values that JSON cannot hold": Case(
        {
            "user_id": [1, 2, 3], "scores": [[1.0, float("nan")], [2.0], [float("inf")]],
            "s": [{"b": "x"}, {"b": "y"}, {"b": "\x00"}],
        },
        landed=(1, 0), quarantined={"not_finite: scores": 2}, query=USERS,
        rows=((2, None, True, {"scores": [2.0], "s": {"b": "y"}}),),
    ),
    "a nested NUL": Case(
        {"user_id": [1, 2], "s": [{"b": "x\x00"}, {"b": "y"}]},
        landed=(1, 0), quarantined={"nul_character: s": 1}, query=USERS, rows=((2, None, True, {"s": {"b": "y"}}),),
    ),
    "views beside a row that is quarantined": Case(
        {
            "user_id": pa.array(["1", "x"], pa.string_view()), "city": pa.array(["a", "b"], pa.string_view()),
            "words": pa.array([["t"], ["u"]], pa.list_(pa.string_view())),
            "raw": pa.array([b"ok", b"\xff"]), "who": pa.array([b"a" * 16, None], pa.uuid()),
        },
        landed=(1, 0), quarantined={"wrong_type: user_id": 1}, query=USERS,
        rows=(
            (1, None, True, {"city": "a", "words": ["t"], "raw": "ok", "who": "61616161-6161-6161-6161-616161616161"}),
        ),
    ),
    "times that no calendar holds": Case(
        {
            "user_id": [1, 2, 3], "created_at": pa.array([10**15, None, 0], pa.int64()).cast(pa.timestamp("ms")),
            "seen": pa.array([None, 2**62, 0], pa.int64()).cast(pa.timestamp("us")),
        },
        landed=(1, 0), quarantined={"out_of_range: created_at": 1, "wrong_type: seen": 1},
        query="select line, row->>'created_at', row->>'seen' from duet.quarantine order by line",
        rows=((1, str(10**15), None), (2, None, str(2**62))),
    ),
    "a birth date with a zone": Case(
        "user_id,birth_date\n1,1990-05-01T00:00:00+05:00\n2,1990-05-01T23:00:00-05:00\n", landed=(2, 0),
        query="select birth_date::text from duet.users", rows=(("1990-05-01",), ("1990-05-01",)),
    ),
    "short zones and words for this instant": Case(
        interactions="actor,target,kind,time\n1,2,like,2024-03-01T9:00Z\n2,1,like,2024-03-01T12:00+5\n"
        "3,1,like,now\n3,2,like,today\n",
        mapping="interactions: {time: {column: time, timezone: asia/kolkata}}", landed=(3, 2),
        quarantined={"wrong_type: occurred_at": 2}, query=TIMES,
        rows=((1, "like", "2024-03-01 09:00:00"), (2, "like", "2024-03-01 07:00:00")),
    ),
    "decimals and lists of long text": Case(
        {
            "user_id": [1, 2], "score": pa.array([Decimal(12345678901234567890), None], pa.decimal128(38, 0)),
            "interests": pa.array([["A"], ["b", "a"]], pa.large_list(pa.large_string())),
        },
        landed=(2, 0), query="select user_id, interests, attributes->>'score' from duet.users order by user_id",
        rows=((1, ["a"], "12345678901234567890"), (2, ["b", "a"], None)),
    ),
    "a text of many lines with commas": Case(
        'user_id,bio,x\n1,"Hi, it is me\nI like tea, cake, dogs\nand more, too",3\n2,b,4\n', landed=(2, 0),
        query="select bio from duet.users where user_id = 1",
        rows=(("Hi, it is me\nI like tea, cake, dogs\nand more, too",),),
    ),
    "a blank as delimiter": Case(
        'user_id bio x\n1 "two words" 3\n2 "" 4\n', mapping="delimiter: ' '", landed=(2, 0),
        query="select bio, (attributes->>'x')::int from duet.users order by user_id",
        rows=(("two words", 3), (None, 4)),
    ),
    "yes and no as they are written": Case(
        interactions="from,to,liked,when\n1,2,yes,2026-01-01\n2,1,No,2026-01-02\n3,1,1.0,2026-01-03\n",
        mapping="interactions: {actor: from, target: to, time: when, kind: {column: liked, values: "
        "{yes: like, no: pass, 1: superlike}}}",
        landed=(3, 3), query="select actor_id, kind from duet.interactions order by 1",
        rows=((1, "like"), (2, "pass"), (3, "superlike")),
    ),
    "one stray quote in its own line": Case(
        'user_id,gender,height\n1,"f" x,3\n2,m,5\n3,"m",6\n', landed=(2, 0), quarantined={"malformed_row": 1},
        query="select line, row->>'text' from duet.quarantine", rows=((2, '1,"f" x,3'),),
    ),
    "a file that does not quote": Case(
        'user_id\tgender\tbio\n1\tf\t"open\n2\tm\tb\n3\tf\t"again\n', mapping="quote: none", landed=(3, 0),
        query="select bio from duet.users order by user_id", rows=(('"open',), ("b",), ('"again',)),
    ),
    "hashed ids that are written with a point": Case(
        "login\n1.0\n2\n", "a,b,kind,time\n2,1,like,2026-01-01\n",
        "people: {user_id: {column: login, hash: true}}\n"
        "interactions: {actor: {column: a, hash: true}, target: {column: b, hash: true}}",
        landed=(2, 0), quarantined={"unknown_person: target_id": 1},
        notes=("1 id of `login` is written like `1.0`: with `hash: true` that is another person",),
    ),
    "hashed ids in a column of floats": Case(
        {"login": [1.0, 1e10, 2e10]}, mapping="people: {user_id: {column: login, hash: true}}", landed=(3, 0),
        notes=("2 ids of `login` are written like `1e+10`",),
    ),
    "what null is called": Case(
        "user_id,gender,bio\n1, -1,no \n2,f,null\n", mapping="null_values: [-1, no, null]", landed=(2, 0),
        query="select gender, bio from duet.users order by user_id", rows=((None, None), ("f", None)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_row_lands_or_is_quarantined_with_its_reason(
    run: Importer, connection: psycopg.Connection[Any], case: Case
) -> None:
    report = run(case.people, case.interactions, case.mapping)
    assert (report.people.landed, report.interactions.landed) == case.landed
    assert dict(report.people.quarantined + report.interactions.quarantined) == case.quarantined
    for note in case.notes:
        assert [told for told in report.notes if note in told], report.notes
    if not case.notes:
        assert not [told for told in report.notes if "did you mean" in told]
    if case.query is not None:
        assert connection.execute(case.query).fetchall() == list(case.rows)


@pytest.mark.parametrize(
    "text",
    [
        'user_id,bio,x\n1,"open,a\n2,b,c\n3,"again,d\n4,e,f\n',
        'user_id,bio,x\n1,a,"open\n2,b,c\n3,d,e"\n4,f,g\n',
        'user_id,bio,x\n1,"open,a\n2,b,c\n3,d",e\n4,f,g\n',
        'user_id,bio,x\r1,a,"open\r2,b,c\r3,d,e"\r4,f,g\r',
    ],
)
def test_quotes_that_would_swallow_rows_refuse_the_file_and_nothing_lands(
    run: Importer, connection: psycopg.Connection[Any], text: str
) -> None:
    with pytest.raises(IngestError, match=r"in line 2.*quote: none"):
        run(text)
    assert connection.execute("select count(*) from duet.users").fetchone() == (0,)


def test_nothing_is_imported_on_a_machine_without_time_zones(
    run: Importer, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.time_zones.has_time_zones", lambda: False)
    with pytest.raises(ConfigurationError, match="no time zone database"):
        run(THREE)
    assert connection.execute("select count(*) from duet.users").fetchone() == (0,)


HASHED = """
people: {user_id: {column: login, hash: true}}
interactions: {actor: {column: a, hash: true}, target: {column: b, hash: true}}
"""


def test_people_hashed_before_keep_their_ids_and_new_ones_get_ids_that_are_exact_in_json(
    run: Importer, connection: psycopg.Connection[Any]
) -> None:
    ann = hashed_before("ann")
    connection.execute('insert into duet.users (user_id, attributes) values (%s, \'{"source_id": "ann"}\')', (ann,))
    first = run(
        "login,height\nann,170\nbob,180\n", "a,b,kind,time\nann,bob,like,2026-01-01\nbob,ann,like,2026-01-02\n", HASHED
    )
    assert (first.people.new, first.people.updated, first.interactions.new) == (1, 1, 2)
    ids = dict(connection.execute("select attributes->>'source_id', user_id from duet.users").fetchall())
    assert ids["ann"] == ann
    assert ids["bob"] <= LARGEST_EXACT < ann
    assert [note for note in first.notes if "must read them as BigInt" in note]
    again = run(
        "login,height\nann,170\nbob,180\n", "a,b,kind,time\nann,bob,like,2026-01-01\nbob,ann,like,2026-01-02\n", HASHED
    )
    assert (again.people.unchanged, again.interactions.unchanged) == (2, 2)


def test_uuids_of_either_case_name_the_same_people(run: Importer) -> None:
    one, two = "0b6f5f4e-8c7b-4d6e-9a3f-1b2c3d4e5f60", "0b6f5f4e-8c7b-4d6e-9a3f-1b2c3d4e5f61"
    report = run(
        f"login\n{one}\n{two.upper()}\n",
        f"a,b,kind,time\n{one.upper()},{two},like,2026-01-01\n{two},{one},like,2026-01-02\n",
        HASHED,
    )
    assert (report.people.new, report.interactions.new, report.n_quarantined) == (2, 2, 0)
    assert not [note for note in report.notes if "BigInt" in note]


def test_an_id_that_json_rounds_is_told(run: Importer) -> None:
    assert [note for note in run(f"user_id\n{2**53}\n").notes if "beyond 2^53" in note]
    assert not [note for note in run(f"user_id\n{2**53 - 1}\n").notes if "beyond 2^53" in note]
