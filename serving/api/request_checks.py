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
from urllib.parse import parse_qsl

import structlog
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from serving.access.authentication import Authenticator
from serving.api import context, responses, strict_json
from serving.api.id_lists import without_list
from serving.api.middleware import App, Message, Receive, Scope, Send
from serving.api.routing import ApiRoute, MatchedCall, Routes
from serving.errors import (
    ApiError,
    BodyTimeout,
    BodyTooLarge,
    InvalidRequest,
    RequestTimeout,
    UnsupportedMediaType,
)
from serving.resilience.limiter import Limiter

OPEN = frozenset({"/health/live", "/health/ready", "/livez", "/readyz", "/healthz"})
"""Probes: they need no key and no place, because whoever asks them must learn the truth in an overload too."""


Call = Callable[..., Awaitable[Response]]
"""Answers a call: takes its body, if it has one, then the parameters of its path as text."""
BATCH_BODIES = 16
"""How many times as many bytes as other bodies a large one may have."""
BATCH_TIMES = 10
"""How many times as long as another call a batch may take."""


class RequestChecks:
    """Guard `app`: `routes` are the calls, `calls` what answers each operation; bytes and seconds.

    `calls` are looked up each time: BentoML makes the instance that has them after its middlewares. `name_person` gives
    the name that log lines have for a person's id.
    """

    def __init__(
        self,
        app: App,
        *,
        routes: Routes,
        calls: Mapping[str, Call],
        authenticator: Authenticator,
        limiter: Limiter,
        max_body_bytes: int,
        timeout_s: float,
        name_person: Callable[[object], str],
    ) -> None:
        self._app = app
        self._routes = routes
        self._calls = calls
        self._authenticator = authenticator
        self._limiter = limiter
        self._max_body_bytes = max_body_bytes
        self._timeout_s = timeout_s
        self._name_person = name_person

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or refuse it in the envelope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reply, time_s = _Reply(send), self._timeout_s
        try:
            found = self._routes.find(scope)
            if found is None:
                self._look_at_page(scope)
                self._routes.refuse(scope)
                async with asyncio.timeout(time_s):
                    await self._app(scope, receive, reply.send)
            else:
                context.current().route = found.route.path
                self._limiter.refuse_in_vain()
                time_s *= BATCH_TIMES if found.route.batch else 1
                async with asyncio.timeout(time_s):
                    response = await self._call(found, scope, receive)
                await response(scope, receive, reply.send)
        except (ApiError, TimeoutError) as error:
            if reply.ended:
                return
            if reply.begun:
                raise  # an answer is under way: a second one would break the connection for what comes after it
            reply.closed = True
            late = f"Not answered within {time_s:g} s: try again."
            refusal = error if isinstance(error, ApiError) else RequestTimeout(late)
            await responses.refusal(refusal, context.current().request_id)(scope, receive, send)

    def _look_at_page(self, scope: Scope) -> None:
        request, path = context.current(), scope["path"]
        if path in OPEN:
            return
        if path.startswith("/v1/"):
            request.caller = self._authenticator.admit(request.headers)
        else:
            request.caller = self._authenticator.admit_to_pages(request.headers, scope.get("client"))

    async def _call(self, found: MatchedCall, scope: Scope, receive: Receive) -> Response:
        request, route = context.current(), found.route
        request.caller = self._authenticator.admit(request.headers)
        await self._authenticator.count(request.caller)
        asked: tuple[object, ...] = ()
        if route.body is not None:
            asked = (await self._asked(route, receive),)
        elif route.query is not None:
            asked = (_queried(route.query, scope.get("query_string", b"")),)
        self._name_in_logs(*asked, *found.parameters)
        async with self._limiter.place():
            try:
                return await self._calls[route.operation](*asked, *found.parameters)
            except ApiError:
                raise
            except Exception as error:  # the last resort of a call: logged, never shown to the client
                raise responses.defect(error) from error

    def _name_in_logs(self, *asked: object) -> None:
        """Let every line that is logged of this call say whose it is, by a name that is no id."""
        for part in asked:
            told = part if isinstance(part, str) else getattr(part, "user_id", getattr(part, "actor_id", None))
            if told is not None:
                structlog.contextvars.bind_contextvars(person=self._name_person(told))

    async def _asked(self, route: ApiRoute, receive: Receive) -> object:
        headers = context.current().headers
        _check_media_type(headers)
        if route.batch or route.large:
            body = await self._read(headers, receive, self._max_body_bytes * BATCH_BODIES)
            return await asyncio.to_thread(parsed, route, body)  # others must not wait for so much of it
        return parsed(route, await self._read(headers, receive, self._max_body_bytes))

    async def _read(self, headers: Mapping[bytes, bytes], receive: Receive, most: int) -> bytes:
        with suppress(ValueError):
            if int(headers.get(b"content-length", b"0")) > most:
                raise _too_large(most)
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
                    if size > most:
                        raise _too_large(most)
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            raise BodyTimeout(f"The body did not arrive within {self._timeout_s / 2} s.") from None


class _Reply:
    """Passes an answer on; `begun` from its first part, `ended` after its last, and nothing when it is `closed`."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self.ended = False
        self.closed = False

    async def send(self, message: Message) -> None:
        if self.closed:
            return  # the time is over and the refusal is sent: what the app still says comes too late
        self.begun = True
        await self._send(message)
        self.ended = message["type"] == "http.response.body" and not message.get("more_body", False)


def _too_large(most: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {most} bytes.")


def _queried(model: type[BaseModel], query: bytes) -> object:
    try:
        fields = dict(
            parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=bool(query), errors="strict")
        )
        return model.model_validate_strings(fields)
    except ValidationError as error:
        raise responses.invalid(error) from None
    except ValueError:
        raise InvalidRequest(
            "The query is not of the form `name=value&name=value`, percent-encoded in UTF-8."
        ) from None


def parsed(route: ApiRoute, body: bytes) -> object:
    """Return the body of a call as its model; raises MalformedBody and InvalidRequest."""
    if route.ids is not None:
        field, _ = route.ids
        cut = without_list(body, *route.ids)
        if cut is not None:
            with suppress(ApiError):  # what is wrong is told of the whole body
                asked = _parsed_whole(route, cut[0])
                if getattr(asked, field) is not None:  # else the list was that of another field of this name
                    return asked.with_ids(cut[1])
    return _parsed_whole(route, body)


def _parsed_whole(route: ApiRoute, body: bytes) -> Any:
    strict_json.check(body)
    try:
        try:
            return route.body.model_validate_json(body) if route.body is not None else None
        except ValidationError:
            if route.named is None:
                raise
            return route.named.model_validate_json(body)
    except ValidationError as error:
        raise responses.invalid(error) from None


def _check_media_type(headers: Mapping[bytes, bytes]) -> None:
    given = headers.get(b"content-type", b"")
    if given != b"application/json":
        media_type, *parameters = given.decode("latin-1").lower().split(";")
        charsets = [value.strip().removeprefix("charset=").strip('"') for value in parameters if "charset=" in value]
        if media_type.strip() != responses.JSON or any(charset != "utf-8" for charset in charsets):
            raise UnsupportedMediaType("Send the body as `application/json` in UTF-8.")
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise UnsupportedMediaType("Send the body without a content encoding.")
