"""Where the servers are, and the one way to have them: configured URLs, or embedded servers for as long as needed.

A process that opens endpoints passes `Endpoints.environment()` to its children, which therefore start nothing.
Passwords never show in a repr.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infra.data_folder import require_data_folder, require_open_folder
from infra.db.migrate import upgrade
from infra.errors import ServerUnavailable
from infra.settings import Settings
from infra.urls import checked_redis_url, libpq_url, sqlalchemy_url, without_password
from infra.web.token import mlflow_token

if TYPE_CHECKING:
    from infra.embedded.lease import Running
    from infra.embedded.postgres import EmbeddedPostgres


@dataclass(frozen=True, repr=False)
class Endpoints:
    """URLs of the servers in use, passwords included; the last two are the database's for roles that may do less."""

    database_url: str
    redis_url: str
    mlflow_url: str | None = None
    mlflow_token: str | None = None
    serving_database_url: str | None = None
    pipelines_database_url: str | None = None

    def of_serving(self) -> "Endpoints":
        """Return what serving needs: the database as its role, where it has one."""
        return self._of(self.serving_database_url)

    def of_pipelines(self) -> "Endpoints":
        """Return what the pipelines need: the database as their role, where they have one."""
        return self._of(self.pipelines_database_url)

    def _of(self, url: str | None) -> "Endpoints":
        url = url or self.database_url
        return replace(self, database_url=url, serving_database_url=None, pipelines_database_url=None)

    def sqlalchemy_url(self, schema: str) -> str:
        """Return the database's URL for SQLAlchemy (psycopg2), with `schema` as search path."""
        return sqlalchemy_url(self.database_url, schema)

    def environment(self) -> dict[str, str]:
        """Return the variables that make a child process use these servers and start none."""
        variables = {"DUET_DATABASE_URL": self.database_url, "DUET_REDIS_URL": self.redis_url}
        if self.mlflow_url:
            variables["DUET_MLFLOW__URL"] = self.mlflow_url
        if self.mlflow_token:
            # The second is what MLflow's own client reads.
            variables["DUET_MLFLOW__TOKEN"] = variables["MLFLOW_TRACKING_TOKEN"] = self.mlflow_token
        return variables

    def __repr__(self) -> str:
        shown = (without_password(url) for url in (self.database_url, self.redis_url, self.mlflow_url or "-"))
        return f"Endpoints({', '.join(shown)})"


@contextlib.contextmanager
def open_endpoints(settings: Settings, *, mlflow: bool = False, roles: bool = False) -> Iterator[Endpoints]:
    """Have the servers for the length of the block, migrated; raises DuetError where that cannot be.

    Servers without a configured URL are started, or shared with the processes that use them; the last one out stops
    them. `mlflow=True` asks for the MLflow server too, `roles=True` for the roles of an embedded database: its owner's
    URL is then for what administers it. The roles of a configured one are `duet db-roles`' business.
    """
    if not (settings.database_url and settings.redis_url and settings.mlflow.url):
        require_data_folder(settings.data_dir)
    with contextlib.ExitStack() as stack:
        postgres = None
        if settings.database_url:
            database_url = libpq_url(settings.database_url.get_secret_value())
        else:
            postgres, running_postgres = _own_postgres(settings, stack)
            database_url = postgres.url(running_postgres)
        if settings.redis_url:
            redis_url = checked_redis_url(settings.redis_url.get_secret_value())
        else:
            from infra.embedded.account import make_private
            from infra.embedded.lease import leased
            from infra.embedded.redis import EmbeddedRedis

            make_private(settings.data_dir.absolute())
            redis = EmbeddedRedis(settings)
            redis_url = redis.url(stack.enter_context(leased(redis)))
        upgrade(database_url)
        urls: Mapping[str, str] = {}
        if postgres is not None and (mlflow or roles):
            from infra.embedded.roles import role_urls

            urls = role_urls(postgres, running_postgres, anew=roles)
        mlflow_url = settings.mlflow.url
        if mlflow_url is None:
            from infra.embedded.account import make_private
            from infra.embedded.lease import leased, retire
            from infra.embedded.mlflow import EmbeddedMlflow

            server = EmbeddedMlflow(settings, sqlalchemy_url(urls.get("mlflow", database_url), "mlflow"))
            if mlflow:
                make_private(settings.data_dir.absolute())
                running = stack.enter_context(leased(server))
                mlflow_url = server.url(running)
            else:
                stack.callback(retire, server)  # one whose user was killed must not outlive its database
        token = None if mlflow_url is None else mlflow_token(settings)
        found = Endpoints(database_url, redis_url, mlflow_url, token)
        if roles:
            found = replace(
                found, serving_database_url=urls.get("serving"), pipelines_database_url=urls.get("pipelines")
            )
        yield found


def _own_postgres(settings: Settings, stack: contextlib.ExitStack) -> "tuple[EmbeddedPostgres, Running]":
    from infra.embedded.account import make_private
    from infra.embedded.lease import leased
    from infra.embedded.postgres import EmbeddedPostgres

    make_private(settings.data_dir.absolute())
    postgres = EmbeddedPostgres(settings)
    return postgres, stack.enter_context(leased(postgres))


def running_endpoints(settings: Settings) -> Endpoints:
    """Return where the servers are that run already; starts nothing, raises ServerUnavailable where one is missing."""
    from infra.embedded.postgres import EmbeddedPostgres
    from infra.embedded.redis import EmbeddedRedis

    require_open_folder(settings.data_dir)
    if settings.database_url:
        database_url = libpq_url(settings.database_url.get_secret_value())
    else:
        postgres = EmbeddedPostgres(settings)
        database_url = postgres.url(_found("PostgreSQL", postgres.running(patience_s=0.0), settings))
    if settings.redis_url:
        redis_url = checked_redis_url(settings.redis_url.get_secret_value())
    else:
        redis = EmbeddedRedis(settings)
        redis_url = redis.url(_found("Redis", redis.running(patience_s=0.0), settings))
    mlflow_url = running_mlflow(settings)
    return Endpoints(database_url, redis_url, mlflow_url, None if mlflow_url is None else mlflow_token(settings))


def _found(name: str, running: "Running | None", settings: Settings) -> "Running":
    if running is None:
        raise ServerUnavailable(f"No {name} runs on `{settings.data_dir}`: start the platform with `duet up`.")
    return running


def running_mlflow(settings: Settings) -> str | None:
    """Return the URL of the MLflow server, configured or started by others; None if none runs. Starts nothing."""
    if settings.mlflow.url is not None:
        return settings.mlflow.url
    from infra.embedded.mlflow import EmbeddedMlflow

    server = EmbeddedMlflow(settings)
    running = server.running(patience_s=0.0)
    return None if running is None else server.url(running)
