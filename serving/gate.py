"""What stands before BentoML's parsing, which takes any content type, any size, unknown fields and NaN.

A request passes these in order of their cost: is there time for it at all, who asks, how often, then the body (its
size, strict JSON, its shape), and at last a place to be worked on. So a refusal in an overload reads nothing.

What passed is handed at once to the function behind the `@bentoml.api` method of the service: BentoML's router, its
context and a second parse of the body would cost as much as a kept answer. Everything that is no call of the contract
goes on to BentoML.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import structlog
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from serving import context, responses, strict_json
from serving.access.door import Door
from serving.border import App, Message, Receive, Scope, Send
from serving.errors import (
    ApiError,
    BodyTimeout,
    BodyTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)
from serving.resilience.limiter import Limiter

OPEN = frozenset({"/health/live", "/health/ready", "/livez", "/readyz", "/healthz"})
"""Probes: they need no key and no place, because whoever asks them must learn the truth in an overload too."""


Call = Callable[[Any], Awaitable[Response]]


class Gate:
    """Guard `app`: `models` names the body that each POST path takes, `calls` what answers it; bytes and seconds.

    `calls` are looked up each time: BentoML makes the instance that has them after its middlewares. `name_person` gives
    the name that log lines have for a person's id.
    """

    def __init__(
        self,
        app: App,
        *,
        models: Mapping[str, type[BaseModel]],
        calls: Mapping[str, Call],
        door: Door,
        limiter: Limiter,
        max_body_bytes: int,
        timeout_s: float,
        name_person: Callable[[object], str],
    ) -> None:
        self._app = app
        self._models = models
        self._calls = calls
        self._door = door
        self._limiter = limiter
        self._max_body_bytes = max_body_bytes
        self._timeout_s = timeout_s
        self._name_person = name_person

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or refuse it in the envelope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reply = _Reply(send)
        try:
            model = self._models.get(scope["path"]) if scope["method"] == "POST" else None
            if model is None:
                self._look_at_page(scope)
                async with asyncio.timeout(self._timeout_s):
                    await self._app(scope, receive, reply.send)
            else:
                self._limiter.refuse_in_vain()
                async with asyncio.timeout(self._timeout_s):
                    response = await self._call(model, scope, receive)
                await response(scope, receive, reply.send)
        except (ApiError, TimeoutError) as error:
            if reply.begun:
                raise  # an answer is under way: a second one would break the connection for what comes after it
            reply.closed = True
            late = f"Not answered within {self._timeout_s} s: try again."
            refusal = error if isinstance(error, ApiError) else RequestTimeout(late)
            await responses.refusal(refusal, context.current().request_id)(scope, receive, send)

    def _look_at_page(self, scope: Scope) -> None:
        request, path = context.current(), scope["path"]
        if path in OPEN:
            return
        if path.startswith("/v1/"):
            request.caller = self._door.admit(request.headers)
        else:
            request.caller = self._door.admit_to_pages(request.headers, scope.get("client"))

    async def _call(self, model: type[BaseModel], scope: Scope, receive: Receive) -> Response:
        request = context.current()
        request.caller = self._door.admit(request.headers)
        await self._door.count(request.caller)
        _check_media_type(request.headers)
        body = await self._read(request.headers, receive)
        strict_json.check(body)
        try:
            asked = model.model_validate_json(body)
        except ValidationError as error:
            raise responses.invalid(error) from None
        self._name_in_logs(asked)
        async with self._limiter.place():
            try:
                return await self._calls[scope["path"]](asked)
            except ApiError:
                raise
            except Exception as error:  # the last resort of a call: logged, never shown to the client
                raise responses.defect(error) from error

    def _name_in_logs(self, asked: BaseModel) -> None:
        """Let every line that is logged of this call say whose it is, by a name that is no id."""
        for field in ("user_id", "actor_id"):
            user_id = getattr(asked, field, None)
            if user_id is not None:
                structlog.contextvars.bind_contextvars(person=self._name_person(user_id))

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


class _Reply:
    """Passes an answer on; `begun` once there is something of it, and nothing more when it is `closed`."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self.closed = False

    async def send(self, message: Message) -> None:
        if self.closed:
            return  # the time is over and the refusal is sent: what the app still says comes too late
        self.begun = True
        await self._send(message)


def _check_media_type(headers: Mapping[bytes, bytes]) -> None:
    given = headers.get(b"content-type", b"")
    if given != b"application/json":
        media_type, *parameters = given.decode("latin-1").lower().split(";")
        charsets = [value.strip().removeprefix("charset=").strip('"') for value in parameters if "charset=" in value]
        if media_type.strip() != responses.JSON or any(charset != "utf-8" for charset in charsets):
            raise UnsupportedMediaType("Send the body as `application/json` in UTF-8.")
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise UnsupportedMediaType("Send the body without a content encoding.")
