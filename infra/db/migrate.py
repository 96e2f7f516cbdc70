"""Brings a database to the schema this code needs, safely when many processes start at once.

Work is done under a Postgres advisory lock; a database that is already at the head is left at once, so that a role
without the right to create anything can run Duet.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from infra.db.postgres import connect
from infra.errors import MigrationError
from infra.urls import sqlalchemy_url

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).parents[1] / "migrations"
HEAD = max(path.name[1:5] for path in (MIGRATIONS / "versions").glob("r[0-9][0-9][0-9][0-9]_*.py"))
"""The newest revision, read from the file names: loading Alembic only to find nothing to do is slow."""
SCHEMAS = ("duet", "features", "feast", "dagster", "mlflow")
LOCK = 0x64756574  # "duet"
LOCK_WAIT_S = 120


def upgrade(database_url: str, revision: str = "head") -> None:
    """Create the schemas and migrate; raises MigrationError and ServerUnavailable."""
    with connect(database_url, autocommit=True) as connection:
        if revision == "head" and _is_ready(connection):
            return
        with _advisory_lock(connection):
            if revision == "head" and _is_ready(connection):
                return
            try:
                for schema in SCHEMAS:
                    connection.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(schema)))
            except psycopg.Error as error:
                raise MigrationError(f"The schemas of Duet cannot be created: {error.diag.message_primary}.") from error
            _run(database_url, "upgrade", revision)


def downgrade(database_url: str, revision: str) -> None:
    """Migrate back to `revision`, or to nothing with `base`; the schemas stay. Raises MigrationError."""
    with connect(database_url, autocommit=True) as connection, _advisory_lock(connection):
        _run(database_url, "downgrade", revision)


def current(database_url: str) -> str | None:
    """Return the database's revision, or None before the first migration."""
    with connect(database_url, autocommit=True) as connection:
        return _revision(connection)


def alembic_config() -> "Config":
    """Return Alembic's configuration for our migrations."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config


def _is_ready(connection: psycopg.Connection[Any]) -> bool:
    query = "select count(*) from pg_namespace where nspname = any(%s)"
    row = connection.execute(query, (list(SCHEMAS),)).fetchone()
    return row is not None and row[0] == len(SCHEMAS) and _revision(connection) == HEAD


def _revision(connection: psycopg.Connection[Any]) -> str | None:
    row = connection.execute("select to_regclass('duet.alembic_version')").fetchone()
    if row is None or row[0] is None:
        return None
    row = connection.execute("select version_num from duet.alembic_version").fetchone()
    return str(row[0]) if row else None


@contextmanager
def _advisory_lock(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Hold the migration lock; it ends with the connection, so a killed migration does not keep it."""
    connection.execute(sql.SQL("set lock_timeout = {}").format(sql.Literal(f"{LOCK_WAIT_S}s")))
    try:
        connection.execute("select pg_advisory_lock(%s)", (LOCK,))
    except psycopg.errors.LockNotAvailable as error:
        raise MigrationError(
            f"Another process has been migrating this database for more than {LOCK_WAIT_S} s: end it, then try again."
        ) from error
    try:
        yield
    finally:
        connection.execute("select pg_advisory_unlock(%s)", (LOCK,))


def _run(database_url: str, direction: str, revision: str) -> None:
    import sqlalchemy
    from alembic import command
    from alembic.util import CommandError

    config = alembic_config()
    engine = sqlalchemy.create_engine(sqlalchemy_url(database_url, "duet"), poolclass=sqlalchemy.NullPool)
    try:
        with engine.connect() as connection:
            _attach(config, connection)
            getattr(command, direction)(config, revision)
    except (sqlalchemy.exc.SQLAlchemyError, CommandError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise MigrationError(f"The database cannot be migrated ({direction} to `{revision}`): {reason}.") from error
    finally:
        engine.dispose()


def _attach(config: "Config", connection: "Connection") -> None:
    config.attributes["connection"] = connection
