import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from pipelines.bench.http_client import post
from pipelines.bench.load import Job, Seen, TimedAnswer, _Load, arrivals

Reply = Callable[[dict[str, Any], int], Awaitable[bytes]]


def answered(items: list[int], level: int = 1, **more: Any) -> bytes:
    body = json.dumps(
        {
            "items": [{"user_id": user_id} for user_id in items],
            "level": level,
            "reason": None if level == 1 else "deadline_exceeded",
            "release": "e1-i1-r1",
            "timings_ms": {"total": 1.0},
            **more,
        }
    ).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


async def driven(reply: Reply, *, pieces: bool = False, **job: Any) -> Seen:
    """Drive a job against a server of this process that answers with `reply`."""
    n_asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal n_asked
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            asked = json.loads(await reader.readexactly(length))
            n_asked += 1
            content = await reply(asked, n_asked)
            if not content:
                break
            for part in (content[:30], content[30:70], content[70:]) if pieces else (content,):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()

    async def quiet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    handlers: list[Any] = []
    server = await asyncio.start_server(quiet, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        seen = await _Load(Job("127.0.0.1", port, user_ids=[1, 2, 3], limit=2, **job)).run()
        await asyncio.gather(*handlers)
        return seen


async def good(_asked: dict[str, Any], _number: int) -> bytes:
    return answered([8, 9])


@pytest.fixture(autouse=True)
def _collecting() -> Any:
    import gc

    yield
    gc.enable()
    gc.unfreeze()


def test_requests_are_due_at_a_constant_rate_in_each_phase() -> None:
    due = list(arrivals(100.0, [(10.0, 0.5), (2.0, 1.0)]))
    assert due == pytest.approx([100.0, 100.1, 100.2, 100.3, 100.4, 100.5, 101.0])


def test_a_closed_loop_asks_again_as_soon_as_it_is_answered() -> None:
    seen = asyncio.run(driven(good, seconds=0.3, concurrency=2))
    assert len(seen.latency_ms) > 4
    assert all(seen.good)
    assert not seen.problems


def test_an_answer_in_pieces_is_put_together() -> None:
    seen = asyncio.run(driven(good, pieces=True, seconds=0.2))
    assert seen.good
    assert all(seen.good)
    assert seen.statuses["200"] == len(seen.good)


def test_a_stall_is_felt_by_everybody_who_was_due_during_it() -> None:
    async def stalling(_asked: dict[str, Any], number: int) -> bytes:
        if number == 1:
            blocking = asyncio.get_running_loop().time() + 0.4
            while asyncio.get_running_loop().time() < blocking:
                pass  # nobody is answered meanwhile, and nobody is asked either: driver and server share this loop
        return answered([8, 9])

    seen = asyncio.run(driven(stalling, phases=[(50.0, 0.4)]))
    assert len(seen.latency_ms) == 20
    slow = [latency for latency in seen.latency_ms if latency > 100]
    assert len(slow) > 10
    assert max(slow) > 300
    assert all(later - earlier == pytest.approx(0.02) for earlier, later in pairwise(sorted(seen.due_s)))


def test_what_is_sent_to_warm_up_does_not_count() -> None:
    seen = asyncio.run(driven(good, phases=[(50.0, 0.2)], warmup_s=0.2))
    assert len(seen.latency_ms) == 10


def test_a_broken_connection_is_counted_and_replaced() -> None:
    async def breaking(_asked: dict[str, Any], number: int) -> bytes:
        return b"" if number == 2 else answered([8, 9])

    seen = asyncio.run(driven(breaking, seconds=0.3))
    assert seen.problems == {"connection broken": 1}
    assert sum(seen.good) > 2


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (TimedAnswer(1.0, 503, b"{}"), "status 503"),
        (TimedAnswer(1.0, 0, b""), "connection broken"),
        (TimedAnswer(1.0, 200, answered([8, 9], level=2).partition(b"\r\n\r\n")[2]), "level 2: deadline_exceeded"),
        (TimedAnswer(1.0, 200, answered([8, 8]).partition(b"\r\n\r\n")[2]), "somebody twice"),
        (TimedAnswer(1.0, 200, answered([8, 1]).partition(b"\r\n\r\n")[2]), "the requester among the people"),
        (TimedAnswer(1.0, 200, answered([7, 8, 9]).partition(b"\r\n\r\n")[2]), "more people than asked for"),
    ],
)
def test_an_answer_that_is_not_what_it_should_be_is_no_good_one(answer: TimedAnswer, problem: str) -> None:
    seen = Seen()
    seen.note(0.5, answer, user_id=1, limit=2)
    assert seen.good == [False]
    assert seen.problems == {problem: 1}


def test_a_short_answer_is_good_until_it_is_checked() -> None:
    seen = Seen()
    seen.note(0.5, TimedAnswer(1.0, 200, answered([8], cached=True).partition(b"\r\n\r\n")[2]), user_id=1, limit=2)
    assert seen.good == [True]
    assert seen.short == [1]
    assert seen.cached == 1
    assert seen.latency_ms == [500.0]


def test_what_was_seen_survives_the_way_between_processes() -> None:
    seen = Seen()
    seen.note(0.5, TimedAnswer(1.0, 503, b""), user_id=1, limit=2)
    assert Seen.parse(json.dumps(vars(seen))) == seen


def test_a_request_is_what_the_service_reads() -> None:
    head, _, body = post("127.0.0.1", 8000, "/v1/recommendations", {"user_id": 4}).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/recommendations HTTP/1.1\r\nHost: 127.0.0.1:8000")
    assert json.loads(body) == {"user_id": 4}
    assert f"Content-Length: {len(body)}".encode() in head
