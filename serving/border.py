"""The border between the network and BentoML: a plain ASGI middleware around the whole service.

BentoML parses any content type, takes bodies of any size, ignores unknown fields, reads NaN as null and answers errors
in three shapes. So every request is limited, parsed strictly and validated here first, gets its request id, and every
error leaves in one envelope, those that BentoML's router made included.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

import structlog
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from infra.clock import Clock
from infra.metrics import serving_metrics
from serving import context, responses, strict_json
from serving.context import RequestContext
from serving.errors import (
    ApiError,
    BodyTimeout,
    BodyTooLarge,
    InternalError,
    InvalidRequest,
    RequestTimeout,
    UnknownPath,
    UnsupportedMediaType,
    WrongMethod,
)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PAGES = frozenset({"/health", "/health/live", "/health/ready", "/metrics", "/docs.json"})
"""Routes that metrics name beside the two calls; every other path is `other`."""
_log = structlog.get_logger(__name__)


class Border:
    """Guard `app`: `models` names the body that each POST path takes; sizes in bytes, times in s."""

    def __init__(
        self, app: App, *, models: Mapping[str, type[BaseModel]], max_body_bytes: int, timeout_s: float, clock: Clock
    ) -> None:
        self._app = app
        self._models = models
        self._max_body_bytes = max_body_bytes
        self._timeout_s = timeout_s
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        request = RequestContext(context.accept_request_id(headers.get(b"x-request-id")), self._clock.monotonic())
        context.enter(request)
        outlet = _Outlet(scope, receive, send, request, self._clock)
        with structlog.contextvars.bound_contextvars(request_id=str(request.request_id)):
            try:
                async with asyncio.timeout(self._timeout_s):
                    inlet = await self._inlet(scope, headers, receive)
                    await self._app(scope, inlet, outlet.send)
            except ApiError as error:
                await outlet.refuse(error)
            except TimeoutError:
                await outlet.refuse(RequestTimeout(f"Not answered within {self._timeout_s} s: try again."))
            except Exception as error:  # noqa: BLE001 nothing leaves without the envelope; defect() logs it
                await outlet.refuse(responses.defect(error))
            self._measure(scope, outlet)
            answer = {} if request.answer_id is None else {"answer_id": str(request.answer_id)}
            _log.info("request", method=scope["method"], status=outlet.status, ms=outlet.elapsed_ms(), **answer)

    def _measure(self, scope: Scope, outlet: "_Outlet") -> None:
        path = scope["path"]
        route = path if path in self._models or path in PAGES else "other"
        metrics = serving_metrics()
        metrics.requests.labels(route, str(outlet.status)).inc()
        metrics.request_seconds.labels(route).observe(outlet.elapsed_ms() / 1000)

    async def _inlet(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive) -> Receive:
        model = self._models.get(scope["path"]) if scope["method"] == "POST" else None
        if model is None:
            return receive
        _check_media_type(headers)
        body = await self._read(headers, receive)
        strict_json.check(body)
        try:
            model.model_validate_json(body)
        except ValidationError as error:
            raise responses.invalid(error) from None
        return _replay(body, receive)

    async def _read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        with suppress(ValueError):
            if int(headers.get(b"content-length", b"0")) > self._max_body_bytes:
                raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._timeout_s / 2):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise BodyTimeout("The connection closed before the body was complete.")
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > self._max_body_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            raise BodyTimeout(f"The body did not arrive within {self._timeout_s / 2} s.") from None

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self._max_body_bytes} bytes.")


class _Outlet:
    """Adds our headers to what leaves, and replaces every error body that is not ours."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request: RequestContext, clock: Clock) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._request = request
        self._clock = clock
        self._replaced = False
        self.status: int | None = None

    def elapsed_ms(self) -> float:
        return round((self._clock.monotonic() - self._request.started_s) * 1000, 3)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            status = int(message["status"])
            error = None if self._request.answered_by_us else _foreign_error(status, self._scope)
            if error is not None:
                allow = [pair for pair in message.get("headers", []) if pair[0].lower() == b"allow"]
                self._replaced = True
                await self._respond(responses.refusal(error, self._request.request_id), allow)
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
        return [
            (b"x-request-id", str(self._request.request_id).encode()),
            (b"x-process-time", f"{seconds:.6f}".encode()),
        ]


def _check_media_type(headers: Mapping[bytes, bytes]) -> None:
    media_type, *parameters = headers.get(b"content-type", b"").decode("latin-1").lower().split(";")
    charsets = [value.strip().removeprefix("charset=").strip('"') for value in parameters if "charset=" in value]
    if media_type.strip() != responses.JSON or any(charset != "utf-8" for charset in charsets):
        raise UnsupportedMediaType("Send the body as `application/json` in UTF-8.")
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise UnsupportedMediaType("Send the body without a content encoding.")


def _replay(body: bytes, receive: Receive) -> Receive:
    pending = [body]

    async def replay() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replay


def _foreign_error(status: int, scope: Scope) -> ApiError | None:
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
