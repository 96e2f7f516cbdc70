"""The roles of serving, the pipelines and MLflow in the embedded database, beside its owner.

Its superuser makes them, with passwords in files of mode 600; its owner gives them what they need.
"""

from typing import Final

from psycopg import sql

from infra.db.postgres import connect
from infra.db.roles import grant_roles, owns_its_tables
from infra.embedded.lease import Running, locked
from infra.embedded.postgres import ROLE, EmbeddedPostgres

SERVING: Final = "duet_serving"
PIPELINES: Final = "duet_pipelines"
MLFLOW: Final = "duet_mlflow"


def role_urls(server: EmbeddedPostgres, running: Running, *, anew: bool) -> dict[str, str]:
    """Return the URL of the migrated database for each role: `serving`, `pipelines` and `mlflow`.

    What each needs is given `anew`, or else where MLflow's server could not be started as its role: before the first
    time, and after a restore.
    """
    if anew or not _has_role_of_mlflow(server, running):
        _give_roles(server, running)
    names = {"serving": SERVING, "pipelines": PIPELINES, "mlflow": MLFLOW}
    return {who: server.url(running, role) for who, role in names.items()}


def _has_role_of_mlflow(server: EmbeddedPostgres, running: Running) -> bool:
    with connect(server.url(running), autocommit=True) as connection:
        return owns_its_tables(connection, MLFLOW)


def _give_roles(server: EmbeddedPostgres, running: Running) -> None:
    with locked(server.folder):
        with connect(server.superuser_url(running), autocommit=True) as connection:
            for role in (SERVING, PIPELINES, MLFLOW):
                named = {"role": sql.Identifier(role), "password": sql.Literal(server.password_of(role))}
                if connection.execute("select from pg_roles where rolname = %s", (role,)).fetchone() is None:
                    connection.execute(sql.SQL("create role {role} login").format(**named))
                connection.execute(sql.SQL("alter role {role} password {password}").format(**named))
            # The owner, who makes no roles, reads and backs up what these two make.
            for role in (PIPELINES, MLFLOW):
                connection.execute(sql.SQL("grant {} to {}").format(sql.Identifier(role), sql.Identifier(ROLE)))
        with connect(server.url(running), autocommit=True) as connection:
            grant_roles(connection, serving=SERVING, pipelines=PIPELINES, mlflow=MLFLOW)
