"""Fixtures for every test: settings in a temporary folder, real Postgres and Redis, a clock that stands still.

One pair of servers is shared by all workers of a run (they lease it, so the last worker stops it); each worker has its
own database and its own Redis number.
"""

from infra.telemetry import disable_telemetry

disable_telemetry()  # before any test module imports a library that reports home

import contextlib  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from dataclasses import replace  # noqa: E402
from datetime import UTC, datetime  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402
from urllib.parse import urlsplit, urlunsplit  # noqa: E402

import hypothesis  # noqa: E402
import psycopg  # noqa: E402
import pytest  # noqa: E402
import redis  # noqa: E402
import structlog  # noqa: E402
from psycopg import sql  # noqa: E402
from pydantic import SecretStr  # noqa: E402

from infra.db.migrate import upgrade  # noqa: E402
from infra.db.postgres import connect  # noqa: E402
from infra.embedded.account import REACHABLE  # noqa: E402
from infra.embedded.processes import working_in  # noqa: E402
from infra.endpoints import Endpoints, open_endpoints  # noqa: E402
from infra.settings import Settings  # noqa: E402
from tests.clocks import FixedClock  # noqa: E402
from tests.durations import Durations  # noqa: E402
from tests.scheduling import Scheduling  # noqa: E402

# Warnings are errors (pyproject.toml). Only these are let through, each for a reason:
IGNORED_WARNINGS = (
    # platformdirs notes that a container has no XDG_RUNTIME_DIR; jupyter, pulled in by a dependency, asks it on import.
    "ignore:XDG_RUNTIME_DIR is not set:Warning",
    # Great Expectations imports modules that Python 3.11 has renamed.
    "ignore:module 'sre_(constants|parse|compile)' is deprecated:DeprecationWarning",
    # MLflow warns about a type hint of its own when `mlflow.pyfunc` is imported.
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",
    # BentoML names a pattern of pathspec by its former name when it is imported.
    "ignore:GitWildMatchPattern:DeprecationWarning",
    # BentoML's models ask pydantic for their schema by a method that pydantic has deprecated since.
    "ignore:The `__get_pydantic_core_schema__` method:DeprecationWarning",
)


PATIENT_START_S = 600.0
# What is tested is not how soon a busy machine lets Redis answer; on the request path it usually has 50 ms.
REDIS_PATIENCE = {"socket_timeout_s": 5.0, "connect_timeout_s": 5.0}
hypothesis.settings.register_profile("duet", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("duet")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--artefacts", default="test-artefacts", help="folder in which tests in the browser leave what they saw"
    )


def pytest_configure(config: pytest.Config) -> None:
    for line in IGNORED_WARNINGS:
        config.addinivalue_line("filterwarnings", line)
    config.pluginmanager.register(Durations(), "durations")
    if config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(Scheduling(), "scheduling")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the Postgres data that root keeps outside the temporary folder, of every test that had its own server."""
    if hasattr(session.config, "workerinput"):
        return  # a worker of xdist: its siblings may still run
    factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
    for depth in ("*", "*/*", "*/*/*", "*/*/*/*"):
        for note in factory.getbasetemp().glob(f"{depth}/postgres.folder"):
            data = Path(note.read_text(encoding="utf-8").strip())
            if data.parent == REACHABLE and not working_in(data, "postgres"):
                shutil.rmtree(data, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own `DUET_…` variables must not change what a test sees."""
    for name in list(os.environ):
        if name.startswith("DUET_") and name != "DUET_SHARED_DATA":
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """What sets up logging must not leave the next test a stream that pytest has closed."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    if structlog.is_configured():
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a test: data in a temporary folder, every port free; no server runs yet."""
    return make_settings(tmp_path / "duet")


@pytest.fixture
def connected_settings(settings: Settings, endpoints: Endpoints) -> Settings:
    """The same settings with the URLs of this worker's Postgres and Redis."""
    return settings.model_copy(
        update={"database_url": SecretStr(endpoints.database_url), "redis_url": SecretStr(endpoints.redis_url)}
    )


@pytest.fixture(scope="session")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """Real Postgres and Redis: this worker's own migrated database and its own Redis number."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    base = tmp_path_factory.getbasetemp()
    settings = make_settings((base.parent if worker else base) / "servers")
    with open_endpoints(settings) as shared:
        allow_tests_more(settings)
        mine = with_own_database(shared, f"duet_{worker or 'main'}")
        number = int(worker.removeprefix("gw") or 0) % 60 + 1
        yield replace(mine, redis_url=urlunsplit(urlsplit(mine.redis_url)._replace(path=f"/{number}")))
    remove_kept_aside(settings)


@pytest.fixture
def connection(endpoints: Endpoints) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the worker's database with every table of Duet's own schemas empty."""
    with connect(endpoints.database_url) as connection:
        empty_tables(connection)
        yield connection
        connection.rollback()


@pytest.fixture
def redis_client(endpoints: Endpoints) -> Iterator[redis.Redis]:
    """A client of the worker's own, empty Redis database."""
    with redis.Redis.from_url(endpoints.redis_url, socket_timeout=10) as client:
        client.flushdb()
        yield client


@pytest.fixture(scope="session")
def mlflow_endpoints(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """Real Postgres and Redis, and an MLflow server of this worker on them."""
    settings = make_settings(
        tmp_path_factory.mktemp("mlflow"),
        database_url=SecretStr(endpoints.database_url),
        redis_url=SecretStr(endpoints.redis_url),
    )
    with open_endpoints(settings, mlflow=True) as started:
        yield started


@pytest.fixture
def empty_mlflow(mlflow_endpoints: Endpoints) -> Endpoints:
    """The MLflow server without any registered model."""
    forget_models(mlflow_endpoints)
    return mlflow_endpoints


def forget_models(endpoints: Endpoints) -> None:
    """Delete every registered model, whatever stage its versions stand in."""
    import httpx

    from infra.web.token import bearer

    api = f"{endpoints.mlflow_url}/api/2.0/mlflow/registered-models"
    with httpx.Client(headers=bearer(endpoints.mlflow_token), timeout=30) as client:
        for model in client.get(f"{api}/search").json().get("registered_models", []):
            client.request("DELETE", f"{api}/delete", json={"name": model["name"]}).raise_for_status()


@pytest.fixture
def clock() -> FixedClock:
    """A clock that stands at noon on 1 June 2026, UTC."""
    return FixedClock(datetime(2026, 6, 1, 12, tzinfo=UTC))


def make_settings(data_dir: Path, **overrides: Any) -> Settings:
    """Settings with free ports and small servers, which may take their time to start on a busy machine."""
    groups: dict[str, Any] = {
        "environment": "test",
        "data_dir": data_dir,
        "postgres": {"shared_buffers_mb": 64, "start_timeout_s": PATIENT_START_S, "checkout_timeout_s": 10.0},
        "redis": {"start_timeout_s": PATIENT_START_S, **REDIS_PATIENCE},
        "mlflow": {"port": 0, "start_timeout_s": PATIENT_START_S},
        "dagster": {"port": 0, "start_timeout_s": PATIENT_START_S},
        "serving": {"port": 0},
        "web": {"auth": "off"},  # `auto` depends on the accounts of the machine
    }
    return Settings(**{**groups, **overrides})


def with_own_database(endpoints: Endpoints, name: str) -> Endpoints:
    """Return the same servers with a new, migrated database of this name; a former one of the name is dropped.

    Its commits do not wait for the disk: no test cuts the power of the machine.
    """
    with connect(endpoints.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        connection.execute(sql.SQL("alter database {} set synchronous_commit = off").format(sql.Identifier(name)))
    mine = replace(endpoints, database_url=urlunsplit(urlsplit(endpoints.database_url)._replace(path=f"/{name}")))
    upgrade(mine.database_url)
    return mine


def role_url(connection: psycopg.Connection[Any], endpoints: Endpoints, role: str) -> str:
    """Make a role of this name, where there is none, and return the URL of a database for it."""
    name, password = sql.Identifier(role), "a-password-of-tests"
    # Workers of one run share the server's roles, but an advisory lock holds in one database only.
    try:
        with connection.transaction():
            connection.execute(sql.SQL("create role {} login password {}").format(name, sql.Literal(password)))
    except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
        pass  # it is there, or another worker makes it at this moment
    place = urlsplit(endpoints.database_url)
    return urlunsplit(place._replace(netloc=f"{role}:{password}@{place.hostname}:{place.port}"))


def empty_tables(connection: psycopg.Connection[Any]) -> None:
    """Delete every row of the schemas `duet` and `features`, the append-only audit included.

    The record of deletions stays, as it would: an app that runs over several tests hears of them from it.
    """
    # As a replica, no trigger fires: neither the audit's refusal nor the foreign keys' checks.
    connection.execute("set session_replication_role = replica")
    tables = connection.execute(
        "select schemaname, tablename from pg_tables"
        " where schemaname in ('duet', 'features') and tablename not in ('alembic_version', 'deletions')"
    ).fetchall()
    for schema, table in tables:
        connection.execute(sql.SQL("delete from {}").format(sql.Identifier(schema, table)))
    connection.execute("set session_replication_role = default")
    connection.commit()


def allow_tests_more(settings: Settings) -> None:
    """Let the role of the services do what only tests do: make databases, roles and standbys, end sessions."""
    from infra.embedded.postgres import ROLE, EmbeddedPostgres

    server = EmbeddedPostgres(settings)
    running = server.running()
    assert running is not None
    with connect(server.superuser_url(running), autocommit=True) as connection:
        role = sql.Identifier(ROLE)
        # Workers of one run share the server, and two must not change one row of the catalogue at once.
        connection.execute("select pg_advisory_lock(1)")
        connection.execute(sql.SQL("alter role {} createdb createrole replication").format(role))
        connection.execute(sql.SQL("grant set on parameter session_replication_role to {}").format(role))
        connection.execute(sql.SQL("grant pg_signal_backend to {}").format(role))
        for function in ("pg_wal_replay_pause", "pg_wal_replay_resume"):
            connection.execute(sql.SQL("grant execute on function {}() to {}").format(sql.Identifier(function), role))
        # No test cuts the power of the machine, and thousands of tables are emptied.
        for setting in ("fsync", "full_page_writes"):
            connection.execute(sql.SQL("alter system set {} = off").format(sql.Identifier(setting)))
        connection.execute("select pg_reload_conf()")


def remove_kept_aside(settings: Settings) -> None:
    """Remove the Postgres data that root keeps outside the temporary folder, if this was the last user."""
    from infra.embedded.lease import holders, locked
    from infra.embedded.postgres import EmbeddedPostgres

    server = EmbeddedPostgres(settings)
    with locked(server.folder):
        data = server.known_data
        if data is not None and data != server.wanted and not holders(server.folder):
            shutil.rmtree(data)
            with contextlib.suppress(FileNotFoundError):
                (settings.data_dir / "postgres.folder").unlink()
