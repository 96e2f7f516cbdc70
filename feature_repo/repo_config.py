"""Feast's configuration: `feature_store.yaml` with the servers in use, and other stores where the settings ask."""

from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Final

import psycopg
import yaml

from infra.endpoints import Endpoints
from infra.redis import connection_string
from infra.settings import Settings
from infra.urls import libpq_url

if TYPE_CHECKING:
    from feast import RepoConfig

FILE: Final = Path(__file__).with_name("feature_store.yaml")


def repo_config(settings: Settings, endpoints: Endpoints) -> "RepoConfig":
    """Return Feast's configuration for the stores that `settings.features` names."""
    from feast import RepoConfig

    config = yaml.safe_load(Template(FILE.read_text(encoding="utf-8")).substitute(endpoints.environment()))
    config["project"] = settings.features.project
    if settings.features.registry == "file":
        config["registry"] = {"registry_type": "file", "path": str(_folder(settings) / "registry.db")}
    else:
        # A bare scheme is psycopg 3 to Feast, whose connections complain when a pool lets go of them.
        config["registry"]["path"] = config["registry"]["path"].replace("postgresql://", "postgresql+psycopg2://", 1)
    config["registry"]["cache_ttl_seconds"] = settings.features.registry_cache_ttl_s
    if settings.features.offline_store == "postgres":
        config["offline_store"] = {"type": "postgres", "db_schema": "feast", **postgres_address(endpoints.database_url)}
    config["online_store"] = _online(settings, endpoints, config["online_store"])
    return RepoConfig(**config)


def postgres_address(database_url: str) -> dict[str, Any]:
    """Return a database's URL as the fields that Feast's Postgres stores are configured with."""
    place = psycopg.conninfo.conninfo_to_dict(libpq_url(database_url))
    return {
        "host": str(place.get("host") or "127.0.0.1"),
        "port": int(place.get("port") or 5432),
        "database": str(place.get("dbname") or "postgres"),
        "user": str(place.get("user") or "postgres"),
        "password": str(place.get("password") or ""),
        # Feast would insist on TLS; the URL decides, as everywhere else.
        "sslmode": str(place.get("sslmode") or "prefer"),
    }


def _folder(settings: Settings) -> Path:
    """Return where the stores that are files live; made here because Feast's SQLite store does not make it."""
    folder = settings.data_dir.resolve() / "feast"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _online(settings: Settings, endpoints: Endpoints, ours: dict[str, Any]) -> dict[str, Any]:
    if settings.features.online_store == "sqlite":
        return {"type": "sqlite", "path": str(_folder(settings) / "online.db")}
    if settings.features.online_store == "redis":
        return {"type": "redis", "connection_string": connection_string(endpoints.redis_url)}
    return {
        **ours,
        "socket_timeout_s": settings.redis.socket_timeout_s,
        "connect_timeout_s": settings.redis.connect_timeout_s,
        "max_connections": settings.redis.max_connections,
    }
