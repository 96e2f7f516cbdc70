"""Serving and pipelines have roles of their own in Postgres, and the server itself refuses them everything else."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click
import psycopg
import pytest
import typer
from psycopg import sql

from feature_repo.errors import CatalogueNotApplied
from feature_repo.store import apply_catalogue, open_feature_store, user_views
from infra.cli.context import Invocation
from infra.cli.db_roles import db_roles
from infra.db.migrate import upgrade
from infra.db.personal_data import IMPERSONAL, PERSONAL, TEXTS
from infra.db.postgres import connect
from infra.db.roles import PIPELINES, SERVING, grant_roles, owns_its_tables
from infra.endpoints import Endpoints
from infra.errors import RoleMissing
from infra.settings import Settings
from tests.conftest import role_url, with_own_database
from tests.serving_world import insert_people

NAMES = {"serving": "duet_serving_of_tests", "pipelines": "duet_pipelines_of_tests"}
MLFLOW = "duet_mlflow_of_tests"
DENIED = {
    "serving": [
        "alter table duet.users add column more int",
        "create table duet.mine (id int)",
        "create table features.mine (id int)",
        "drop table duet.users",
        "truncate duet.interactions",
        "delete from duet.interactions",
        "delete from duet.users",
        "select * from duet.quarantine",
        "select * from duet.imports",
        "select * from duet.erasures",
        "select * from duet.experiment_events",
        "select * from mlflow.secrets_of_tests",
        "select * from dagster.secrets_of_tests",
        "update duet.promotions set reason = ''",
        "update duet.interactions set kind = 'like'",
        "update duet.experiments set challenger_share = 1",
        "insert into duet.api_keys (key_id, name, secret_sha256) values ('aaaaaaaa', 'a', ''::bytea)",
        "delete from features.user_profile",
        "copy duet.users to program 'cat'",
    ],
    "pipelines": [
        "select * from duet.api_keys",
        "insert into duet.api_keys (key_id, name, secret_sha256) values ('aaaaaaaa', 'a', ''::bytea)",
        "alter table duet.users add column more int",
        "create table duet.mine (id int)",
        "drop table duet.interactions",
        "truncate duet.users",
        "delete from duet.erasures",
        "update duet.promotions set reason = ''",
        "delete from duet.experiment_events",
    ],
}
ALLOWED = {
    "serving": [
        "select * from duet.store_people('[{\"user_id\": 77}]', false, true)",
        "select * from duet.store_interaction(gen_random_uuid(), 1, 2, 'like', null, null, '5s')",
        "select * from duet.store_interaction(gen_random_uuid(), 1, 2, 'block', null, null, '5s', true)",
        "delete from duet.webhook_events",
        "select * from duet.store_streamed_people('[{\"user_id\": 78}]', false, true, 's', 0, array['1'], '{}')",
        "select duet.begin_erasure(3, array['3'], array['h'], 'api', 'app')",
        "select duet.erase_rows((select 1::bigint))",
        "select duet.erasure_report('h')",
        "select key_id from duet.api_keys",
        "insert into duet.promotions (model, version, to_stage, actor, way) values ('m', 1, 'Production', 'a', 'ui')",
        "select * from features.user_profile",
    ],
    "pipelines": [
        "create temp table staged (id int)",
        "insert into duet.imports (import_id, kind, source, started_at) values (gen_random_uuid(), 'k', 's', now())",
        "delete from duet.impressions",
        "update duet.erasures set look_again_at = now()",
        "create table dagster.mine (id int)",
        "select * from dagster.secrets_of_tests",
        "insert into features.user_profile (user_id, event_timestamp) values (1, now())",
        "alter table features.user_profile add column more real not null default 0",
        "select duet.erase_rows((select 1::bigint))",
    ],
}


@pytest.fixture(scope="module")
def owner(endpoints: Endpoints) -> Endpoints:
    """A database of its own with twenty people, tables of Dagster and MLflow, and both roles."""
    mine = with_own_database(endpoints, "duet_roles")
    with connect(mine.database_url, autocommit=True) as connection:
        insert_people(connection, 20)
        for schema in ("mlflow", "dagster"):
            connection.execute(sql.SQL("create table {}.secrets_of_tests (id int)").format(sql.Identifier(schema)))
        for role in NAMES.values():
            role_url(connection, mine, role)
        grant_roles(connection, **NAMES)
    return mine


@pytest.fixture(params=list(NAMES))
def who(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def as_role(owner: Endpoints, who: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection as one of the roles; nothing that it does stays."""
    with connect(owner.database_url, autocommit=True) as connection:
        url = role_url(connection, owner, NAMES[who])
    with connect(url) as connection:
        yield connection
        connection.rollback()


def test_the_server_refuses_a_role_what_it_does_not_need(as_role: psycopg.Connection[Any], who: str) -> None:
    for statement in DENIED[who]:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            as_role.execute(statement)  # type: ignore[call-overload]
        as_role.rollback()


def test_a_role_may_do_what_it_is_there_for(as_role: psycopg.Connection[Any], who: str) -> None:
    for statement in ALLOWED[who]:
        as_role.execute(statement)  # type: ignore[call-overload]


def test_every_table_is_decided_on_for_the_pipelines(owner: Endpoints) -> None:
    tables = {place.removeprefix("duet.") for place in (*TEXTS, *IMPERSONAL, *(t.place for t in PERSONAL))}
    ours = {name for name in tables if "." not in name}
    assert ours - set(PIPELINES.tables) == {"api_keys", "stream_positions"}, "give a new table to the roles that use it"
    assert set(SERVING.tables) - {"alembic_version"} <= ours


def test_rights_of_a_former_version_go_and_those_of_new_tables_come(owner: Endpoints) -> None:
    role = sql.Identifier(NAMES["serving"])
    with connect(owner.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("grant delete on duet.users to {}").format(role))
        upgrade(owner.database_url)
        grant_roles(connection, **NAMES)
        connection.execute("create table mlflow.newer (id int)")
        may = connection.execute(
            "select has_table_privilege(%s, 'duet.users', 'delete'), has_table_privilege(%s, 'mlflow.newer', 'insert')",
            (NAMES["serving"], NAMES["pipelines"]),
        ).fetchall()
    assert may == [(False, True)]


def test_mlflow_may_have_a_role_that_owns_its_tables_and_sees_nothing_else(owner: Endpoints) -> None:
    with connect(owner.database_url, autocommit=True) as connection:
        url = role_url(connection, owner, MLFLOW)
        grant_roles(connection, **NAMES, mlflow=MLFLOW)
        assert owns_its_tables(connection, MLFLOW)
        pipelines = role_url(connection, owner, NAMES["pipelines"])
        with connect(url, autocommit=True) as its, connect(pipelines, autocommit=True) as theirs:
            its.execute("alter table mlflow.secrets_of_tests add column more int")
            its.execute("create table mlflow.made (id int)")
            for who, statement in [
                (its, "select from duet.users"),
                (its, "select from dagster.secrets_of_tests"),
                (its, "create table duet.mine (id int)"),
                (its, "select duet.erasure_report('h')"),
                (theirs, "select from mlflow.secrets_of_tests"),
                (theirs, "select from mlflow.made"),
            ]:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    who.execute(statement.encode())
        connection.execute("select from mlflow.made")
        connection.execute("create table mlflow.made_by_the_owner (id int)")
        assert not owns_its_tables(connection, MLFLOW)
        grant_roles(connection, **NAMES)
        with connect(pipelines) as theirs:
            theirs.execute("select from mlflow.made")


def test_the_command_names_a_role_that_is_missing(owner: Endpoints, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("DUET_DATABASE_URL", owner.database_url)
    monkeypatch.setenv("DUET_REDIS_URL", owner.redis_url)
    context = typer.Context(click.Command("db-roles"), obj=Invocation(data_dir=tmp_path))
    db_roles(context, **NAMES)
    with pytest.raises(RoleMissing, match="no role `nobody_of_tests`"):
        db_roles(context, serving="nobody_of_tests", pipelines=NAMES["pipelines"])


def test_serving_reads_the_catalogue_that_the_pipelines_have_put_there(owner: Endpoints, settings: Settings) -> None:
    with connect(owner.database_url, autocommit=True) as connection:
        urls = {what: role_url(connection, owner, name) for what, name in NAMES.items()}
    with pytest.raises(CatalogueNotApplied, match="run `duet train --job materialize_features`"):
        user_views(open_feature_store(settings, replace(owner, database_url=urls["serving"])))
    apply_catalogue(open_feature_store(settings, replace(owner, database_url=urls["pipelines"])))
    views = user_views(open_feature_store(settings, replace(owner, database_url=urls["serving"])))
    assert len(views) == 4
    with connect(owner.database_url, autocommit=True) as connection:
        theirs = "select tableowner from pg_tables where schemaname = 'feast'"
        assert {row[0] for row in connection.execute(theirs)} == {NAMES["pipelines"]}
        grant_roles(connection, **NAMES)
        connection.execute("select * from feast.projects")
