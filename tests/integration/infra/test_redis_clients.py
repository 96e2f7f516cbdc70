"""Redis clients fail fast, whatever is wrong with the server."""

import asyncio
import socket
import time

import pytest
import redis

from infra.embedded.ports import free_port
from infra.endpoints import Endpoints
from infra.errors import ServerUnavailable
from infra.redis import connect, connect_async, ping
from infra.settings import RedisSettings
from tests.waiting import slowness

SETTINGS = RedisSettings(socket_timeout_s=0.05, connect_timeout_s=0.05)
# Well below the seconds that the library's hidden retries take, well above a loaded machine's hiccups.
FAST_S = 2.5


def test_a_client_reads_what_it_wrote(endpoints: Endpoints, redis_client: redis.Redis) -> None:
    with connect(endpoints.redis_url, SETTINGS, socket_timeout_s=5) as client:
        client.set("key", b"value")
    assert redis_client.get("key") == b"value"
    ping(endpoints.redis_url, SETTINGS)


def test_a_refused_connection_fails_at_once() -> None:
    begin = time.monotonic()
    with connect(f"redis://127.0.0.1:{free_port()}/0", SETTINGS) as client, pytest.raises(redis.ConnectionError):
        client.get("key")
    assert time.monotonic() - begin < FAST_S * slowness()


def test_a_server_that_never_answers_fails_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        begin = time.monotonic()
        with connect(url, SETTINGS) as client, pytest.raises(redis.TimeoutError):
            client.get("key")
        assert time.monotonic() - begin < FAST_S * slowness()


def test_an_asynchronous_client_fails_as_fast() -> None:
    async def read(url: str) -> None:
        async with connect_async(url, SETTINGS) as client:
            await client.get("key")

    with socket.create_server(("127.0.0.1", 0)) as silent:
        begin = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            asyncio.run(read(f"redis://127.0.0.1:{silent.getsockname()[1]}/0"))
        assert time.monotonic() - begin < FAST_S * slowness()


def test_a_failed_ping_is_one_sentence_without_the_password() -> None:
    port = free_port()
    with pytest.raises(ServerUnavailable, match=rf"Redis at `127.0.0.1:{port}/0` cannot be reached") as caught:
        ping(f"redis://:hunter2@127.0.0.1:{port}/0", SETTINGS)
    assert "hunter2" not in str(caught.value)
