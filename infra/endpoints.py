"""Where the servers are, and the one way to have them: configured URLs, or embedded servers for as long as needed.

A process that opens endpoints passes `Endpoints.environment()` to its children, which therefore start nothing.
Passwords never show in a repr.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit, urlunsplit

from infra.errors import ConfigurationError
from infra.settings import Settings


@dataclass(frozen=True, repr=False)
class Endpoints:
    """URLs of the servers in use, passwords included."""

    database_url: str
    redis_url: str
    mlflow_url: str | None = None

    def sqlalchemy_url(self, schema: str) -> str:
        """Return the database's URL for SQLAlchemy (psycopg2), with `schema` as search path."""
        return sqlalchemy_url(self.database_url, schema)

    def environment(self) -> dict[str, str]:
        """Return the variables that make a child process use these servers and start none."""
        variables = {"DUET_DATABASE_URL": self.database_url, "DUET_REDIS_URL": self.redis_url}
        if self.mlflow_url:
            variables["DUET_MLFLOW__URL"] = self.mlflow_url
        return variables

    def __repr__(self) -> str:
        shown = (without_password(url) for url in (self.database_url, self.redis_url, self.mlflow_url or "-"))
        return f"Endpoints({', '.join(shown)})"


@contextlib.contextmanager
def open_endpoints(settings: Settings, *, mlflow: bool = False) -> Iterator[Endpoints]:
    """Have the servers for the length of the block, migrated; raises ServerError and MigrationError.

    Servers without a configured URL are started, or shared with the processes that use them; the last one out stops
    them. `mlflow=True` asks for the MLflow server too.
    """
    from infra.migrate import upgrade

    with contextlib.ExitStack() as stack:
        if settings.database_url:
            database_url = libpq_url(settings.database_url.get_secret_value())
        else:
            from infra.embedded.lease import leased
            from infra.embedded.postgres import EmbeddedPostgres

            postgres = EmbeddedPostgres(settings)
            database_url = postgres.url(stack.enter_context(leased(postgres)))
        if settings.redis_url:
            redis_url = settings.redis_url.get_secret_value()
            _checked(redis_url, "DUET_REDIS_URL", {"redis", "rediss"}, "redis://host:6379/0")
        else:
            from infra.embedded.lease import leased
            from infra.embedded.redis import EmbeddedRedis

            redis = EmbeddedRedis(settings)
            redis_url = redis.url(stack.enter_context(leased(redis)))
        upgrade(database_url)
        mlflow_url = settings.mlflow.url
        if mlflow_url is None:
            from infra.embedded.lease import leased, retire
            from infra.embedded.mlflow import EmbeddedMlflow

            server = EmbeddedMlflow(settings, sqlalchemy_url(database_url, "mlflow"))
            if mlflow:
                running = stack.enter_context(leased(server))
                mlflow_url = server.url(running)
            else:
                stack.callback(retire, server)  # one whose user was killed must not outlive its database
        yield Endpoints(database_url, redis_url, mlflow_url)


def libpq_url(url: str) -> str:
    """Return a PostgreSQL URL without SQLAlchemy's driver name; raises ConfigurationError for any other URL."""
    parts = _checked(url, "DUET_DATABASE_URL", {"postgresql", "postgres"}, "postgresql://user@host/name")
    return urlunsplit(parts._replace(scheme="postgresql"))


def _checked(url: str, variable: str, schemes: set[str], example: str) -> SplitResult:
    """Refuse a URL of another kind; the message repeats only what cannot be secret."""
    try:
        parts = urlsplit(url)
        is_good = parts.scheme.partition("+")[0] in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        is_good = False
    if not is_good:
        raise ConfigurationError(f"`{variable}` is not a URL of the form `{example}`: correct it.")
    return parts


def sqlalchemy_url(database_url: str, schema: str) -> str:
    """Return a database's URL for SQLAlchemy on psycopg2, with `schema` as search path.

    psycopg2 because Dagster's and MLflow's SQL fails on psycopg 3, which a bare `postgresql://` means today.
    """
    parts = urlsplit(libpq_url(database_url))
    query = dict(parse_qsl(parts.query))
    query["options"] = f"{query.get('options', '')} -csearch_path={schema}".strip()
    return urlunsplit(parts._replace(scheme="postgresql+psycopg2", query=urlencode(query, quote_via=quote)))


def without_password(url: str) -> str:
    """Return the URL with its password replaced by `***`."""
    parts = urlsplit(url)
    if not parts.password:
        return url
    user = parts.username or ""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=f"{user}:***@{host}{port}"))
