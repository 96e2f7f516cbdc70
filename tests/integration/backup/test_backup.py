"""A backup restored onto an empty installation is the same installation, but for whoever was erased since."""

import json
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import typer
from psycopg import sql
from pydantic import SecretStr

from infra.backup import tools
from infra.backup.errors import BackupDamaged, BackupInTheWay, ToolFailed, ToolMissing
from infra.backup.manifest import NAME
from infra.backup.restoring import restore_backup
from infra.backup.taking import take_backup
from infra.cli.backup import backup, restore
from infra.cli.context import Invocation
from infra.db import erasures
from infra.db.postgres import connect
from infra.endpoints import Endpoints
from infra.person_names import PersonNames
from infra.settings import Settings
from tests.conftest import make_settings, with_own_database
from tests.serving_world import insert_people, interact

GONE = 7
"""Who is erased after the backup was taken."""


@dataclass(frozen=True)
class Installation:
    """A database and a data folder of its own."""

    settings: Settings
    endpoints: Endpoints

    def rows(self) -> dict[str, list[Any]]:
        """Return every row of every table of ours, as text."""
        with connect(self.endpoints.database_url) as connection:
            tables = connection.execute(
                "select schemaname, tablename from pg_tables where schemaname in ('duet', 'features', 'mlflow')"
            ).fetchall()
            return {
                f"{schema}.{table}": sorted(
                    row[0]
                    for row in connection.execute(
                        sql.SQL("select t::text from {} as t").format(sql.Identifier(schema, table))
                    )
                )
                for schema, table in tables
            }


@pytest.fixture(scope="module")
def source(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Twenty people who liked each other, an artefact of a model, and a table of MLflow's."""
    mine = with_own_database(endpoints, "duet_backed_up")
    data_dir = tmp_path_factory.mktemp("source") / "duet"
    with connect(mine.database_url) as connection:
        insert_people(connection, 20)
        interact(connection, 1, [2, 4, GONE + 1])
        interact(connection, GONE, [2, 4])
        connection.execute("create table mlflow.model_versions (name text, version int)")
        connection.execute("insert into mlflow.model_versions values ('duet-ranker', 3)")
    artefact = data_dir / "mlflow" / "1" / "model.ubj"
    artefact.parent.mkdir(parents=True)
    artefact.write_bytes(b"trees")
    (data_dir / "pipeline" / "people").mkdir(parents=True)
    (data_dir / "pipeline" / "people" / "current.json").write_text("{}")
    return installation(data_dir, mine)


@pytest.fixture(scope="module")
def taken(source: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    PersonNames.of(source.settings)  # the salt of the hashes belongs to it
    folder = tmp_path_factory.mktemp("backups") / "first"
    take_backup(source.settings, source.endpoints, folder)
    return folder


@pytest.fixture
def empty(endpoints: Endpoints, tmp_path: Path) -> Installation:
    mine = with_own_database(endpoints, "duet_restored")
    return installation(tmp_path / "restored", mine)


@pytest.fixture
def context(empty: Installation, monkeypatch: pytest.MonkeyPatch) -> typer.Context:
    """What a command is called with, on the empty installation."""
    import click

    monkeypatch.setenv("DUET_DATABASE_URL", empty.endpoints.database_url)
    monkeypatch.setenv("DUET_REDIS_URL", empty.endpoints.redis_url)
    return typer.Context(click.Command("duet"), obj=Invocation(data_dir=empty.settings.data_dir))


def installation(data_dir: Path, endpoints: Endpoints) -> Installation:
    data_dir.mkdir(parents=True, exist_ok=True)
    database, cache = SecretStr(endpoints.database_url), SecretStr(endpoints.redis_url)
    return Installation(make_settings(data_dir, database_url=database, redis_url=cache), endpoints)


def test_everything_is_as_it_was_and_what_is_made_anew_is_gone(
    source: Installation, taken: Path, empty: Installation, redis_client: redis.Redis
) -> None:
    redis_client.set(f"key of {empty.settings.features.project}", 1)
    (empty.settings.data_dir / "snapshot").mkdir()
    restored = restore_backup(empty.settings, empty.endpoints, taken, actor="lee")
    assert restored.erased_again == 0
    assert empty.rows() == source.rows()
    assert (empty.settings.data_dir / "mlflow" / "1" / "model.ubj").read_bytes() == b"trees"
    assert (empty.settings.data_dir / "pipeline" / "people" / "current.json").read_text() == "{}"
    assert not (empty.settings.data_dir / "snapshot").exists()
    assert redis_client.keys() == []
    assert PersonNames.of(empty.settings)(1) == PersonNames.of(source.settings)(1)
    with pytest.raises(BackupInTheWay, match="`users`"):
        restore_backup(empty.settings, empty.endpoints, taken, actor="lee")
    restore_backup(empty.settings, empty.endpoints, taken, actor="lee", overwrite=True)
    assert empty.rows() == source.rows()


def test_only_its_owner_may_read_a_backup(taken: Path) -> None:
    for path in (taken, *taken.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_whoever_was_erased_since_is_erased_again(source: Installation, taken: Path, empty: Installation) -> None:
    restore_backup(empty.settings, empty.endpoints, taken, actor="lee")
    name = PersonNames.of(empty.settings)
    with connect(empty.endpoints.database_url) as connection:
        begun = erasures.begin(connection, GONE, [str(GONE)], name, way="api", actor="app")
        assert begun is not None
        erasures.erase_rows(connection, begun)
    # Another machine, which knows of it from a copy of the journal alone.
    journal = empty.settings.data_dir.parent / "copied.jsonl"
    told = {"requested_at": "2999-01-01T00:00:00+00:00", "person": [name(3)]}
    earlier = {"requested_at": "2001-01-01T00:00:00+00:00", "person": [name(4)]}
    journal.write_text(f"{json.dumps(told)}\n{json.dumps(earlier)}\n")
    restored = restore_backup(empty.settings, empty.endpoints, taken, actor="lee", overwrite=True, journals=[journal])
    assert (restored.erased_again, restored.nobody_found) == (2, False)
    with connect(empty.endpoints.database_url) as connection:
        left = {row[0] for row in connection.execute("select user_id from duet.users")}
        assert left == set(range(1, 21)) - {GONE, 3}
        ways = connection.execute("select way, finished_at from duet.erasures").fetchall()
        assert ways == [("restore", None)] * 2, "the pipelines do the rest"


def test_a_journal_that_names_nobody_who_is_here_is_told_of(taken: Path, empty: Installation, tmp_path: Path) -> None:
    journal = tmp_path / "of-another-salt.jsonl"
    journal.write_text(json.dumps({"requested_at": "2999-01-01T00:00:00+00:00", "person": ["0123456789abcdef"]}))
    assert restore_backup(empty.settings, empty.endpoints, taken, actor="lee", journals=[journal]).nobody_found


def test_a_backup_that_was_changed_or_is_unfinished_touches_nothing(
    taken: Path, empty: Installation, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(taken, damaged)
    (damaged / "mlflow" / "1" / "model.ubj").write_bytes(b"Trees")
    before = empty.rows()
    with pytest.raises(BackupDamaged, match="is not what was backed up"):
        restore_backup(empty.settings, empty.endpoints, damaged, actor="lee", overwrite=True)
    (damaged / NAME).unlink()
    with pytest.raises(BackupDamaged, match="no finished backup"):
        restore_backup(empty.settings, empty.endpoints, damaged, actor="lee", overwrite=True)
    assert empty.rows() == before


def test_what_stands_in_the_way_of_a_backup_stays(source: Installation, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BackupInTheWay, match="is not empty"):
        take_backup(source.settings, source.endpoints, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_database_in_use_is_not_dropped(taken: Path, empty: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.backup.restoring._LOCK_WAIT", "50ms")
    with connect(empty.endpoints.database_url) as busy:
        busy.execute("select from duet.users")
        with pytest.raises(BackupInTheWay, match="using the database"):
            restore_backup(empty.settings, empty.endpoints, taken, actor="lee")


def test_the_commands_say_what_they_did(
    taken: Path, context: typer.Context, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    restore(context, taken)
    backup(context, tmp_path / "again")
    said = " ".join(capsys.readouterr().out.split())
    assert "restored as of" in said
    assert "files" in said
    assert (tmp_path / "again" / NAME).is_file()


def test_a_tool_that_is_missing_or_fails_is_named(source: Installation, tmp_path: Path) -> None:
    with pytest.raises(ToolMissing, match="postgresql-client-99"):
        tools.tool_for(tools.DUMP, 99)
    with pytest.raises(ToolFailed, match="`pg_restore` failed"):
        tools.run_tool(tools.RESTORE, source.endpoints.database_url, 170000, str(tmp_path / "none.dump"))
