"""ASGI middleware around MLflow and Dagster: refuses foreign hosts, foreign pages and whoever has no token.

A browser gives the token once, in a link, and gets a cookie that scripts cannot read; programs send it as a Bearer
token. Health pages are open: they say nothing, and probes have no token.
"""

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from starlette.responses import PlainTextResponse, RedirectResponse, Response

from infra.settings import Settings
from infra.web.origins import host_refusal, origin_refusal
from infra.web.token import PARAMETER, cookie, web_token

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset({"/health", "/server_info"})
_MONTH_S = 30 * 86_400
_SINGLE = frozenset({"host", "origin", "authorization", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest"})


@dataclass(frozen=True)
class GuardOptions:
    """What the middleware goes by: the address the server listens on, its other names, and the token, if any."""

    listens_on: str
    allowed_hosts: tuple[str, ...] = ()
    token: str | None = None


def guard_options(settings: Settings, listens_on: str) -> GuardOptions:
    """Return the options of a server of this platform that listens on the address."""
    return GuardOptions(listens_on, settings.web.allowed_hosts, web_token(settings))


class AccessMiddleware:
    """Let a request through to `app` if it may come in, answer it otherwise."""

    def __init__(self, app: App, options: GuardOptions) -> None:
        self._app = app
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or one WebSocket handshake."""
        if scope["type"] not in {"http", "websocket"} or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        answer = self._answer(scope)
        if answer is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await answer(scope, receive, send)

    def _answer(self, scope: Scope) -> Response | None:
        """Return what the request gets instead of a page, None when it may have the page."""
        headers: dict[str, str] = {}
        for raw_name, value in scope["headers"]:
            name = raw_name.decode("latin-1").lower()
            if name in headers and name in _SINGLE:
                return PlainTextResponse(f"The header `{name}` stands there twice.", 400)
            headers[name] = (
                f"{headers[name]}; {value.decode('latin-1')}" if name in headers else value.decode("latin-1")
            )
        allowed = self._options.allowed_hosts
        refusal = host_refusal(headers.get("host"), self._options.listens_on, allowed) or origin_refusal(
            headers, scope.get("method", "WEBSOCKET"), allowed
        )
        if refusal is not None:
            return PlainTextResponse(refusal, 403)
        token = self._options.token
        if token is None or _has_token(headers, token):
            return None
        return _exchanged(scope, headers, token) or PlainTextResponse(
            "This server asks for a token: open the link that `duet status` prints, or send it as a Bearer token"
            " (MLFLOW_TRACKING_TOKEN for MLflow's client).",
            401,
            {"WWW-Authenticate": "Bearer"},
        )


def _has_token(headers: dict[str, str], token: str) -> bool:
    scheme, _, presented = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and _same(presented.strip(), token):
        return True
    name, value = cookie(token)
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return False
    return found is not None and _same(found.value, value)


def _exchanged(scope: Scope, headers: dict[str, str], token: str) -> Response | None:
    """Return the redirect that turns a token in the address into a cookie, None when there is no right one."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return None
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    given = [value for name, value in query if name == PARAMETER]
    if not given or not all(_same(value, token) for value in given):
        return None
    left = urlencode([pair for pair in query if pair[0] != PARAMETER])
    # The server logs the address after the answer began: the token must be gone from it by then.
    scope["query_string"] = left.encode("ascii")
    path = quote("/" + scope["path"].lstrip("/\\"))  # `//host` would lead away
    answer = RedirectResponse(f"{path}?{left}" if left else path, 303, {"Referrer-Policy": "no-referrer"})
    name, value = cookie(token)
    # Who claims TLS in vain only loses a cookie of their own.
    is_secure = scope["scheme"] == "https" or headers.get("x-forwarded-proto", "").startswith("https")
    answer.set_cookie(name, value, max_age=_MONTH_S, httponly=True, samesite="lax", secure=is_secure)
    return answer


def _same(presented: str, wanted: str) -> bool:
    return hmac.compare_digest(presented.encode("utf-8", "replace"), wanted.encode())
