"""What the services may do in Postgres: a role for serving and one for the pipelines, beside the owner of everything.

Serving cannot change the schema, nor read what it does not answer with. The pipelines cannot read API keys. Migrations,
keys, backups and this are the owner's. What is not listed is not allowed: a new table is given here, or nobody uses it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from infra.db.migrate import LOCK, SCHEMAS
from infra.errors import RoleMissing

READ: Final = ("select",)
ADD: Final = ("select", "insert")
CHANGE: Final = ("select", "insert", "update")
ALL: Final = ("select", "insert", "update", "delete")
ERASING: Final = (
    "duet.begin_erasure(bigint, text[], text[], text, text)",
    "duet.erase_rows(bigint)",
    "duet.erasure_report(text)",
)
"""Functions that run as their owner: a caller needs no right of theirs on the tables."""


@dataclass(frozen=True)
class RoleRights:
    """What a role may do: `tables` of the schema `duet` by name, and what in all tables of other schemas.

    A role may make tables of its own in the schemas of `creates`.
    """

    tables: Mapping[str, tuple[LiteralString, ...]]
    schemas: Mapping[str, tuple[LiteralString, ...]]
    creates: tuple[str, ...] = ()


SERVING: Final = RoleRights(
    tables={
        "users": CHANGE,
        "interactions": ADD,
        "attribute_slots": ADD,
        "impressions": ADD,
        "answers": ADD,
        "deletions": READ,
        "api_keys": READ,
        "experiments": READ,
        "measurements": READ,
        "promotions": ADD,
        "release_pins": CHANGE,
        "serving_workers": ALL,
        "webhook_events": ALL,
        "stream_positions": CHANGE,
        "alembic_version": READ,
    },
    # The age of features, and Feast's catalogue.
    schemas={"features": READ, "feast": READ},
)
PIPELINES: Final = RoleRights(
    tables={
        "users": ALL,
        "interactions": ALL,
        "attribute_slots": ALL,
        "impressions": ALL,
        "answers": ALL,
        "deletions": ALL,
        "quarantine": ALL,
        "imports": ALL,
        "erasures": CHANGE,
        "experiments": ALL,
        "experiment_events": ADD,
        "guard_verdicts": ALL,
        "measurements": ALL,
        "promotions": ADD,
        "release_pins": CHANGE,
        "serving_workers": ALL,
        "webhook_events": ("select", "delete"),  # an erasure looks for them
        "impressions_daily": ALL,
        "answers_daily": ALL,
        "activity_daily": ALL,
        "alembic_version": READ,
    },
    schemas={"features": ALL, "feast": ALL, "dagster": ALL, "mlflow": ALL},
    creates=("feast", "dagster", "mlflow"),
)


def grant_roles(connection: psycopg.Connection[Any], *, serving: str, pipelines: str) -> None:
    """Give two roles exactly what they need, whatever they had before; run it again after each migration.

    The connection is the owner's, in autocommit; the owner becomes a member of the role of the pipelines.

    Raises:
        RoleMissing: a role does not exist.
    """
    with connection.transaction():
        # Migrations hold the same lock: nobody is given half of a schema.
        connection.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
        for role, rights in ((serving, SERVING), (pipelines, PIPELINES)):
            if connection.execute("select from pg_roles where rolname = %s", (role,)).fetchone() is None:
                raise RoleMissing(
                    f"There is no role `{role}` in the database: make it with a password of its own "
                    f"(`create role {role} login password '…'`), or name another."
                )
            for statement in _statements(connection, role, rights):
                connection.execute(statement)
        for statement in _of_their_own(connection, serving, pipelines):
            connection.execute(statement)


def _statements(connection: psycopg.Connection[Any], role: str, rights: RoleRights) -> Iterator[sql.Composed]:
    whom = sql.Identifier(role)
    # Former versions made serving a member of the owner.
    yield from (
        sql.SQL("revoke {} from {}").format(sql.Identifier(group), whom)
        for (group,) in connection.execute(
            "select g.rolname from pg_auth_members m join pg_roles g on g.oid = m.roleid"
            " join pg_roles r on r.oid = m.member where r.rolname = %s and g.rolname = current_user",
            (role,),
        ).fetchall()
    )
    for schema in SCHEMAS:
        name = sql.Identifier(schema)
        yield sql.SQL("revoke all on all tables in schema {} from {}").format(name, whom)
        yield sql.SQL("revoke all on all sequences in schema {} from {}").format(name, whom)
        yield sql.SQL("revoke all on schema {} from {}").format(name, whom)
        yield sql.SQL("alter default privileges in schema {} revoke all on tables from {}").format(name, whom)
        yield sql.SQL("alter default privileges in schema {} revoke all on sequences from {}").format(name, whom)
    yield sql.SQL("grant usage on schema duet to {}").format(whom)
    for table, allowed in rights.tables.items():
        yield sql.SQL("grant {} on duet.{} to {}").format(_words(allowed), sql.Identifier(table), whom)
    for schema, allowed in rights.schemas.items():
        name = sql.Identifier(schema)
        yield sql.SQL("grant usage on schema {} to {}").format(name, whom)
        yield sql.SQL("grant {} on all tables in schema {} to {}").format(_words(allowed), name, whom)
        # What Dagster, MLflow and Feast make later on, as the owner.
        yield sql.SQL("alter default privileges in schema {} grant {} on tables to {}").format(
            name, _words(allowed), whom
        )
        if allowed != READ:
            yield sql.SQL("grant usage, select on all sequences in schema {} to {}").format(name, whom)
            yield sql.SQL("alter default privileges in schema {} grant usage, select on sequences to {}").format(
                name, whom
            )
    for schema in rights.creates:
        yield sql.SQL("grant create on schema {} to {}").format(sql.Identifier(schema), whom)
    for function in ERASING:
        yield sql.SQL("grant execute on function {} to {}").format(sql.SQL(function), whom)


def _of_their_own(connection: psycopg.Connection[Any], serving: str, pipelines: str) -> Iterator[sql.Composed]:
    """Share what the pipelines make themselves: serving reads Feast's catalogue, and the owner backs up all of it."""
    maker = sql.Identifier(pipelines)
    asked = connection.execute("select pg_has_role(current_user, %s, 'usage')", (pipelines,)).fetchone()
    if asked != (True,):
        yield sql.SQL("grant {} to current_user").format(maker)
    for schema in PIPELINES.creates:
        readers: list[tuple[LiteralString, sql.Composable]] = [("all", sql.SQL("current_user"))]
        if schema in SERVING.schemas:
            readers.append(("select", sql.Identifier(serving)))
        for right, whom in readers:
            yield sql.SQL("alter default privileges for role {} in schema {} grant {} on tables to {}").format(
                maker, sql.Identifier(schema), sql.SQL(right), whom
            )
        yield sql.SQL(
            "alter default privileges for role {} in schema {} grant usage, select on sequences to current_user"
        ).format(maker, sql.Identifier(schema))


def _words(allowed: tuple[LiteralString, ...]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.SQL, allowed))
