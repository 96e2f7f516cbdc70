"""The servers that a command of the release life cycle talks to, opened for the length of the command."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from infra.settings import Settings

if TYPE_CHECKING:
    import psycopg

    from registry.mlflow.rest import MlflowRest
    from registry.promotion.audit import PostgresPromotionLog
    from registry.promotion.release_cache import ReleaseCache

HURRIED_S: Final = 1.5
"""How long a command that can do without MLflow waits for one of its answers."""


@dataclass(frozen=True)
class Opened:
    """The registry, the audit and the local copies of releases."""

    rest: "MlflowRest"
    log: "PostgresPromotionLog"
    cache: "ReleaseCache"
    connection: "psycopg.Connection[Any]"


@dataclass(frozen=True)
class Reached:
    """The same, where MLflow may be away: then `rest` is None."""

    rest: "MlflowRest | None"
    log: "PostgresPromotionLog"
    cache: "ReleaseCache"
    connection: "psycopg.Connection[Any]"


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Opened]:
    """Have MLflow too, started if need be."""
    from infra.endpoints import open_endpoints
    from registry.errors import RegistryUnavailable
    from registry.mlflow.aliases import registry_at

    with open_endpoints(settings, mlflow=True) as endpoints:
        if endpoints.mlflow_url is None:
            raise RegistryUnavailable("There is no MLflow server: set `DUET_MLFLOW__URL` or run `duet up`.")
        with (
            registry_at(endpoints.mlflow_url, settings.mlflow, token=endpoints.mlflow_token) as rest,
            _reached(settings, endpoints.database_url, rest) as found,
        ):
            yield Opened(rest, found.log, found.cache, found.connection)


@contextlib.contextmanager
def reached(settings: Settings) -> Iterator[Reached]:
    """Have MLflow where it runs and answers fast, and do without it where not."""
    from infra.endpoints import open_endpoints, running_mlflow
    from infra.web.token import mlflow_token
    from registry.errors import RegistryUnavailable
    from registry.mlflow.aliases import registry_at

    with contextlib.ExitStack() as stack:
        endpoints = stack.enter_context(open_endpoints(settings))
        url = running_mlflow(settings)
        rest = None
        if url is not None:
            hurried_s = min(HURRIED_S, settings.mlflow.request_timeout_s)
            rest = stack.enter_context(
                registry_at(url, settings.mlflow, token=mlflow_token(settings), timeout_s=hurried_s)
            )
            try:
                rest.check()
            except RegistryUnavailable:
                rest = None
        yield stack.enter_context(_reached(settings, endpoints.database_url, rest))


@contextlib.contextmanager
def _reached(settings: Settings, database_url: str, rest: "MlflowRest | None") -> Iterator[Reached]:
    from infra.db.postgres import connect
    from registry.promotion.audit import PostgresPromotionLog
    from registry.promotion.release_cache import ReleaseCache

    with connect(database_url) as connection:
        cache = ReleaseCache(settings.data_dir / "releases")
        yield Reached(rest, PostgresPromotionLog(connection), cache, connection)
