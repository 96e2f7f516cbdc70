"""The second tier: answers as JSON in Redis, for workers and machines that share it.

It is only ever a hint. What cannot be reached or read is a miss, through a breaker so that a Redis that is away costs
nothing; what is read is checked for safety like anything else. Writes happen beside the answer, a bounded number.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import redis.asyncio
import structlog

from infra.errors import DuetError
from serving.cache.entry import Entry

MOST_WRITES: Final = 64
_log = structlog.get_logger(__name__)


class CacheBreaker(Protocol):
    """What calls go through: a breaker."""

    async def call(self, operation: Callable[[], Awaitable[Any]], timeout_s: float) -> Any:
        """Await the operation for at most `timeout_s`; raises BreakerOpen, TimeoutError, or what it raises."""
        ...


class RedisTier:
    """Kept answers under `prefix` in Redis; a write may take `write_s`."""

    def __init__(self, client: redis.asyncio.Redis, guard: CacheBreaker, prefix: str, write_s: float) -> None:
        self._client = client
        self._guard = guard
        self._prefix = prefix
        self._write_s = write_s
        self._writing: set[asyncio.Task[None]] = set()

    async def get(self, user_id: int, key: str, timeout_s: float) -> Entry | None:
        """Return what was kept; None when there is nothing, or nothing that can be read."""
        body = await self._ask(lambda: self._client.get(self._name(user_id, key)), timeout_s)
        if body is None:
            return None
        try:
            return Entry.from_json(body, user_id)
        except ValueError as error:
            _log.warning("kept_answer_unreadable", error=type(error).__name__)
            return None

    def put(self, user_id: int, key: str, entry: Entry, ttl_s: float) -> None:
        """Keep an answer, beside the request; left out when too many are being written."""
        if len(self._writing) < MOST_WRITES:
            task = asyncio.create_task(self._write(user_id, key, entry, ttl_s))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def written(self) -> None:
        """Wait for the writes under way."""
        await asyncio.gather(*self._writing)

    async def _write(self, user_id: int, key: str, entry: Entry, ttl_s: float) -> None:
        milliseconds = max(int(ttl_s * 1000), 1)
        body = entry.to_json()
        await self._ask(lambda: self._client.set(self._name(user_id, key), body, px=milliseconds), self._write_s)

    async def _ask(self, operation: Callable[[], Awaitable[Any]], timeout_s: float) -> Any:
        try:
            return await self._guard.call(operation, timeout_s)
        except (DuetError, TimeoutError, redis.RedisError, OSError):
            return None

    def _name(self, user_id: int, key: str) -> str:
        return f"{self._prefix}:{user_id}:{key}"
