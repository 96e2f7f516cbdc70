"""What a start of the service is refused for."""

import ipaddress

import psycopg
import structlog

from infra.db import postgres
from infra.errors import ConfigurationError, ServerUnavailable
from infra.safe_settings import needs_key, refuse_unsafe
from infra.settings import Settings
from infra.urls import libpq_url
from serving.access.store import ACTIVE

_log = structlog.get_logger(__name__)


def guard_start(settings: Settings) -> None:
    """Refuse a start that could let nobody or everybody in, once before the workers; raises ConfigurationError.

    When Postgres cannot be read now, the start goes on: calls are refused until it can.
    """
    refuse_unsafe(settings)
    if needs_key(settings):
        if settings.environment == "production" and _has_no_key(settings):
            raise ConfigurationError("No API key is active, so nobody could call: make one with `duet keys create`.")
    elif not _is_loopback(settings.serving.host):
        _log.warning(
            "open_to_everybody",
            host=settings.serving.host,
            advice="anybody who reaches this address may call: set DUET_SERVING__AUTH__MODE=required",
        )


def _has_no_key(settings: Settings) -> bool:
    if settings.database_url is None:
        return False  # the embedded server may not run yet
    try:
        with postgres.connect(
            libpq_url(settings.database_url.get_secret_value()), connect_timeout_s=2.0, statement_timeout_s=2.0
        ) as connection:
            return connection.execute(ACTIVE).fetchone() is None
    except (ServerUnavailable, psycopg.Error):
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
