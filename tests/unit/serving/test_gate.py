import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from infra.clock import SystemClock
from infra.metrics import serving_metrics
from infra.person_names import PersonNames
from infra.settings import Settings
from serving.access.authentication import Authenticator
from serving.access.keys import Key, new_key
from serving.access.table import KeyTable
from serving.api import responses
from serving.api.middleware import ApiMiddleware
from serving.api.request_checks import OPEN, Call, RequestChecks
from serving.api.routing import ApiRoute, Routes
from serving.errors import ApiError
from serving.resilience.limiter import Limiter

KEY_ID, WHOLE, SHA256 = new_key()
NAMES = PersonNames("salt")


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    number: int


class Answer(BaseModel):
    text: str = "answered"


class Guarded:
    """An app behind gate and border, whose calls last until they are let go."""

    def __init__(self, *, places: int = 2, queued: int = 0, closed: bool = False, per_minute: int = 1000) -> None:
        auth = {"mode": "required" if closed else "off", "requests_per_minute": per_minute}
        clock, metrics = SystemClock(), serving_metrics()
        self.go_on = asyncio.Event()
        self.bodies_read = 0
        self.limiter = Limiter(
            max_concurrency=places, max_queued=queued, queue_timeout_s=0.05, clock=clock, metrics=metrics
        )
        self.authenticator = Authenticator(Settings(serving={"auth": auth}), clock, metrics)
        self.app = self.behind(self.call)

    def behind(self, method: Call) -> ApiMiddleware:
        """Put a method behind gate and border."""
        gate = RequestChecks(
            self._inner,
            routes=Routes([ApiRoute("POST", "/call", "call", Body)]),
            calls={"call": method},
            authenticator=self.authenticator,
            limiter=self.limiter,
            max_body_bytes=100,
            timeout_s=5.0,
            name_person=NAMES,
        )
        return ApiMiddleware(self._counted(gate), clock=SystemClock(), metrics=serving_metrics())

    async def call(self, body: Body) -> Response:
        assert body.number == 1
        await self.go_on.wait()
        return responses.ok(Answer())

    async def _inner(self, scope: Any, receive: Any, send: Any) -> None:
        await responses.ok(Answer())(scope, receive, send)

    def _counted(self, app: Any) -> Any:
        async def counting(scope: Any, receive: Any, send: Any) -> None:
            async def read() -> Any:
                self.bodies_read += 1
                return await receive()

            await app(scope, read, send)

        return counting

    async def send(self, method: str = "POST", path: str = "/call", **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, client=("192.0.2.1", 5))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://duet") as client:
            return await client.request(
                method, path, content=b'{"number": 1}', headers={"content-type": "application/json", **headers}
            )


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def go() -> None:
        await work()

    asyncio.run(go())


def code(response: httpx.Response) -> str:
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert re.fullmatch(r"\d+\.\d+", response.headers["x-process-time"])
    return str(response.json()["error"]["code"])


def test_past_the_places_a_call_is_refused_before_its_body_is_read_and_probes_are_not() -> None:
    async def work() -> None:
        guarded = Guarded()
        held = [asyncio.create_task(guarded.send()) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert guarded.limiter.in_flight == 2
        read_before = guarded.bodies_read
        refused = await guarded.send()
        assert (refused.status_code, code(refused)) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert guarded.bodies_read == read_before
        for path in sorted(OPEN):
            assert (await guarded.send("GET", path)).status_code == 200
        guarded.go_on.set()
        assert [response.status_code for response in await asyncio.gather(*held)] == [200, 200]
        assert (await guarded.send()).status_code == 200

    run(work)


def test_a_slow_body_holds_no_place() -> None:
    async def work() -> None:
        guarded = Guarded(places=1)

        async def trickle() -> Any:
            await asyncio.sleep(5)
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def drop(_: Any) -> None:
            pass

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/call", "headers": headers}
        slow = asyncio.create_task(guarded.app(scope, trickle, drop))
        await asyncio.sleep(0.05)
        guarded.go_on.set()
        assert (await guarded.send()).status_code == 200
        slow.cancel()

    run(work)


@pytest.mark.parametrize("path", ["/call", "/v1/anything", "/metrics", "/health", "/docs.json", "/no/such/path"])
def test_without_a_key_nothing_but_probes_is_answered(path: str) -> None:
    async def work() -> None:
        guarded = Guarded(closed=True)
        guarded.authenticator.table = await table()
        refused = await guarded.send("POST" if path == "/call" else "GET", path)
        assert (refused.status_code, code(refused)) == (401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert guarded.bodies_read == 0
        guarded.go_on.set()
        let_in = await guarded.send("POST" if path == "/call" else "GET", path, authorization=f"Bearer {WHOLE}")
        assert let_in.status_code == 200

    run(work)


def test_before_the_keys_are_known_calls_are_told_to_come_again() -> None:
    async def work() -> None:
        refused = await Guarded(closed=True).send(authorization=f"Bearer {WHOLE}")
        assert (refused.status_code, code(refused)) == (503, "keys_unavailable")
        assert refused.headers["retry-after"] == "1"

    run(work)


def test_a_key_that_calls_too_often_is_refused_and_told_when_to_come_again() -> None:
    async def work() -> None:
        guarded = Guarded(closed=True, per_minute=2)
        guarded.authenticator.table = await table()
        guarded.go_on.set()
        answers = [await guarded.send(**{"x-api-key": WHOLE}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert code(answers[2]) == "rate_limited"
        assert 1 <= int(answers[2].headers["retry-after"]) <= 60
        assert WHOLE.rpartition("_")[2] not in json.dumps([answer.text for answer in answers])

    run(work)


async def table() -> KeyTable:
    async def read() -> list[Key]:
        return [Key(KEY_ID, "website", SHA256, None, tester=False)]

    made = KeyTable(read, 5.0)
    await made.refresh()
    return made


def test_at_three_times_the_load_it_can_carry_a_worker_goes_on_answering_and_is_back_at_once() -> None:
    """Calls take 5 ms of the one thread there is; callers come on a fixed beat, whatever becomes of them."""

    async def work() -> None:
        guarded = Guarded(places=8, queued=8)
        guarded.go_on.set()

        async def busy(body: Body) -> Response:
            await asyncio.sleep(0.002)  # as the database is asked
            time.sleep(0.005)  # noqa: ASYNC251 as computing does, it holds the loop
            return await guarded.call(body)

        app = guarded.behind(busy)

        async def call() -> int:
            sent: list[Any] = []

            async def body() -> Any:
                return {"type": "http.request", "body": b'{"number": 1}', "more_body": False}

            async def keep(message: Any) -> None:
                sent.append(message)

            headers = [(b"content-type", b"application/json")]
            await app({"type": "http", "method": "POST", "path": "/call", "headers": headers}, body, keep)
            return int(sent[0]["status"])

        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(10):
            assert await asyncio.gather(*(call() for _ in range(8))) == [200] * 8
        one_s = (loop.time() - began) / 80
        began, calls = loop.time(), []
        while (elapsed := loop.time() - began) < 1.5:
            due = int(elapsed / one_s * 3)
            calls += [asyncio.create_task(call()) for _ in range(due - len(calls))]
            await asyncio.sleep(one_s / 3)
        outcomes = await asyncio.gather(*calls)
        # How many it answers on a machine of its own, `duet bench serving` measures.
        assert set(outcomes) == {200, 503}
        assert await call() == 200

    run(work)


class Recorder:
    """An app's client that keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))

    async def receive(self) -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    def starts(self) -> list[int]:
        return [message["status"] for message in self.sent if message["type"] == "http.response.start"]


def page_gate(app: Any) -> ApiMiddleware:
    guarded, clock = Guarded(), SystemClock()
    gate = RequestChecks(
        app,
        routes=Routes([]),
        calls={},
        authenticator=guarded.authenticator,
        limiter=guarded.limiter,
        max_body_bytes=100,
        timeout_s=0.05,
        name_person=NAMES,
    )
    return ApiMiddleware(gate, clock=clock, metrics=serving_metrics())


PAGE = {"type": "http", "method": "GET", "path": "/health", "headers": [], "client": ("127.0.0.1", 5)}


def test_an_answer_that_breaks_off_in_the_middle_is_followed_by_no_second_one() -> None:
    async def slow(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(60)

    async def go() -> list[int]:
        client = Recorder()
        with pytest.raises(ApiError):  # uvicorn closes the connection
            await page_gate(slow)(dict(PAGE), client.receive, client.send)
        return client.starts()

    assert asyncio.run(go()) == [200]


def test_an_answer_that_was_sent_whole_stands_when_its_time_is_over() -> None:
    async def lingering(scope: Any, receive: Any, send: Any) -> None:
        await responses.ok(Answer())(scope, receive, send)
        await asyncio.sleep(60)

    async def go() -> list[int]:
        client = Recorder()
        await page_gate(lingering)(dict(PAGE), client.receive, client.send)  # raises nothing: the connection stays
        return client.starts()

    assert asyncio.run(go()) == [200]


def test_what_an_app_still_says_after_its_time_is_over_reaches_nobody() -> None:
    late: list[asyncio.Task[None]] = []

    async def detached(_: Any, __: Any, send: Any) -> None:
        async def answer() -> None:
            await go_on.wait()
            await responses.ok(Answer())(dict(PAGE), None, send)  # type: ignore[arg-type]

        late.append(asyncio.create_task(answer()))
        await asyncio.shield(late[0])

    async def go() -> list[int]:
        client = Recorder()
        await page_gate(detached)(dict(PAGE), client.receive, client.send)
        go_on.set()
        await late[0]
        return client.starts()

    go_on = asyncio.Event()
    assert asyncio.run(go()) == [504]
