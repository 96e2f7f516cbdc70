"""The ASGI middleware around the whole service.

It gives each request an id and measures its time. Every error leaves in one envelope, also those of BentoML's router,
which answers errors in three shapes. `serving.api.request_checks` decides what is let in; the CORS headers are added
between the two, so that refusals carry them as well.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

import structlog
from starlette.responses import Response

from infra import tracing
from infra.clock import Clock
from infra.metrics import ServingMetrics
from serving.api import context, responses
from serving.api.context import RequestContext
from serving.api.models import INTERACTIONS
from serving.api.recommendation_models import RECOMMENDATIONS
from serving.api.request_ids import TraceParent, accept_request_id, accept_traceparent
from serving.errors import ApiError, InternalError, InvalidRequest, Overloaded, UnknownPath, WrongMethod

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CALLS = frozenset({RECOMMENDATIONS, INTERACTIONS})
"""What apps call most: in an overload, it is refused before anything else is looked at."""
PAGES = frozenset({"/health", "/health/live", "/health/ready", "/metrics", "/docs.json", "/docs", "/openapi.json"})
"""Routes that metrics name beside the calls; every other path is `other`."""
_KEPT = (b"allow", b"vary", b"access-control-")
"""Headers of somebody else's error that our envelope keeps, by the start of their name."""
_REFUSALS_EVERY_S = 1.0
_log = structlog.get_logger(__name__)


class ApiMiddleware:
    """Give each request of `app` its id, its times and its envelope.

    `logged_share` of the requests without an error are logged, and one refusal (503) a second, with how many there were
    since the last; `closing`, asked once for each request, tells whether its connection should end with the answer.
    `overloaded` says of a call why it cannot be taken just now.
    """

    def __init__(
        self,
        app: App,
        *,
        clock: Clock,
        metrics: ServingMetrics,
        logged_share: float = 1.0,
        closing: Callable[[], bool] = lambda: False,
        overloaded: Callable[[], Overloaded | None] | None = None,
    ) -> None:
        self._app = app
        self._overloaded = overloaded
        self._clock = clock
        # A series is looked up once: that costs more than counting. The labels are closed sets.
        self._requests = lru_cache(maxsize=None)(metrics.requests.labels)
        self._request_seconds = lru_cache(maxsize=None)(metrics.request_seconds.labels)
        self._logged_share = logged_share
        self._closing = closing
        self._unlogged = 1.0
        self._refused = 0
        self._refusal_logged_s = -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = self._clock.monotonic()
        headers = {name.lower(): value for name, value in scope["headers"]}
        request_id = accept_request_id(headers.get(b"x-request-id"))
        if self._overloaded is not None and scope["path"] in CALLS and scope["method"] == "POST":
            refusal = self._overloaded()
            if refusal is not None:
                await self._refuse_at_once(refusal, scope, send, request_id, started_s)
                return
        request = RequestContext(request_id, started_s, headers)
        context.enter(request)
        # Never unbound: each request runs in a task of its own, whose context ends with it.
        caller = accept_traceparent(headers.get(b"traceparent"))
        structlog.contextvars.bind_contextvars(
            request_id=request_id, **({} if caller is None else {"trace_id": caller.trace_id})
        )
        outlet = _Outlet(scope, receive, send, request, self._clock, closing=self._closing())
        with self._traced(scope, caller) as traced:
            try:
                await self._app(scope, receive, outlet.send)
            except Exception as error:  # noqa: BLE001 nothing leaves without the envelope; defect() logs it
                await outlet.refuse(responses.defect(error))
            if traced is not None:
                if request.route is not None:
                    traced.update_name(f"{scope['method']} {request.route}")
                traced.set_attributes({"http.response.status_code": outlet.status or 0, "duet.request_id": request_id})
        answer = {} if request.answer_id is None else {"answer_id": str(request.answer_id)}
        self._account(scope, request.route, outlet.status or 0, started_s, **answer)

    @staticmethod
    def _traced(scope: Scope, caller: TraceParent | None) -> AbstractContextManager[Any]:
        name = f"{scope['method']} {_route(scope['path'])}"
        if caller is None:
            return tracing.request_span(name)
        return tracing.request_span(name, caller.trace_id, caller.span_id, sampled=caller.sampled)

    async def _refuse_at_once(
        self, refusal: Overloaded, scope: Scope, send: Send, request_id: str, started_s: float
    ) -> None:
        """Refuse as the request checks would, at a fraction of the cost: an overload refuses more than it answers."""
        response = responses.refusal_at_once(refusal, request_id)
        response.headers += _own_headers(request_id, self._clock.monotonic() - started_s, closing=self._closing())
        await send({"type": "http.response.start", "status": refusal.status, "headers": response.headers})
        await send({"type": "http.response.body", "body": response.body})
        self._account(scope, scope["path"], refusal.status, started_s, request_id=request_id)

    def _account(self, scope: Scope, call: str | None, status: int, started_s: float, **more: object) -> None:
        route, seconds = call or _route(scope["path"]), self._clock.monotonic() - started_s
        self._requests(route, str(status)).inc()
        self._request_seconds(route).observe(seconds)
        if status == 503:
            # Writing a line costs more than the refusal: in an overload the time would be missing in answers.
            self._refused += 1
            if started_s - self._refusal_logged_s < _REFUSALS_EVERY_S:
                return
            more["refused"] = self._refused
            self._refused, self._refusal_logged_s = 0, started_s
        elif status < 400:
            self._unlogged += self._logged_share
            if self._unlogged < 1:
                return
            self._unlogged -= 1
        _log.info("request", method=scope["method"], route=route, status=status, ms=round(seconds * 1000, 3), **more)


def _route(path: str) -> str:
    return path if path in CALLS or path in PAGES else "other"


class _Outlet:
    """Adds our headers to what leaves, and replaces every error body that is not ours."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, request: RequestContext, clock: Clock, *, closing: bool
    ) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._request = request
        self._clock = clock
        self._closing = closing
        self._replaced = False
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            status = int(message["status"])
            error = None if self._request.answered_by_us else _foreign_error(status, self._scope)
            if error is not None:
                kept = [pair for pair in message.get("headers", []) if pair[0].lower().startswith(_KEPT)]
                self._replaced = True
                await self._respond(responses.refusal(error, self._request.request_id), kept)
                return
            self.status = status
            message = {**message, "headers": [*message.get("headers", []), *self._headers()]}
        elif self._replaced:
            return
        await self._send(message)

    async def refuse(self, error: ApiError) -> None:
        if self.status is not None:
            raise error  # too late for an envelope: the server closes the connection
        await self._respond(responses.refusal(error, self._request.request_id), [])

    async def _respond(self, response: Response, extra: list[tuple[bytes, bytes]]) -> None:
        self.status = response.status_code
        response.raw_headers.extend([*extra, *self._headers()])
        await response(self._scope, self._receive, self._send)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        seconds = self._clock.monotonic() - self._request.started_s
        return _own_headers(self._request.request_id, seconds, closing=self._closing)


def _own_headers(request_id: str, seconds: float, *, closing: bool) -> list[tuple[bytes, bytes]]:
    ours = [(b"x-request-id", request_id.encode()), (b"x-process-time", f"{seconds:.6f}".encode())]
    return [*ours, (b"connection", b"close")] if closing else ours


def _foreign_error(status: int, scope: Mapping[str, Any]) -> ApiError | None:
    """Return our error for a status that something else than our code answered with."""
    if status < 300 or status == 304:
        return None
    if status == 405:
        return WrongMethod(f"`{scope['method']}` is not a method of this path.")
    if status == 404 or status < 400:
        # The router's redirect to the same path without its slash would echo the Host header: refused instead.
        return UnknownPath("There is nothing at this path: the routes are in /docs.json.")
    if status < 500:
        return InvalidRequest("The request was refused.")
    return InternalError("Something went wrong on our side: tell us the request id.")
