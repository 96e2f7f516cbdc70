"""How many calls a key may make in a minute, counted by the `limits` library.

Each worker counts in its own memory, or all of them in Redis; while Redis is away each counts for itself again, because
a limit must never make a caller wait or fail.
"""

import asyncio
import math
from functools import lru_cache

import structlog
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from redis.asyncio import Redis

from infra.clock import Clock
from serving.access.keys import Key
from serving.errors import RateLimited

_AWAY_S = 1.0
"""How long Redis is left alone after it failed."""
_log = structlog.get_logger(__name__)


class RateLimits:
    """Count calls per key; `redis` shares the counts between workers, and `timeout_s` bounds the wait for it."""

    def __init__(self, *, default_per_minute: int, clock: Clock, timeout_s: float, redis: Redis | None = None) -> None:
        self._default = default_per_minute
        self._clock = clock
        self._timeout_s = timeout_s
        self._own = FixedWindowRateLimiter(MemoryStorage())
        self._shared = None if redis is None else FixedWindowRateLimiter(_shared_storage(redis))
        self._away_until_s = 0.0

    async def count(self, key: Key) -> None:
        """Count one call of `key`; raises RateLimited with the seconds until the next minute of the key begins."""
        item = _per_minute(key.requests_per_minute or self._default)
        if self._shared is not None and self._clock.monotonic() >= self._away_until_s:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._count(self._shared, item, key)
            except RateLimited:
                raise
            except Exception as error:  # noqa: BLE001 whatever Redis raises: the own count goes on
                self._away_until_s = self._clock.monotonic() + _AWAY_S
                _log.warning("shared_limits_away", error=type(error).__name__)
            else:
                return
        await self._count(self._own, item, key)

    async def _count(self, limiter: FixedWindowRateLimiter, item: RateLimitItem, key: Key) -> None:
        if await limiter.hit(item, key.key_id):
            return
        window = await limiter.get_window_stats(item, key.key_id)
        wait_s = max(1, math.ceil(window.reset_time - self._clock.now().timestamp()))
        raise RateLimited(
            f"The key may make {item.amount} calls a minute: try again in {wait_s} s.", retry_after_s=min(wait_s, 60)
        )


@lru_cache(maxsize=1024)
def _per_minute(amount: int) -> RateLimitItem:
    return RateLimitItemPerMinute(amount, namespace="duet-limit")


def _shared_storage(redis: Redis) -> RedisStorage:
    # The client's own pool: fail-fast, without hidden retries.
    return RedisStorage("redis://", implementation="redispy", connection_pool=redis.connection_pool)  # type: ignore[arg-type]
