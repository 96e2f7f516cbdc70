"""What a connection may cost before its request is parsed, on a real server and real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from infra.web import limits
from infra.web.limits import HttpLimits, LimitedHttp

ASK = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
Work = Callable[[int], Awaitable[None]]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer `well` before the body is read."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"well"})


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[[HttpLimits, Work], None]:
    def run(within: HttpLimits, work: Work) -> None:
        monkeypatch.setattr(LimitedHttp, "limits", within)
        asyncio.run(_served(work))

    return run


async def _served(work: Work) -> None:
    config = uvicorn.Config(app, port=0, http=LimitedHttp, lifespan="off", log_level="critical", timeout_keep_alive=60)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        await asyncio.wait_for(work(server.servers[0].sockets[0].getsockname()[1]), 60)
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(port: int, sent: bytes) -> tuple[int, str]:
    """Status and error code of the answer on a connection that is closed afterwards."""
    async with connected(port) as (reader, writer):
        writer.write(sent)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        envelope = json.loads(body)
        assert envelope["error"].keys() == {"code", "message", "details"}
        assert f"x-request-id: {envelope['request_id']}".encode() in head.lower()
        return int(head.split()[1]), envelope["error"]["code"]


def test_a_head_may_have_as_many_bytes_as_its_bound_and_no_more_when_it_comes_at_once(served: Any) -> None:
    async def work(port: int) -> None:
        start, end = b"GET / HTTP/1.1\r\nX: ", b"\r\n\r\n"
        fits = start + b"a" * (1000 - len(start + end)) + end
        async with connected(port) as (reader, writer):
            for _ in range(2):
                writer.write(fits)
                assert (await reader.readuntil(b"well")).startswith(b"HTTP/1.1 200")
        assert await answer(port, start + b"a" + fits.removeprefix(start)) == (431, "headers_too_large")

    served(HttpLimits(max_head_bytes=1000), work)


def test_a_head_beyond_its_bound_is_refused_in_whatever_pieces_it_comes(served: Any) -> None:
    async def work(port: int) -> None:
        many = b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"a" * 100) for i in range(2000))
        assert await answer(port, many) == (431, "headers_too_large")
        assert await answer(port, b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000) == (431, "headers_too_large")
        assert await answer(port, b"\r\n" * 100_000) == (431, "headers_too_large")
        assert await answer(port, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n") == (414, "url_too_long")
        assert await answer(port, b"MAKE / HTTP/1.1\r\n\r\n") == (400, "malformed_request")
        chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n"
        assert await answer(port, chunked) == (400, "malformed_request")
        async with connected(port) as (reader, writer):  # what is within the bounds is answered, again and again
            for _ in range(3):
                writer.write(b"GET / HTTP/1.1\r\nX: " + b"a" * 25_000 + b"\r\n\r\n")
                assert (await reader.readuntil(b"well")).startswith(b"HTTP/1.1 200")

    served(HttpLimits(), work)


def test_a_connection_that_never_sends_a_whole_head_is_closed(served: Any) -> None:
    async def work(port: int) -> None:
        for begun in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: here\r\n"):
            assert await answer(port, begun) == (408, "headers_timeout"), begun
        async with connected(port) as (reader, writer):
            writer.write(ASK)
            await reader.readuntil(b"well")
            writer.write(b"GET / HT")  # the second request, half
            assert (await reader.read()).startswith(b"HTTP/1.1 408")

    served(HttpLimits(head_timeout_s=0.3), work)


def test_a_body_that_trickles_after_the_answer_keeps_no_connection(served: Any) -> None:
    async def work(port: int) -> None:
        async with connected(port) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\na")
            await reader.readuntil(b"well")
            assert await reader.read() == b""

    served(HttpLimits(), work)


def test_a_connection_whose_body_came_after_the_answer_goes_on(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_LINGER_S", 1.0)

    async def work(port: int) -> None:
        async with connected(port) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\na")
            await reader.readuntil(b"well")
            writer.write(b"bcd")
            await asyncio.sleep(1.5)  # beyond the time that the rest of the body had
            writer.write(ASK)
            assert (await reader.readuntil(b"well")).startswith(b"HTTP/1.1 200")

    served(HttpLimits(), work)


def test_connections_that_send_nothing_make_room_for_those_that_ask(served: Any) -> None:
    async def work(port: int) -> None:
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(30)]
        async with connected(port) as (reader, writer):
            writer.write(ASK)
            assert (await reader.readuntil(b"well")).startswith(b"HTTP/1.1 200")
        closed = [await asyncio.wait_for(reader.read(), 30) for reader, _ in opened[:20]]
        assert closed == [b""] * 20
        for _, writer in opened:
            writer.close()

    served(HttpLimits(max_connections=10, head_timeout_s=60), work)
