"""Where the servers are that a serving process asks: those that the settings name, else embedded ones of its own."""

from contextlib import ExitStack

from infra.endpoints import Endpoints, open_endpoints
from infra.settings import Settings
from infra.urls import libpq_url
from infra.web.token import mlflow_token


def servers_of(settings: Settings, opened: ExitStack) -> Endpoints:
    """Return their addresses; embedded servers are begun, and end with `opened`."""
    if settings.database_url is None or settings.redis_url is None:
        return opened.enter_context(open_endpoints(settings, roles=True)).of_serving()
    # Given servers may be down just now, and their schema is the deployment's to migrate: only note the addresses.
    return Endpoints(
        libpq_url(settings.database_url.get_secret_value()),
        settings.redis_url.get_secret_value(),
        settings.mlflow.url,
        mlflow_token(settings),
    )
