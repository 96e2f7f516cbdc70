import asyncio
import json
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import structlog
from pydantic import BaseModel, ConfigDict
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from infra.clock import Clock, SystemClock
from infra.metrics import serving_metrics
from infra.person_names import PersonNames
from infra.settings import Settings
from serving.access.authentication import Authenticator
from serving.api import context, responses
from serving.api.middleware import ApiMiddleware, App
from serving.api.preflight import CrossOrigin
from serving.api.request_checks import RequestChecks
from serving.api.routing import ApiRoute, Routes
from serving.errors import (
    ApiError,
    BodyTimeout,
    BodyTooLarge,
    EventConflict,
    InternalError,
    Overloaded,
    RequestTimeout,
    StorageUnavailable,
    UnknownPath,
    UnsupportedMediaType,
    WrongMethod,
)
from serving.resilience.limiter import Limiter
from tests.clocks import FixedClock

TIME = re.compile(r"\d+\.\d+")

NAMES = PersonNames("salt")


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    number: int


class Asked(BaseModel):
    user_id: int


class Answer(BaseModel):
    number: int


async def echo(body: Body) -> Response:
    return responses.ok(Answer(number=body.number), 201)


async def route(_: Request) -> Response:
    raise AssertionError("the gate answers calls itself")


async def crash(_: Request) -> Response:
    raise RuntimeError("postgresql://duet:hunter2@db/duet")


async def conflict(body: Body) -> Response:
    del body
    raise EventConflict("The event id belongs to another interaction.")


async def broken(body: Body) -> Response:
    del body
    raise TimeoutError("postgresql://duet:hunter2@db/duet")


async def foreign_500(_: Request) -> Response:
    return PlainTextResponse("Traceback (most recent call last)", 500)


async def refuse(body: Body) -> Response:
    del body
    raise Overloaded("More calls arrive than can be answered in time: try again.")


async def late(body: Body) -> Response:
    del body
    await asyncio.sleep(5)
    raise StorageUnavailable("never reached")


CALLS = {"/echo": echo, "/conflict": conflict, "/broken": broken, "/refuse": refuse, "/batch": late}


async def slow(_: Request) -> Response:
    await asyncio.sleep(5)
    raise StorageUnavailable("never reached")


def app(timeout_s: float = 1.0, *, cors: tuple[str, ...] = (), clock: Clock | None = None) -> ApiMiddleware:
    inner = Starlette(
        routes=[
            Route("/echo", route, methods=["POST"]),
            Route("/crash", crash),
            Route("/foreign", foreign_500),
            Route("/slow", slow),
        ]
    )
    clock, metrics = clock or SystemClock(), serving_metrics()
    limiter = Limiter(max_concurrency=4, max_queued=4, queue_timeout_s=0.05, clock=clock, metrics=metrics)
    gate: App = RequestChecks(
        inner,
        routes=Routes((ApiRoute("POST", path, path, Body, batch=path == "/batch") for path in CALLS), {"/pages"}),
        calls=CALLS,
        authenticator=Authenticator(Settings(), clock, metrics),
        limiter=limiter,
        max_body_bytes=100,
        timeout_s=timeout_s,
        name_person=NAMES,
    )
    return ApiMiddleware(CrossOrigin(gate, cors), clock=clock, metrics=metrics)


def send(method: str, path: str, middleware: ApiMiddleware | None = None, **kwargs: Any) -> httpx.Response:
    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(middleware or app(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://duet") as client:
            return await client.request(method, path, **kwargs)

    return asyncio.run(go())


def code_of(response: httpx.Response) -> str:
    body = response.json()
    assert set(body) == {"error", "request_id"}
    assert set(body["error"]) == {"code", "message", "details"}
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert TIME.fullmatch(response.headers["X-Process-Time"])
    return str(body["error"]["code"])


def post(content: bytes, content_type: str | None = "application/json", **headers: str) -> httpx.Response:
    if content_type is not None:
        headers["content-type"] = content_type
    return send("POST", "/echo", content=content, headers=headers)


def test_a_good_body_arrives_and_the_answer_carries_the_headers() -> None:
    response = post(b'{"number": 7}')
    assert (response.status_code, response.json()) == (201, {"number": 7})
    assert UUID(response.headers["X-Request-ID"])
    assert TIME.fullmatch(response.headers["X-Process-Time"])


def test_of_many_refusals_one_a_second_is_logged_with_how_many_there_were(clock: FixedClock) -> None:
    middleware = app(clock=clock)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            for _ in range(5):
                assert send("POST", "/refuse", middleware, json={"number": 7}).status_code == 503
            clock.advance(1.0)
    assert [line["refused"] for line in logs if line["event"] == "request"] == [1, 5, 5]


@pytest.mark.parametrize("closing", [False, True])
def test_a_call_that_is_refused_at_the_border_gets_what_the_gate_would_have_led_to(*, closing: bool) -> None:
    metrics, mine = serving_metrics(), str(uuid4())
    limiter = Limiter(max_concurrency=1, max_queued=0, queue_timeout_s=0.05, clock=SystemClock(), metrics=metrics)
    limiter.in_flight = 1

    async def gate(scope: Any, receive: Any, sent: Any) -> None:
        try:
            limiter.refuse_in_vain()
        except Overloaded as error:
            await responses.refusal(error, context.current().request_id)(scope, receive, sent)

    def refused(**authenticator: Any) -> httpx.Response:
        middleware = ApiMiddleware(gate, clock=SystemClock(), metrics=metrics, closing=lambda: closing, **authenticator)
        response = send("POST", "/v1/recommendations", middleware, json={}, headers={"X-Request-ID": mine})
        assert (response.status_code, code_of(response), response.headers["X-Request-ID"]) == (503, "overloaded", mine)
        return response

    at_border, at_gate = refused(overloaded=limiter.in_vain), refused()
    assert at_border.content == at_gate.content
    assert {**at_border.headers, "x-process-time": ""} == {**at_gate.headers, "x-process-time": ""}


def test_a_request_id_of_the_client_is_kept() -> None:
    mine = "checkout/7f.3:b"
    assert send("GET", "/crash", headers={"X-Request-ID": mine}).headers["X-Request-ID"] == mine


def test_one_of_no_sane_form_is_replaced() -> None:
    response = send("GET", "/crash", headers={"X-Request-ID": "'; drop table users; --"})
    assert UUID(response.headers["X-Request-ID"]).version == 4


def test_every_line_of_a_call_names_its_request_its_trace_and_its_person_but_no_id() -> None:
    headers = {"X-Request-ID": "mine-1", "traceparent": f"00-{'a' * 31}1-{'b' * 16}-01"}
    seen: list[dict[str, Any]] = []

    async def of_somebody(body: Asked) -> Response:
        seen.append(structlog.contextvars.get_contextvars())
        return responses.ok(Answer(number=body.user_id))

    clock, metrics = SystemClock(), serving_metrics()
    gate = RequestChecks(
        Starlette(),
        routes=Routes([ApiRoute("POST", "/asked", "ask", Asked)]),
        calls={"ask": of_somebody},
        authenticator=Authenticator(Settings(), clock, metrics),
        limiter=Limiter(max_concurrency=4, max_queued=4, queue_timeout_s=0.05, clock=clock, metrics=metrics),
        max_body_bytes=100,
        timeout_s=1.0,
        name_person=NAMES,
    )
    middleware = ApiMiddleware(gate, clock=clock, metrics=metrics)
    assert send("POST", "/asked", middleware, json={"user_id": 987654}, headers=headers).status_code == 200
    assert seen == [{"request_id": "mine-1", "trace_id": f"{'a' * 31}1", "person": NAMES(987654)}]


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/vnd.bentoml+pickle", "application/json; charset=latin-1"]
)
def test_anything_but_json_is_refused(content_type: str | None) -> None:
    response = post(b'{"number": 7}', content_type)
    assert (response.status_code, code_of(response)) == (415, UnsupportedMediaType.code)


def test_a_compressed_body_is_refused() -> None:
    response = post(b"\x1f\x8b", **{"content-encoding": "gzip"})
    assert (response.status_code, code_of(response)) == (415, UnsupportedMediaType.code)


def test_a_charset_of_utf_8_is_accepted() -> None:
    assert post(b'{"number": 7}', 'application/json; charset="UTF-8"').status_code == 201


def test_a_body_that_says_it_is_too_large_is_refused_unread() -> None:
    response = post(b'{"number": 7}' + b" " * 100)
    assert (response.status_code, code_of(response)) == (413, BodyTooLarge.code)


def test_a_body_that_turns_out_too_large_is_refused() -> None:
    async def chunks() -> Any:
        for _ in range(30):
            yield b" " * 10

    async def go() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app()), base_url="http://duet") as client:
            return await client.post("/echo", content=chunks(), headers={"content-type": "application/json"})

    response = asyncio.run(go())
    assert (response.status_code, code_of(response)) == (413, BodyTooLarge.code)


def test_a_body_that_never_comes_is_not_waited_for() -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(5)
        return {"type": "http.request"}

    async def collect(message: Any) -> None:
        sent.append(dict(message))

    scope = {"type": "http", "method": "POST", "path": "/echo", "headers": [(b"content-type", b"application/json")]}
    asyncio.run(app(timeout_s=0.1)(scope, receive, collect))
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["error"]["code"] == BodyTimeout.code


def test_malformed_and_invalid_bodies_are_told_apart() -> None:
    malformed, invalid = post(b'{"number": NaN}'), post(b'{"number": "7", "more": 1}')
    assert (malformed.status_code, code_of(malformed)) == (400, "malformed_body")
    assert (invalid.status_code, code_of(invalid)) == (422, "invalid_request")
    assert {detail["field"] for detail in invalid.json()["error"]["details"]} == {"number", "more"}
    assert "pydantic" not in invalid.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, UnknownPath.code),
        ("POST", "/echo/", 404, UnknownPath.code),
        ("GET", "/echo", 405, WrongMethod.code),
        ("GET", "/crash", 500, InternalError.code),
        ("GET", "/foreign", 500, InternalError.code),
    ],
)
def test_every_error_leaves_in_the_envelope(method: str, path: str, status: int, code: str) -> None:
    response = send(method, path, content=b"{}", headers={"content-type": "text/plain"} if path != "/echo/" else {})
    assert (response.status_code, code_of(response)) == (status, code)


def test_a_wrong_method_says_which_are_right() -> None:
    response = send("GET", "/echo")
    assert response.headers["allow"] == "POST"
    assert response.json()["error"]["details"] == [{"field": "method", "message": "must be `POST`"}]


def test_a_slash_after_a_path_that_is_there_is_named() -> None:
    for method, path in (("POST", "/echo/"), ("GET", "/echo/"), ("GET", "/pages/")):
        (detail,) = send(method, path).json()["error"]["details"]
        assert detail == {"field": "path", "message": "must not end with a slash"}
    assert send("GET", "/nowhere/").json()["error"]["details"] == []


def test_what_went_wrong_inside_is_not_told() -> None:
    for path in ("/crash", "/foreign"):
        text = send("GET", path).text
        assert "hunter2" not in text
        assert "Traceback" not in text


def test_a_request_that_takes_too_long_is_answered_anyway() -> None:
    response = send("GET", "/slow", app(timeout_s=0.05))
    assert (response.status_code, code_of(response)) == (504, RequestTimeout.code)


def test_a_batch_that_takes_too_long_is_told_of_its_own_time() -> None:
    response = send("POST", "/batch", app(timeout_s=0.005), json={"number": 1})
    assert response.json()["error"]["message"] == "Not answered within 0.05 s: try again."


def test_each_request_has_its_own_context(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real: Callable[[], context.RequestContext] = context.current

    def watched() -> context.RequestContext:
        seen.append(real().request_id)
        return real()

    monkeypatch.setattr(context, "current", watched)
    first, second = (send("POST", "/conflict", json={"number": 1}) for _ in range(2))
    assert {first.headers["X-Request-ID"], second.headers["X-Request-ID"]} == set(seen)


ORIGIN = "https://app.example.com"


@pytest.mark.parametrize("path", ["/nowhere", "/crash", "/foreign", "/echo"])
def test_a_page_of_an_allowed_origin_may_read_errors_too(path: str) -> None:
    response = send("GET", path, app(cors=(ORIGIN,)), headers={"origin": ORIGIN})
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert code_of(response)


@pytest.mark.parametrize(("path", "error"), [("/conflict", EventConflict), ("/broken", InternalError)])
def test_whatever_a_call_raises_leaves_in_the_envelope_and_a_page_may_read_it(path: str, error: type[ApiError]) -> None:
    response = send("POST", path, app(cors=(ORIGIN,)), json={"number": 1}, headers={"origin": ORIGIN})
    assert (response.status_code, code_of(response)) == (error.status, error.code)
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "hunter2" not in response.text


def test_a_preflight_is_answered_with_our_headers() -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": "POST"}
    response = send("OPTIONS", "/echo", app(cors=(ORIGIN,)), headers=asked)
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert UUID(response.headers["X-Request-ID"])
    assert TIME.fullmatch(response.headers["X-Process-Time"])


@pytest.mark.parametrize("allowed", [(), (ORIGIN,)])
def test_a_refused_preflight_names_the_origin_and_the_setting(allowed: tuple[str, ...]) -> None:
    asked = {"origin": "https://elsewhere.example.com", "access-control-request-method": "POST"}
    response = send("OPTIONS", "/echo", app(cors=allowed), headers=asked)
    assert (response.status_code, code_of(response)) == (422, "invalid_request")
    (detail,) = response.json()["error"]["details"]
    assert detail["field"] == "Origin"
    assert "`https://elsewhere.example.com`" in detail["message"]
    assert "`DUET_SERVING__CORS_ORIGINS`" in detail["message"]
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    ("asked", "field", "named"),
    [
        ({"access-control-request-method": "TRACE"}, "Access-Control-Request-Method", "`TRACE`"),
        (
            {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key, x-mine"},
            "Access-Control-Request-Headers",
            "`x-mine`",
        ),
    ],
)
def test_a_preflight_for_what_no_call_takes_names_it(asked: dict[str, str], field: str, named: str) -> None:
    response = send("OPTIONS", "/echo", app(cors=(ORIGIN,)), headers={"origin": ORIGIN, **asked})
    (detail,) = response.json()["error"]["details"]
    assert (response.status_code, code_of(response), detail["field"]) == (422, "invalid_request", field)
    assert named in detail["message"]
