"""A person who asks to be forgotten is gone from every place that held them, and everybody else stays as they were."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import click
import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
import typer
from psycopg import sql
from psycopg.types.json import Jsonb

from feature_repo.layout import VIEWS
from feature_repo.store import apply_catalogue, open_feature_store, own_store, user_views
from infra.cli.context import Invocation
from infra.clock import SystemClock
from infra.db import erasures
from infra.db.personal_data import PERSONAL
from infra.endpoints import Endpoints
from infra.faults import VARIABLE
from infra.person_names import PersonNames
from infra.settings import Settings
from pipelines.ingest.loading.quarantine import write_report
from pipelines.resources import Platform
from pipelines.results.store import StepResult
from pipelines.upkeep.erasure.commands import erase, erase_again
from pipelines.upkeep.erasure.errors import NobodyToErase
from pipelines.upkeep.erasure.found import LATE_ROWS
from pipelines.upkeep.erasure.passes import pass_over
from pipelines.upkeep.erasure.whom import known_by
from registry.contracts import ArtifactKind
from tests.clocks import FixedClock
from tests.fakes import MemoryRegistry
from tests.feature_rows import put_features
from tests.releases import make_embedding
from tests.serving_world import insert_people, insert_person, interact

Db = psycopg.Connection[Any]
ANNA, BEN = 700_123, 2
"""Who is erased, and whose rows stay."""
IMPORT = UUID("8f14e45f-ceea-467f-a0e6-0242ac120002")
PASS = """
import sys
from pathlib import Path
from infra.endpoints import Endpoints
from infra.settings import Settings
from pipelines.upkeep.erasure.passes import pass_over
from pipelines.resources import Platform
pass_over(Platform(Settings(environment="test", data_dir=Path(sys.argv[1])), Endpoints(*sys.argv[2:5])))
"""
SETTLED_S = 1_000
"""By then all that is kept for a while has expired."""


@pytest.fixture
def town(connection: Db, platform: Platform) -> Platform:
    """Twenty people, and Anna, known as `anna@example`, in every table that can name her."""
    insert_people(connection, 20)
    insert_person(connection, ANNA)
    connection.execute("update duet.users set external_id = 'anna@example' where user_id = %s", (ANNA,))
    for actor, target in ((ANNA, BEN), (4, ANNA), (BEN, 3)):
        interact(connection, actor, target, "like")
    connection.execute(
        "insert into duet.webhook_events (event_id, kind, actor_id, target_id, occurred_at)"
        " values (%s, 'match', %s, %s, now())",
        (uuid4(), ANNA, BEN),
    )
    remember(connection, ANNA, platform)
    remember(connection, BEN, platform)
    connection.execute(
        "insert into duet.imports (import_id, kind, source, started_at) values (%s, 'tables', 'people.csv', now())",
        (IMPORT,),
    )
    for row in ({"actor": "anna@example", "kind": "wink"}, {"user_id": ANNA}, {"actor": "ben", "age": 17}):
        connection.execute(
            "insert into duet.quarantine (import_id, file, line, reason, row) values (%s, 'f.csv', 1, 'why', %s)",
            (IMPORT, Jsonb(row)),
        )
    connection.commit()
    (platform.settings.data_dir / "quarantine").mkdir(parents=True)
    write_report(connection, IMPORT, platform.settings.data_dir / "quarantine" / f"{IMPORT}.csv")
    return platform


def remember(connection: Db, who: int, platform: Platform) -> None:
    """Log an answer for somebody and one that shows them, and keep their features."""
    now = SystemClock().now()
    for asker, shown in ((who, 5), (6, who)):
        request = uuid4()
        connection.execute(
            "insert into duet.impressions (request_id, user_id, target_id, position, shown_at)"
            " values (%s, %s, %s, 0, %s)",
            (request, asker, shown, now),
        )
        connection.execute(
            "insert into duet.answers (request_id, user_id, arm, variant, level, shown, took_ms, cached, failed,"
            " answered_at) values (%s, %s, 'champion', 'champion', 1, 1, 5, false, false, %s)",
            (request, asker, now),
        )
    for layout in VIEWS:
        put_features(connection, layout, who, now)


def begin(platform: Platform, name: str = "anna@example") -> int:
    with platform.connection(autocommit=True) as connection:
        known = known_by(connection, name)
        assert known is not None
        begun = erasures.begin(
            connection, known.user_id, known.texts, PersonNames.of(platform.settings), way="cli", actor="lee"
        )
        assert begun is not None
        return begun


def told(platform: Platform, name: str = "anna@example") -> dict[str, Any]:
    with platform.connection() as connection:
        report = erasures.report(connection, PersonNames.of(platform.settings)(name))
        assert report is not None
        return report


def naming(connection: Db, who: int) -> dict[str, int]:
    """Count the rows of each table that name somebody."""
    found = {}
    for table in PERSONAL:
        mine = sql.SQL(" or ").join(sql.SQL("{} = %(who)s").format(sql.Identifier(name)) for name in table.columns)
        statement = sql.SQL("select count(*) from {} where {}").format(sql.Identifier(table.schema, table.name), mine)
        found[table.place] = connection.execute(statement, {"who": who}).fetchall()[0][0]
    connection.commit()
    return found


def place(report: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [one for one in report["places"] if one["place"] == name]
    return dict(found)


def finish(platform: Platform, clock: FixedClock) -> None:
    pass_over(platform)
    clock.advance(SETTLED_S)
    assert list(pass_over(platform).values()) == [[]]


def test_every_table_forgets_the_person_and_nobody_else(town: Platform, clock: FixedClock, connection: Db) -> None:
    before = naming(connection, BEN)
    assert all(naming(connection, ANNA)[name] for name in before if name != "duet.deletions")
    begin(town)
    finish(town, clock)
    assert set(naming(connection, ANNA).values()) == {0}
    # One like of Ben's was about her, and so was the match that he is not told of any more.
    less = {name: before[name] - 1 for name in ("duet.interactions", "duet.webhook_events")}
    assert naming(connection, BEN) == before | less
    left = connection.execute("select row from duet.quarantine").fetchall()
    assert left == [({"actor": "ben", "age": 17},)]
    report = told(town)
    assert report["status"] == "finished"
    assert {one["place"]: one["before"] for one in report["places"] if one["place"].startswith("duet.")} == {
        "duet.users": 1,
        "duet.interactions": 2,
        "duet.impressions": 2,
        "duet.answers": 1,
        "duet.deletions": 1,
        "duet.quarantine": 2,
        "duet.webhook_events": 0,  # they went with the person's own row
    }
    assert {one["after"] for one in report["places"]} == {0}


def test_redis_files_and_the_training_set_forget_them(
    town: Platform, clock: FixedClock, redis_client: redis.Redis
) -> None:
    store = open_feature_store(town.settings, town.endpoints)
    apply_catalogue(store)
    own = own_store(store)
    assert own is not None
    view = user_views(store)[0]
    rows = np.zeros((2, len(view.features)), dtype=np.float32)
    assert own.write_packed(store.config, view, np.array([ANNA, BEN]), rows, np.array([1, 1])) == 2
    project = town.settings.features.project
    for who in (ANNA, BEN):
        redis_client.set(f"{project}:answer:2:abc:{who}:20:champion", b"{}")
    theirs = kept_result(town, "interactions", [ANNA, BEN])
    others = kept_result(town, "people", [BEN])

    begin(town)
    finish(town, clock)
    [(_, times)] = own.read_packed(store.config, [(view, True)], np.array([ANNA, BEN]))
    assert times.tolist() == [-1, 1]
    assert redis_client.keys(f"{project}:answer:*") == [f"{project}:answer:2:abc:{BEN}:20:champion".encode()]
    assert (theirs.exists(), others.exists()) == (False, True)
    assert town.results.find("interactions") is None, "the next training makes its snapshot anew"
    file = (town.settings.data_dir / "quarantine" / f"{IMPORT}.csv").read_text()
    assert "anna" not in file
    assert "ben" in file
    report = told(town)
    for name in ("online features", "kept answers in Redis", "results of the pipelines", "quarantine files"):
        assert (place(report, name)["before"], place(report, name)["after"]) == (1, 0), name


def kept_result(platform: Platform, asset: str, ids: list[int]) -> Path:
    digest = asset.ljust(64, "0")
    with platform.results.staging(asset) as scratch:
        (scratch / "made").mkdir()
        pq.write_table(pa.table({"actor_id": ids}), scratch / "made" / "rows.parquet")
        folder = platform.results.adopt(scratch / "made", asset, digest)
    platform.results.publish(StepResult(asset=asset, digest=digest, run_id="r", as_of=SystemClock().now()))
    return folder


def test_the_report_names_the_models_that_saw_them_and_not_the_person(
    town: Platform, clock: FixedClock, registry: MemoryRegistry, tmp_path: Path
) -> None:
    register(registry, tmp_path, "seen", "d1")
    begin(town)
    pass_over(town)
    register(registry, tmp_path, "same data", "d1", later=True)
    register(registry, tmp_path, "free of them", "d2", later=True)
    finish(town, clock)
    report = told(town)
    assert [one["version"] for one in report["models"]] == [2, 1]
    assert told(town, str(ANNA)) | {"person": ""} == report | {"person": ""}
    with town.connection() as connection:
        everything = json.dumps(connection.execute("select to_jsonb(e) from duet.erasures e").fetchall())
    assert str(ANNA) not in everything
    assert "anna" not in everything


def register(registry: MemoryRegistry, tmp_path: Path, name: str, dataset: str, *, later: bool = False) -> None:
    """Register an embedding of a data set: before the erasure, or a moment ago."""
    make_embedding(len(list(tmp_path.iterdir()))).save(tmp_path / name, {})
    registry.register(ArtifactKind.EMBEDDING, tmp_path / name, tags={"dataset_digest": dataset})
    if later:
        made = registry._versions[ArtifactKind.EMBEDDING]
        made[-1] = replace(made[-1], created_at=SystemClock().now())


def test_whoever_comes_back_under_the_same_id_is_a_new_person_whose_rows_stay(
    town: Platform, clock: FixedClock, connection: Db
) -> None:
    begin(town)
    pass_over(town)
    assert naming(connection, ANNA)["duet.users"] == 0
    insert_person(connection, ANNA)
    interact(connection, ANNA, 8, "like")
    later = SystemClock().now() + 2 * LATE_ROWS
    connection.execute(
        "insert into duet.impressions (request_id, user_id, target_id, position, shown_at) values (%s, %s, 9, 0, %s)",
        (uuid4(), ANNA, later),
    )
    connection.commit()
    clock.advance(SETTLED_S)
    pass_over(town)
    found = naming(connection, ANNA)
    assert (found["duet.users"], found["duet.interactions"], found["duet.impressions"]) == (1, 1, 1)
    assert told(town)["status"] == "finished"


def test_an_erasure_waits_for_workers_that_hold_older_people(town: Platform, clock: FixedClock, connection: Db) -> None:
    begin(town)
    pass_over(town)
    report = (
        "insert into duet.serving_workers (worker_id, host, pid, people_read_at) values (%s, 'a', 1, %s)"
        " on conflict (worker_id) do update set people_read_at = excluded.people_read_at, seen_at = clock_timestamp()"
    )
    worker = uuid4()
    connection.execute(report, (worker, SystemClock().now() - timedelta(hours=1)))
    connection.commit()
    clock.advance(SETTLED_S)
    [[waits]] = pass_over(town).values()
    assert waits.startswith("snapshots of serving: ")
    assert told(town)["status"] == "running"
    connection.execute(report, (worker, SystemClock().now()))
    connection.commit()
    assert list(pass_over(town).values()) == [[]]


def test_a_store_that_is_away_is_waited_for_and_said(
    town: Platform, clock: FixedClock, registry: MemoryRegistry
) -> None:
    begin(town)
    clock.advance(SETTLED_S)
    registry.down = True
    [[waits]] = pass_over(town).values()
    assert waits.startswith("models: ")
    registry.down = False
    assert list(pass_over(town).values()) == [[]]


def test_a_pass_that_is_killed_is_carried_on_and_its_figures_stay(
    town: Platform, clock: FixedClock, connection: Db
) -> None:
    begin(town)
    servers = town.endpoints
    died = subprocess.run(
        [sys.executable, "-c", PASS, str(town.settings.data_dir), servers.database_url, servers.redis_url, "http://h"],
        env={**os.environ, VARIABLE: "erasure.after duet.answers"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert died.returncode == -9, died.stderr
    assert (naming(connection, ANNA)["duet.answers"], naming(connection, ANNA)["features.user_profile"]) == (0, 1)
    finish(town, clock)
    report = told(town)
    assert report["status"] == "finished"
    assert (place(report, "duet.answers")["before"], place(report, "features.user_profile")["before"]) == (1, 1)


def test_beginning_twice_is_one_erasure(town: Platform, connection: Db) -> None:
    assert begin(town) == begin(town, str(ANNA))
    visible = connection.execute("select visible from duet.users where user_id = %s", (ANNA,)).fetchall()
    assert visible == [(False,)]


def test_an_erasure_cannot_be_struck_from_the_table(town: Platform, connection: Db) -> None:
    begin(town)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("delete from duet.erasures")


def test_whoever_comes_back_with_an_older_database_is_erased_again_by_the_journal(
    town: Platform,
    endpoints: Endpoints,
    connection: Db,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begin(town)
    pass_over(town)
    pass_over(town)
    journal = town.settings.data_dir / "erasures.jsonl"
    assert len(journal.read_text().splitlines()) == 1, "each erasure is noted once"
    assert "anna" not in journal.read_text()
    insert_person(connection, ANNA)
    connection.commit()
    monkeypatch.setenv("DUET_DATABASE_URL", endpoints.database_url)
    monkeypatch.setenv("DUET_REDIS_URL", endpoints.redis_url)
    context = typer.Context(click.Command("erase-again"), obj=Invocation(data_dir=town.settings.data_dir))
    erase_again(context, journal, after="2999-01-01")
    assert naming(connection, ANNA)["duet.users"] == 1, "nobody was erased after that"
    monkeypatch.setenv("DUET_LOGGING__PERSON_SALT", "another than the journal was written with")
    mistaken = typer.Context(click.Command("erase-again"), obj=Invocation(data_dir=town.settings.data_dir))
    erase_again(mistaken, journal, after="2020-01-01 12:00")
    assert "DUET_LOGGING__PERSON_SALT is not the one" in " ".join(capsys.readouterr().err.split())
    monkeypatch.delenv("DUET_LOGGING__PERSON_SALT")
    erase_again(context, journal, after="2020-01-01 12:00")
    assert naming(connection, ANNA)["duet.users"] == 0


def test_the_command_erases_and_reports_and_refuses_who_is_unknown(
    town: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def opened(_settings: Settings) -> Iterator[Platform]:
        yield town

    monkeypatch.setattr("pipelines.runs.opening.opened_platform", opened)
    context = typer.Context(click.Command("erase"), obj=Invocation(data_dir=town.settings.data_dir))
    with pytest.raises(NobodyToErase, match="Nobody has the id 999"):
        erase(context, "999", yes=True)
    erase(context, "anna@example", yes=True, as_json=True)
    first = json.loads(capsys.readouterr().out)
    assert (first["status"], place(first, "duet.interactions")["before"]) == ("running", 2)
    erase(context, str(ANNA), only_report=True, as_json=True)
    assert json.loads(capsys.readouterr().out)["erasure_id"] == first["erasure_id"]
