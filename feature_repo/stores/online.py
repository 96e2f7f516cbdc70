"""Feast's Redis online store with short timeouts, no hidden retries, and whole rows in one round trip.

A view with the tag `packed` has Float32 features and the person as its entity. All of its features lie in one field of
the person's hash, as the bytes of a list: one protobuf per feature costs ten times the round trip. That field and
the one of the event time are named by the features in their order: rows of another catalogue are neither misread nor
overwritten. Everything else is stored as the stock store does it.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import redis
from feast import FeatureView, RepoConfig
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.redis import RedisOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.utils import make_tzaware
from numpy.typing import NDArray

from feature_repo.errors import FeatureStoreUnavailable
from feature_repo.feast_private import OpenRedisOnlineStore, ReadRow, hash_field, stored_name
from feature_repo.stores import filling
from feature_repo.stores.redis_bytes import Times, command, commands, packed, unpacked
from infra.redis import connect, connect_async
from infra.settings import RedisSettings

PACKED = "packed"
"""The tag of views that this store packs."""
BULK_KEYS = 500  # more keys than a request ever asks for: a patient reader waits for them
BULK_TIMEOUT_S = 30.0
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
WrittenRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
"""Who, the values by name, the event time, and when the row was made."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FailFastRedisOnlineStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc]
    """Where Redis is and how long a request may wait for it."""

    type: Literal["feature_repo.stores.online.FailFastRedisOnlineStore"] = (
        "feature_repo.stores.online.FailFastRedisOnlineStore"
    )
    redis_url: str = "redis://127.0.0.1:6379/0"
    socket_timeout_s: float = 0.05
    connect_timeout_s: float = 0.05
    max_connections: int = 64

    @property
    def limits(self) -> RedisSettings:
        """Return the limits as the settings of our own clients."""
        return RedisSettings(
            socket_timeout_s=self.socket_timeout_s,
            connect_timeout_s=self.connect_timeout_s,
            max_connections=self.max_connections,
        )


class FailFastRedisOnlineStore(OpenRedisOnlineStore):
    """Redis behind Feast's interface; small reads fail fast, bulk reads and writes are patient."""

    _client: redis.Redis | None = None
    _client_async: Any = None
    _fast: redis.Redis | None = None

    def patient_client(self, settings: FailFastRedisOnlineStoreConfig) -> redis.Redis:
        """Return the patient client: every write and every scan of the base class goes through it."""
        if self._client is None:
            self._client = connect(settings.redis_url, settings.limits, socket_timeout_s=BULK_TIMEOUT_S)
        return self._client

    def _get_fast_client(self, settings: FailFastRedisOnlineStoreConfig) -> redis.Redis:
        if self._fast is None:
            self._fast = connect(settings.redis_url, settings.limits)
        return self._fast

    async def async_client(self, settings: FailFastRedisOnlineStoreConfig) -> Any:
        """Return the client of reads that do not block, which fails fast."""
        if self._client_async is None:
            self._client_async = connect_async(settings.redis_url, settings.limits)
        return self._client_async

    def read_hashes(self, config: RepoConfig, commands: list[tuple[bytes, list[str | bytes]]]) -> list[Any]:
        """Return the fields that are asked for of each key; few are read fast or not at all."""
        client = self._client_for(config, len(commands))
        with client.pipeline(transaction=False) as pipe:
            for key, fields in commands:
                pipe.hmget(key, fields)  # type: ignore[arg-type]
            return pipe.execute()

    def _client_for(self, config: RepoConfig, n_keys: int) -> redis.Redis:
        pick = self.patient_client if n_keys > BULK_KEYS else self._get_fast_client
        return pick(config.online_store)

    def begin_filling(self, config: RepoConfig) -> bool:
        """Note that everybody is about to be written; return whether the store still holds what it was filled with."""
        client = self.patient_client(config.online_store)
        try:
            marked = filling.is_marked(client, config.project)
            filling.begin(client, config.project)
        except redis.RedisError as error:
            raise FeatureStoreUnavailable(f"The online feature store does not answer: {error}.") from error
        return marked

    def end_filling(self, config: RepoConfig) -> bool:
        """Mark the store as filled; False, and no mark, where it was emptied meanwhile."""
        try:
            return filling.end(self.patient_client(config.online_store), config.project)
        except redis.RedisError as error:
            raise FeatureStoreUnavailable(f"The online feature store does not answer: {error}.") from error

    def forget_filling(self, config: RepoConfig) -> None:
        """Take the mark of the filling away, so that the next one writes everybody; raises FeatureStoreUnavailable."""
        try:
            filling.forget(self._get_fast_client(config.online_store), config.project)
        except redis.RedisError as error:
            raise FeatureStoreUnavailable(f"The online feature store does not answer: {error}.") from error

    def forget_person(self, config: RepoConfig, user_id: int) -> tuple[bool, bool]:
        """Delete whatever any view stores of a person; return whether there was something, and whether there is still.

        Raises FeatureStoreUnavailable.
        """
        client = self.patient_client(config.online_store)
        [key] = self._keys(config, np.array([user_id], dtype="<i8"))
        try:
            return bool(client.delete(key)), bool(client.exists(key))
        except redis.RedisError as error:
            raise FeatureStoreUnavailable(f"The online feature store does not answer: {error}.") from error

    def was_emptied(self, config: RepoConfig) -> bool:
        """Tell whether the mark of a filling is gone; False while the store does not answer."""
        try:
            return not filling.is_marked(self._get_fast_client(config.online_store), config.project)
        except redis.RedisError:
            return False

    def read_packed(
        self, config: RepoConfig, views: Sequence[tuple[FeatureView, bool]], user_ids: Int64
    ) -> list[tuple[Float32, Int64]]:
        """Read all features of several packed views for many people in one round trip.

        `views` are (view, timed); returns per view float32[n, k] and int64[n] event times in
        microseconds, -1 where there is no row (whose values are then undefined). The rows of a view that is not
        timed have time 0: reading times costs as much as reading values. Raises FeatureStoreUnavailable.
        """
        ids = np.ascontiguousarray(user_ids, dtype="<i8")
        sent = commands("HMGET", self._keys(config, ids), _packed_fields(config, views))
        return _read_columns(views, self._execute(self._client_for(config, len(ids)), sent, len(ids)))

    async def read_packed_async(
        self, config: RepoConfig, views: Sequence[tuple[FeatureView, bool]], user_ids: Int64
    ) -> list[tuple[Float32, Int64]]:
        """Read like `read_packed`, without blocking and for few people; cancel it to bound its time."""
        ids = np.ascontiguousarray(user_ids, dtype="<i8")
        sent = b"".join(commands("HMGET", self._keys(config, ids), _packed_fields(config, views)))
        pool = (await self.async_client(config.online_store)).connection_pool
        connection: Any = None
        try:
            connection = await pool.get_connection()
            await connection.send_packed_command([sent], check_health=False)
            replies = [await connection.read_response() for _ in range(len(ids))]
        except BaseException as error:
            # As in `_execute`: a reply that is still on its way must reach nobody.
            if connection is not None:
                await connection.disconnect(nowait=True)
            if isinstance(error, redis.RedisError):
                raise FeatureStoreUnavailable(f"The online feature store does not answer: {error}.") from error
            raise
        finally:
            if connection is not None:
                await pool.release(connection)
        return _read_columns(views, replies)

    async def close_async(self) -> None:
        """Close the connections of `read_packed_async`."""
        if self._client_async is not None:
            await self._client_async.aclose()
            self._client_async = None

    def write_packed(
        self,
        config: RepoConfig,
        view: FeatureView,
        user_ids: Int64,
        rows: Float32,
        event_micros: Int64,
    ) -> int:
        """Write all features of many distinct people and return how many were newer than what was stored.

        The row with the latest event time wins, whatever the order of writes. A row of other features does not count.
        """
        client = self.patient_client(config.online_store)
        name = stored_name(view, config)
        value_field, time_field = _hash_fields(name, _names(view))
        keys = self._keys(config, np.ascontiguousarray(user_ids, dtype="<i8"))
        replies = self._execute(client, commands("HMGET", keys, [time_field]), len(keys))
        times = Times()
        stored = np.array([times.micros(reply[0]) for reply in replies], dtype=np.int64)
        newer = np.flatnonzero(event_micros > stored)
        if not len(newer):
            return 0
        rows_as_bytes = packed(rows[newer])
        stamps = [times.stamp(int(micros)) for micros in event_micros[newer]]
        writes = [
            command("HSET", keys[position], value_field, value, time_field, stamp)
            for position, value, stamp in zip(newer.tolist(), rows_as_bytes, stamps, strict=True)
        ]
        self._execute(client, writes, len(writes))
        return len(newer)

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[WrittenRow], progress: Callable[[int], Any] | None
    ) -> None:
        """Write rows as Feast hands them over; of a packed view, features that a row lacks keep what is stored."""
        if PACKED not in table.tags:
            super().online_write_batch(config, table, data, progress)
            return
        latest: dict[int, tuple[int, dict[str, Value]]] = {}
        for key, values, at, _ in data:
            user_id = key.entity_values[0].int64_val
            micros = round(make_tzaware(at).timestamp() * 1e6)
            if user_id not in latest or micros > latest[user_id][0]:
                latest[user_id] = micros, values
        ids, names = np.array(list(latest), dtype=np.int64), _names(table)
        rows = np.full((len(ids), len(names)), np.nan, dtype=np.float32)
        if any(len(values) < len(names) for _, values in latest.values()):
            [(stored, times)] = self.read_packed(config, [(table, False)], ids)
            rows[times >= 0] = stored[times >= 0]
        for row, (_, values) in zip(rows, latest.values(), strict=True):
            for place, name in enumerate(names):
                if name in values:
                    row[place] = values[name].float_val if values[name].WhichOneof("val") else np.nan
        self.write_packed(config, table, ids, rows, np.array([micros for micros, _ in latest.values()], np.int64))
        if progress is not None:
            progress(len(data))

    async def online_write_batch_async(
        self, config: RepoConfig, table: FeatureView, data: list[WrittenRow], progress: Callable[[int], Any] | None
    ) -> None:
        """Write like `online_write_batch`, without blocking the event loop."""
        if PACKED in table.tags:
            await asyncio.to_thread(self.online_write_batch, config, table, data, progress)
        else:
            await super().online_write_batch_async(config, table, data, progress)

    def delete_table(self, config: RepoConfig, table: FeatureView) -> None:
        """Delete the rows of a view."""
        if PACKED in table.tags:
            client, name = self.patient_client(config.online_store), stored_name(table, config)
            for key in client.scan_iter(_key_head(config.entity_key_serialization_version) + b"*"):
                if key.endswith(config.project.encode()):
                    client.hdel(key, *_hash_fields(name, _names(table)))  # type: ignore[arg-type]
        else:
            super().delete_table(config, table)

    def fields_of(
        self, view: FeatureView, requested: list[str] | None, stored_as: str | None
    ) -> tuple[list[str], list[str | bytes]]:
        """Return what a read asks for, by name, and the fields of a person's hash that hold it."""
        if PACKED not in view.tags:
            return super().fields_of(view, requested, stored_as)
        name, names = stored_as or view.name, _names(view)
        wanted = requested or list(names)
        # The stock store, too, returns one name more than it was asked for.
        asked = _Requested([*wanted, f"_ts:{name}"], [names.index(one) for one in wanted], len(names))
        return asked, list(_hash_fields(name, names))

    def rows_of(self, replies: Sequence[Sequence[bytes | None]], view: str, requested: list[str]) -> list[ReadRow]:
        """Return the event time and the values of every row that was read, by name."""
        if not isinstance(requested, _Requested):
            return super().rows_of(replies, view, requested)
        names, places, times = requested[:-1], requested.places, Times()
        stored = [packed for packed, _ in replies if packed]
        rows = iter(unpacked(stored, requested.width, view)[:, places].tolist() if stored else ())
        return [
            (
                EPOCH + timedelta(microseconds=max(times.micros(stamp), 0)),
                {name: Value(float_val=value) for name, value in zip(names, next(rows), strict=True)}
                if packed
                else {name: Value() for name in names},
            )
            for packed, stamp in replies
        ]

    def _keys(self, config: RepoConfig, ids: Int64) -> list[bytes]:
        """Return Feast's Redis keys of many users: the entity key is the same but for its last eight bytes."""
        head, tail = _key_head(config.entity_key_serialization_version), config.project.encode()
        raw = ids.tobytes()
        return [head + raw[start : start + 8] + tail for start in range(0, len(raw), 8)]

    @staticmethod
    def _execute(client: redis.Redis, commands: Iterable[bytes], n: int) -> list[Any]:
        """Send prepared commands on one connection and return the replies in order."""
        pool = client.connection_pool
        connection: Any = None
        try:
            connection = pool.get_connection()
            connection.send_packed_command([b"".join(commands)], check_health=False)
            replies = [connection.read_response() for _ in range(n)]
        except BaseException as error:
            # Replies may still be on their way: nobody else may ever read them as their own.
            if connection is not None:
                connection.disconnect()
            if isinstance(error, redis.RedisError):
                raise FeatureStoreUnavailable(f"The online feature store does not answer: {error}.") from error
            raise
        finally:
            if connection is not None:
                pool.release(connection)
        return replies


class _Requested(list[str]):
    """The names that a read of a packed view asks for, the event time last, and where each stands in a packed row."""

    def __init__(self, names: Iterable[str], places: list[int], width: int) -> None:
        super().__init__(names)
        self.places = places
        self.width = width


def _packed_fields(config: RepoConfig, views: Sequence[tuple[FeatureView, bool]]) -> list[bytes]:
    names = [stored_name(view, config) for view, _ in views]
    fields = [_hash_fields(name, _names(view)) for name, (view, _) in zip(names, views, strict=True)]
    timed = [time for (_, time), (_, is_timed) in zip(fields, views, strict=True) if is_timed]
    return [value for value, _ in fields] + timed


def _names(view: FeatureView) -> tuple[str, ...]:
    return tuple([field.name for field in view.features])


@lru_cache(maxsize=64)
def _hash_fields(view: str, names: tuple[str, ...]) -> tuple[bytes, bytes]:
    """Return the fields of a person's hash that hold the features of a packed view and the event time."""
    values = hash_field(f"{view}:{','.join(names)}")
    return values, f"_ts:{view}:{values.hex()}".encode()


@lru_cache(maxsize=8)
def _key_head(version: int) -> bytes:
    example: bytes = serialize_entity_key(
        EntityKey(join_keys=["user_id"], entity_values=[Value(int64_val=0)]), entity_key_serialization_version=version
    )
    return example[:-8]


def _read_columns(
    views: Sequence[tuple[FeatureView, bool]], replies: Sequence[Sequence[bytes | None]]
) -> list[tuple[Float32, Int64]]:
    n = len(replies)
    columns: list[Any] = list(zip(*replies, strict=True)) or [()] * (2 * len(views))
    stamps_of_timed = iter(columns[len(views) :])
    found, times = [], Times()
    for position, (view, timed) in enumerate(views):
        stored, width = columns[position], len(view.features)
        present = np.array([bool(value) for value in stored], dtype=np.bool_)
        at = present.astype(np.int64) - 1
        if timed:
            stamps = next(stamps_of_timed)
            at[present] = [times.micros(stamp) for stamp, known in zip(stamps, stored, strict=True) if known]
        rows = np.empty((n, width), dtype=np.float32)
        rows[present] = unpacked([value for value in stored if value], width, view.name)
        found.append((rows, at))
    return found
