"""The only module that uses what Feast marks as private; everything else goes through these names.

Each has its reason, and `tests/integration/feature_repo`, which holds our stores equal to the stock ones, fails where
Feast changes one. Private names of Feast anywhere else are refused by `tests/architecture`.
"""

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from typing import Any

import psycopg
import redis
from feast import FeatureStore, FeatureView, RepoConfig
from feast.infra.offline_stores import offline_utils
from feast.infra.offline_stores.contrib.postgres_offline_store import postgres as stock
from feast.infra.online_stores.helpers import _mmh3
from feast.infra.online_stores.redis import RedisOnlineStore, _versioned_fv_name
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.protos.feast.types.Value_pb2 import Value

ReadRow = tuple[datetime | None, dict[str, Value] | None]
"""The event time and the values of one row by name."""


def provider_of(store: FeatureStore) -> Any:
    """Return what reads and writes the configured stores: Feast offers no public way to it."""
    return store._get_provider()  # noqa: SLF001 - see above


def hash_field(text: str) -> bytes:
    """Return the name of a field in a hash of Redis: ours lie beside Feast's own."""
    field: bytes = _mmh3(text)
    return field


def stored_name(view: FeatureView, config: RepoConfig) -> str:
    """Return the name under which the rows of a view are stored, its version included where Feast has them."""
    name: str = _versioned_fv_name(view, config)
    return name


def open_postgres(config: RepoConfig) -> closing[psycopg.Connection[Any]]:
    """Connect to the offline store exactly as the stock store does."""
    return closing(stock._get_conn(config.offline_store))  # noqa: SLF001 - see above


def features_by_view(
    references: list[str], views: list[FeatureView], on_demand: list[OnDemandFeatureView]
) -> dict[FeatureView, list[str]]:
    """Return which features of which views are asked for, those that on-demand views need included."""
    wanted: dict[FeatureView, list[str]]
    wanted, _ = offline_utils._get_requested_feature_views_to_features_dict(  # noqa: SLF001 - see above
        references, views, on_demand
    )
    return wanted


class OpenRedisOnlineStore(RedisOnlineStore):  # type: ignore[misc]
    """The stock store with its inner steps open to a subclass: which client is used, how a row is laid out and read."""

    def patient_client(self, settings: Any) -> redis.Redis:
        """Return the client of writes and scans."""
        client: redis.Redis = super()._get_client(settings)
        return client

    async def async_client(self, settings: Any) -> Any:
        """Return the client of reads that do not block."""
        return await super()._get_client_async(settings)

    def read_hashes(self, config: RepoConfig, commands: list[tuple[bytes, list[str | bytes]]]) -> list[Any]:
        """Return the fields that are asked for of each key."""
        found: list[Any] = super()._read_hash_fields(config, commands)
        return found

    def fields_of(
        self, view: FeatureView, requested: list[str] | None, stored_as: str | None
    ) -> tuple[list[str], list[str | bytes]]:
        """Return what a read asks for, the event time last, and the fields of a hash that hold it."""
        found: tuple[list[str], list[str | bytes]] = super()._generate_hset_keys_for_features(
            view, requested, stored_as
        )
        return found

    def rows_of(self, replies: Sequence[Sequence[bytes | None]], view: str, requested: list[str]) -> list[ReadRow]:
        """Return the rows that were read."""
        found: list[ReadRow] = super()._convert_redis_values_to_protobuf(replies, view, requested)
        return found

    def _get_client(self, online_store_config: Any) -> redis.Redis:
        return self.patient_client(online_store_config)

    async def _get_client_async(self, online_store_config: Any) -> Any:
        return await self.async_client(online_store_config)

    def _read_hash_fields(self, config: RepoConfig, commands: list[tuple[bytes, list[str | bytes]]]) -> list[Any]:
        return self.read_hashes(config, commands)

    def _generate_hset_keys_for_features(
        self,
        feature_view: FeatureView,
        requested_features: list[str] | None = None,
        fv_name_override: str | None = None,
    ) -> tuple[list[str], list[str | bytes]]:
        return self.fields_of(feature_view, requested_features, fv_name_override)

    def _convert_redis_values_to_protobuf(
        self, redis_values: Sequence[Sequence[bytes | None]], feature_view: str, requested_features: list[str]
    ) -> list[ReadRow]:
        return self.rows_of(redis_values, feature_view, requested_features)
