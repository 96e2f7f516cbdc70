"""Feast's configuration, made from Duet's settings: which stores, where, and how patient.

There is no `feature_store.yaml`: a second place for the same addresses could disagree with the first.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from infra.endpoints import Endpoints
from infra.redis import connection_string
from infra.settings import Settings

if TYPE_CHECKING:
    from feast import RepoConfig

OFFLINE_STORES = {"fast": "feature_repo.offline_store.FastPostgresOfflineStore", "postgres": "postgres"}
ONLINE_STORES = {"fail_fast": "feature_repo.online_store.FailFastRedisOnlineStore", "redis": "redis"}
SCHEMA = "feast"


def repo_config(settings: Settings, endpoints: Endpoints) -> "RepoConfig":
    """Return Feast's configuration for the stores that `settings.features` names."""
    from feast import RepoConfig

    return RepoConfig(
        project=settings.features.project,
        provider="local",
        registry=_registry(settings, endpoints),
        offline_store=_offline(settings, endpoints),
        online_store=_online(settings, endpoints),
        entity_key_serialization_version=3,
    )


def _registry(settings: Settings, endpoints: Endpoints) -> dict[str, Any]:
    kept = {"cache_ttl_seconds": settings.features.registry_cache_ttl_s}
    if settings.features.registry == "file":
        return {"registry_type": "file", "path": str(_folder(settings) / "registry.db"), **kept}
    return {
        "registry_type": "sql",
        "path": endpoints.sqlalchemy_url(SCHEMA),
        "sqlalchemy_config_kwargs": {"echo": False, "pool_pre_ping": True, "pool_size": 1, "max_overflow": 4},
        **kept,
    }


def _folder(settings: Settings) -> Path:
    """Return where the stores that are files live; made here because Feast's SQLite store does not make it."""
    folder = settings.data_dir.resolve() / "feast"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _offline(settings: Settings, endpoints: Endpoints) -> dict[str, Any]:
    place = psycopg.conninfo.conninfo_to_dict(endpoints.database_url)
    return {
        "type": OFFLINE_STORES[settings.features.offline_store],
        "host": str(place.get("host") or "127.0.0.1"),
        "port": int(place.get("port") or 5432),
        "database": str(place.get("dbname") or "postgres"),
        "db_schema": SCHEMA,
        "user": str(place.get("user") or "postgres"),
        "password": str(place.get("password") or ""),
        # Feast would insist on TLS; the URL decides, as everywhere else.
        "sslmode": str(place.get("sslmode") or "prefer"),
    }


def _online(settings: Settings, endpoints: Endpoints) -> dict[str, Any]:
    if settings.features.online_store == "sqlite":
        return {"type": "sqlite", "path": str(_folder(settings) / "online.db")}
    if settings.features.online_store == "redis":
        return {"type": "redis", "connection_string": connection_string(endpoints.redis_url)}
    return {
        "type": ONLINE_STORES["fail_fast"],
        "connection_string": connection_string(endpoints.redis_url),
        "redis_url": endpoints.redis_url,
        "socket_timeout_s": settings.redis.socket_timeout_s,
        "connect_timeout_s": settings.redis.connect_timeout_s,
        "max_connections": settings.redis.max_connections,
    }
