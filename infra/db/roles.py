"""What the services may do in Postgres: a role each for serving, for the pipelines and, if wanted, for MLflow's server.

Serving cannot change the schema, nor read what it does not answer with. The pipelines cannot read API keys. MLflow's
role sees nothing but its own tables. Migrations, keys, backups and this are the owner's. What is not listed is not
allowed: a new table is given here, or nobody uses it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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
_OWNED: Final = ["r", "p", "v", "m"]
"""Of `pg_class.relkind`: sequences and indexes go with their tables."""
_OTHERS: Final = (
    "select relname from pg_class where relnamespace = %s::regnamespace and relkind = any(%s)"
    " and pg_get_userbyid(relowner) <> %s"
)


@dataclass(frozen=True)
class RoleRights:
    """What a role may do: `tables` of the schema `duet` by name, and what in all tables of other schemas.

    A role may make tables of its own in the schemas of `creates`, and what is in those of `owns` is its own.
    """

    tables: Mapping[str, tuple[LiteralString, ...]]
    schemas: Mapping[str, tuple[LiteralString, ...]]
    functions: tuple[LiteralString, ...] = ()
    creates: tuple[str, ...] = ()
    owns: tuple[str, ...] = ()


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
    functions=ERASING,
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
    functions=ERASING,
    creates=("features", "feast", "dagster", "mlflow"),
    # A new feature is a new column, and the run that fills it in adds it.
    owns=("features",),
)
MLFLOW: Final = RoleRights(tables={}, schemas={"mlflow": ALL}, creates=("mlflow",), owns=("mlflow",))
"""Of MLflow's server; the pipelines then reach its tables through it alone."""


def grant_roles(
    connection: psycopg.Connection[Any], *, serving: str, pipelines: str, mlflow: str | None = None
) -> None:
    """Give the roles exactly what they need, whatever they had before; run it again after each migration.

    The connection is the owner's, in autocommit; the owner becomes a member of the roles that make tables.

    Raises:
        RoleMissing: a role does not exist.
    """
    given = {serving: SERVING, pipelines: PIPELINES if mlflow is None else _without(PIPELINES, "mlflow")}
    if mlflow is not None:
        given[mlflow] = MLFLOW
    with connection.transaction():
        # Migrations hold the same lock: nobody is given half of a schema.
        connection.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
        for role in given:
            if connection.execute("select from pg_roles where rolname = %s", (role,)).fetchone() is None:
                raise RoleMissing(
                    f"There is no role `{role}` in the database: make it with a password of its own "
                    f"(`create role {role} login password '…'`), or name another."
                )
        for role, rights in given.items():
            for statement in _statements(connection, role, rights):
                connection.execute(statement)
        for role, rights in given.items():
            readers = {who: of for who, of in given.items() if who != role}
            for statement in _of_their_own(role, rights, readers):
                connection.execute(statement)


def owns_its_tables(connection: psycopg.Connection[Any], mlflow: str) -> bool:
    """Return whether there is this role of MLflow's, and all that is in its schema is its own."""
    row = connection.execute(
        "select has_schema_privilege(r.oid, 'mlflow', 'create') and not exists (select from pg_class c"
        " where c.relnamespace = 'mlflow'::regnamespace and c.relkind = any(%s) and c.relowner <> r.oid)"
        " from pg_roles r where r.rolname = %s",
        (_OWNED, mlflow),
    ).fetchone()
    return row == (True,)


def _without(rights: RoleRights, schema: str) -> RoleRights:
    return replace(
        rights,
        schemas={name: allowed for name, allowed in rights.schemas.items() if name != schema},
        creates=tuple(name for name in rights.creates if name != schema),
    )


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
    if rights.creates and _lacks(connection, role):
        yield sql.SQL("grant {} to current_user").format(whom)
    yield from _revoked(whom)
    if rights.tables:
        yield sql.SQL("grant usage on schema duet to {}").format(whom)
    for table, allowed in rights.tables.items():
        yield sql.SQL("grant {} on duet.{} to {}").format(_words(allowed), sql.Identifier(table), whom)
    for function in rights.functions:
        yield sql.SQL("grant execute on function {} to {}").format(sql.SQL(function), whom)
    for schema in rights.creates:
        yield sql.SQL("grant create on schema {} to {}").format(sql.Identifier(schema), whom)
    for schema in rights.owns:
        for (table,) in connection.execute(_OTHERS, (schema, _OWNED, role)).fetchall():
            yield sql.SQL("alter table {} owner to {}").format(sql.Identifier(schema, table), whom)
    yield from _granted(whom, rights)


def _revoked(whom: sql.Identifier) -> Iterator[sql.Composed]:
    for schema in SCHEMAS:
        name = sql.Identifier(schema)
        yield sql.SQL("revoke all on all tables in schema {} from {}").format(name, whom)
        yield sql.SQL("revoke all on all sequences in schema {} from {}").format(name, whom)
        yield sql.SQL("revoke all on schema {} from {}").format(name, whom)
        yield sql.SQL("alter default privileges in schema {} revoke all on tables from {}").format(name, whom)
        yield sql.SQL("alter default privileges in schema {} revoke all on sequences from {}").format(name, whom)


def _granted(whom: sql.Identifier, rights: RoleRights) -> Iterator[sql.Composed]:
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


def _lacks(connection: psycopg.Connection[Any], role: str) -> bool:
    asked = connection.execute("select pg_has_role(current_user, %s, 'usage')", (role,)).fetchone()
    return asked != (True,)


def _of_their_own(role: str, rights: RoleRights, others: Mapping[str, RoleRights]) -> Iterator[sql.Composed]:
    """Share what a role makes itself: serving reads Feast's catalogue, and the owner backs up all of it."""
    maker = sql.Identifier(role)
    for schema in rights.creates:
        readers: list[tuple[LiteralString, sql.Composable]] = [("all", sql.SQL("current_user"))]
        readers += [("select", sql.Identifier(who)) for who, of in others.items() if of.schemas.get(schema) == READ]
        for right, whom in readers:
            yield sql.SQL("alter default privileges for role {} in schema {} grant {} on tables to {}").format(
                maker, sql.Identifier(schema), sql.SQL(right), whom
            )
        yield sql.SQL(
            "alter default privileges for role {} in schema {} grant usage, select on sequences to current_user"
        ).format(maker, sql.Identifier(schema))


def _words(allowed: tuple[LiteralString, ...]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.SQL, allowed))
