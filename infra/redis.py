"""Redis clients that fail fast: short timeouts and no hidden retries.

With redis-py's defaults a refused connection takes seconds and a silent server hangs for ever; here both are errors
after `socket_timeout_s`. Offline writers pass longer timeouts.
"""

from urllib.parse import unquote, urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from infra.errors import ServerUnavailable
from infra.settings import RedisSettings


def connect(redis_url: str, settings: RedisSettings, *, socket_timeout_s: float | None = None) -> redis.Redis:
    """Make a client; it connects at the first command. `socket_timeout_s` replaces the request path's limit."""
    return redis.Redis.from_url(
        redis_url,
        socket_timeout=socket_timeout_s or settings.socket_timeout_s,
        socket_connect_timeout=max(settings.connect_timeout_s, socket_timeout_s or 0),
        max_connections=settings.max_connections,
        retry=Retry(NoBackoff(), 0),
    )


def connect_async(
    redis_url: str, settings: RedisSettings, *, socket_timeout_s: float | None = None
) -> redis.asyncio.Redis:
    """Make an asynchronous client with the same limits."""
    return redis.asyncio.Redis.from_url(
        redis_url,
        socket_timeout=socket_timeout_s or settings.socket_timeout_s,
        socket_connect_timeout=max(settings.connect_timeout_s, socket_timeout_s or 0),
        max_connections=settings.max_connections,
        retry=AsyncRetry(NoBackoff(), 0),
    )


def ping(redis_url: str, settings: RedisSettings, *, timeout_s: float = 2.0) -> None:
    """Return if the server answers within `timeout_s`; raises ServerUnavailable."""
    try:
        with connect(redis_url, settings, socket_timeout_s=timeout_s) as client:
            client.ping()
    except redis.RedisError as error:
        place = urlsplit(redis_url)
        raise ServerUnavailable(
            f"Redis at `{place.hostname}:{place.port or 6379}{place.path}` cannot be reached: {error}."
        ) from error


def connection_string(redis_url: str) -> str:
    """Return the URL in Feast's notation: `host:port,db=0,password=…`."""
    place = urlsplit(redis_url)
    parts = [f"{place.hostname}:{place.port or 6379}", f"db={place.path.strip('/') or '0'}"]
    if place.username:
        parts.append(f"username={unquote(place.username)}")
    if place.password:
        parts.append(f"password={unquote(place.password)}")
    if place.scheme == "rediss":
        parts.append("ssl=true")
    return ",".join(parts)
