"""Feast's Redis online store with short timeouts, no hidden retries, and whole columns in one round trip.

The stored format is Feast's own (a stock `redis` store reads what this one writes, and the other way round). The
packed path writes and reads the bytes of `Array(Float32)` values directly, because making one protobuf per person
and view costs ten times the round trip.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import redis
from feast import FeatureView, RepoConfig
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig, _versioned_fv_name
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import FloatList, Value
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]
from numpy.typing import NDArray

from feature_repo import filling
from feature_repo.errors import FeatureStoreUnavailable, MalformedFeatures
from infra.redis import connect, connect_async
from infra.settings import RedisSettings

BULK_KEYS = 500  # more keys than a request ever asks for: a patient reader waits for them
BULK_TIMEOUT_S = 30.0
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


class FailFastRedisOnlineStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc]
    """Where Redis is and how long a request may wait for it."""

    type: Literal["feature_repo.online_store.FailFastRedisOnlineStore"] = (
        "feature_repo.online_store.FailFastRedisOnlineStore"
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


class FailFastRedisOnlineStore(RedisOnlineStore):  # type: ignore[misc]
    """Redis behind Feast's interface; small reads fail fast, bulk reads and writes are patient."""

    _client: redis.Redis | None = None
    _client_async: Any = None
    _fast: redis.Redis | None = None

    def _get_client(self, online_store_config: FailFastRedisOnlineStoreConfig) -> redis.Redis:
        """Return the patient client: every write and every scan of the base class goes through it."""
        if self._client is None:
            self._client = connect(
                online_store_config.redis_url, online_store_config.limits, socket_timeout_s=BULK_TIMEOUT_S
            )
        return self._client

    def _get_fast_client(self, online_store_config: FailFastRedisOnlineStoreConfig) -> redis.Redis:
        if self._fast is None:
            self._fast = connect(online_store_config.redis_url, online_store_config.limits)
        return self._fast

    async def _get_client_async(self, online_store_config: FailFastRedisOnlineStoreConfig) -> Any:
        if self._client_async is None:
            self._client_async = connect_async(online_store_config.redis_url, online_store_config.limits)
        return self._client_async

    def _read_hash_fields(self, config: RepoConfig, commands: list[tuple[bytes, list[str | bytes]]]) -> list[Any]:
        client = self._client_for(config, len(commands))
        with client.pipeline(transaction=False) as pipe:
            for key, fields in commands:
                pipe.hmget(key, fields)  # type: ignore[arg-type]
            return pipe.execute()

    def _client_for(self, config: RepoConfig, n_keys: int) -> redis.Redis:
        pick = self._get_client if n_keys > BULK_KEYS else self._get_fast_client
        return pick(config.online_store)

    def begin_filling(self, config: RepoConfig) -> bool:
        """Note that everybody is about to be written; return whether the store still holds what it was filled with."""
        client = self._get_client(config.online_store)
        try:
            marked = filling.is_marked(client, config.project)
            filling.begin(client, config.project)
        except redis.RedisError as error:
            raise FeatureStoreUnavailable(f"The online feature store does not answer: {error}.") from error
        return marked

    def end_filling(self, config: RepoConfig) -> bool:
        """Mark the store as filled; False, and no mark, where it was emptied meanwhile."""
        try:
            return filling.end(self._get_client(config.online_store), config.project)
        except redis.RedisError as error:
            raise FeatureStoreUnavailable(f"The online feature store does not answer: {error}.") from error

    def forget_filling(self, config: RepoConfig) -> None:
        """Take the mark of the filling away, so that the next one writes everybody; raises FeatureStoreUnavailable."""
        try:
            filling.forget(self._get_fast_client(config.online_store), config.project)
        except redis.RedisError as error:
            raise FeatureStoreUnavailable(f"The online feature store does not answer: {error}.") from error

    def was_emptied(self, config: RepoConfig) -> bool:
        """Tell whether the mark of a filling is gone; False while the store does not answer."""
        try:
            return not filling.is_marked(self._get_fast_client(config.online_store), config.project)
        except redis.RedisError:
            return False

    def read_packed(
        self, config: RepoConfig, views: Sequence[tuple[FeatureView, int, bool]], user_ids: Int64
    ) -> list[tuple[Float32, Int64]]:
        """Read the `values` of several views for many people in one round trip.

        `views` are (view, width, timed); returns per view float32[n, width] and int64[n] event times in
        microseconds, -1 where there is no row (whose values are then undefined). The rows of a view that is not
        timed have time 0: reading times costs as much as reading values. Raises FeatureStoreUnavailable.
        """
        ids = np.ascontiguousarray(user_ids, dtype="<i8")
        commands = _commands("HMGET", self._keys(config, ids), _packed_fields(config, views))
        return _read_columns(views, self._execute(self._client_for(config, len(ids)), commands, len(ids)))

    async def read_packed_async(
        self, config: RepoConfig, views: Sequence[tuple[FeatureView, int, bool]], user_ids: Int64
    ) -> list[tuple[Float32, Int64]]:
        """Read like `read_packed`, without blocking and for few people; cancel it to bound its time."""
        ids = np.ascontiguousarray(user_ids, dtype="<i8")
        commands = b"".join(_commands("HMGET", self._keys(config, ids), _packed_fields(config, views)))
        pool = (await self._get_client_async(config.online_store)).connection_pool
        connection: Any = None
        try:
            connection = await pool.get_connection()
            await connection.send_packed_command([commands], check_health=False)
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
        """Write `values` of many distinct people and return how many were newer than what was stored.

        The row with the latest event time wins, whatever the order of writes.
        """
        client = self._get_client(config.online_store)
        name = _versioned_fv_name(view, config)
        value_field, time_field = _mmh3(f"{name}:values"), f"_ts:{name}".encode()
        keys = self._keys(config, np.ascontiguousarray(user_ids, dtype="<i8"))
        replies = self._execute(client, _commands("HMGET", keys, [time_field]), len(keys))
        times = _Times()
        stored = np.array([times.micros(reply[0]) for reply in replies], dtype=np.int64)
        newer = np.flatnonzero(event_micros > stored)
        if not len(newer):
            return 0
        packed = _packed(rows[newer])
        stamps = [times.stamp(int(micros)) for micros in event_micros[newer]]
        writes = [
            _command("HSET", keys[position], value_field, value, time_field, stamp)
            for position, value, stamp in zip(newer.tolist(), packed, stamps, strict=True)
        ]
        self._execute(client, writes, len(writes))
        return len(newer)

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


def _packed_fields(config: RepoConfig, views: Sequence[tuple[FeatureView, int, bool]]) -> list[bytes]:
    names = [_versioned_fv_name(view, config) for view, _, _ in views]
    fields = [_value_field(name) for name in names]
    return fields + [f"_ts:{name}".encode() for name, (_, _, timed) in zip(names, views, strict=True) if timed]


@lru_cache(maxsize=64)
def _value_field(name: str) -> bytes:
    field: bytes = _mmh3(f"{name}:values")
    return field


@lru_cache(maxsize=8)
def _key_head(version: int) -> bytes:
    example: bytes = serialize_entity_key(
        EntityKey(join_keys=["user_id"], entity_values=[Value(int64_val=0)]), entity_key_serialization_version=version
    )
    return example[:-8]


def _read_columns(
    views: Sequence[tuple[FeatureView, int, bool]], replies: Sequence[Sequence[bytes | None]]
) -> list[tuple[Float32, Int64]]:
    n = len(replies)
    columns: list[Any] = list(zip(*replies, strict=True)) or [()] * (2 * len(views))
    stamps_of_timed = iter(columns[len(views) :])
    found, times = [], _Times()
    for position, (view, width, timed) in enumerate(views):
        stored = columns[position]
        present = np.array([bool(value) for value in stored], dtype=np.bool_)
        at = present.astype(np.int64) - 1
        if timed:
            stamps = next(stamps_of_timed)
            at[present] = [times.micros(stamp) for stamp, known in zip(stamps, stored, strict=True) if known]
        rows = np.empty((n, width), dtype=np.float32)
        rows[present] = _unpacked([value for value in stored if value], width, view.name)
        found.append((rows, at))
    return found


def _command(*parts: bytes | str) -> bytes:
    raw = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in raw)


def _commands(name: str, keys: Iterable[bytes], fields: Sequence[bytes]) -> Iterator[bytes]:
    head = b"*%d\r\n$%d\r\n%s\r\n" % (len(fields) + 2, len(name), name.encode())
    tail = b"".join(b"$%d\r\n%s\r\n" % (len(field), field) for field in fields)
    for key in keys:
        yield b"%s$%d\r\n%s\r\n%s" % (head, len(key), key, tail)


@lru_cache(maxsize=64)
def _prefix(width: int) -> bytes:
    """Return the bytes that stand before the floats in a serialised Value of `width` floats."""
    value = Value(float_list_val=FloatList(val=[0.0] * width)).SerializeToString()
    prefix: bytes = value[: len(value) - 4 * width]
    return prefix


def _packed(rows: Float32) -> list[bytes]:
    prefix = _prefix(rows.shape[1])
    raw, size = np.ascontiguousarray(rows, dtype="<f4").tobytes(), 4 * rows.shape[1]
    return [prefix + raw[start : start + size] for start in range(0, len(raw), size)]


def _unpacked(values: list[bytes], width: int, view: str) -> Float32:
    prefix = _prefix(width)
    size = len(prefix) + 4 * width
    if len(values) == 1 and len(values[0]) == size and values[0].startswith(prefix):
        return np.frombuffer(values[0], dtype="<f4", offset=len(prefix)).reshape(1, width).copy()
    raw = b"".join(values)
    if len(raw) != size * len(values):
        raise MalformedFeatures(f"The online rows of {view} do not have {width} values: materialise them again.")
    table = np.frombuffer(raw, dtype=np.uint8).reshape(len(values), size)
    if not np.all(table[:, : len(prefix)] == np.frombuffer(prefix, dtype=np.uint8)):
        raise MalformedFeatures(f"The online rows of {view} do not have {width} values: materialise them again.")
    return np.ascontiguousarray(table[:, len(prefix) :]).view("<f4").astype(np.float32, copy=False)


class _Times:
    """Event times to and from protobuf; few distinct ones occur, so each is converted once."""

    def __init__(self) -> None:
        self._micros: dict[bytes, int] = {}
        self._stamps: dict[int, bytes] = {}

    def micros(self, stamp: bytes | None) -> int:
        """Return microseconds since 1970, -1 for a missing stamp."""
        if not stamp:
            return -1
        known = self._micros.get(stamp)
        if known is None:
            parsed = Timestamp.FromString(stamp)
            known = self._micros[stamp] = parsed.seconds * 1_000_000 + parsed.nanos // 1000
        return known

    def stamp(self, micros: int) -> bytes:
        """Return the serialised protobuf timestamp."""
        known = self._stamps.get(micros)
        if known is None:
            seconds, rest = divmod(micros, 1_000_000)
            known = self._stamps[micros] = Timestamp(seconds=seconds, nanos=rest * 1000).SerializeToString()
        return known
