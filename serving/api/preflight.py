"""CORS as Starlette has it, with refusals that say what to do: the envelope, the origin, and the setting."""

from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from serving.api import context, responses
from serving.api.middleware import App
from serving.errors import InvalidRequest

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
HEADERS: Final = ("Authorization", "X-API-Key", "X-Request-ID", "traceparent", "X-Deadline-Ms", "X-Duet-Variant")
READABLE: Final = ("X-Request-ID", "X-Process-Time", "Retry-After")
_LONGEST_SHOWN: Final = 200


class CrossOrigin(CORSMiddleware):
    """Let pages of `origins` call `app`; a preflight request of any other is refused in the envelope."""

    def __init__(self, app: App, origins: tuple[str, ...], *, credentials: bool = False) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_credentials=credentials,
            allow_methods=METHODS,
            allow_headers=HEADERS,
            expose_headers=READABLE,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return what a browser asks for before a call, or why the page may not call."""
        allowed = super().preflight_response(request_headers)
        if allowed.status_code < 400:
            return allowed
        refused = responses.refusal(self._refusal(request_headers), context.current().request_id)
        kept = [pair for pair in allowed.raw_headers if pair[0].startswith((b"access-control-", b"vary"))]
        refused.raw_headers.extend(kept)
        return refused

    def _refusal(self, asked: Headers) -> InvalidRequest:
        origin, method = asked["origin"], asked["access-control-request-method"]
        if not self.is_allowed_origin(origin):
            return _refused(
                "Origin",
                f"pages of `{_shown(origin)}` may not call: add the origin to `DUET_SERVING__CORS_ORIGINS`",
            )
        if method not in METHODS:
            return _refused(
                "Access-Control-Request-Method", f"`{_shown(method)}` is no method of any call: send one of {METHODS}"
            )
        wanted = [name.strip() for name in asked.get("access-control-request-headers", "").split(",")]
        unknown = next((name for name in wanted if name.lower() not in self.allow_headers), "")
        return _refused(
            "Access-Control-Request-Headers",
            f"pages may not send the header `{_shown(unknown)}`: leave it out, and send keys as `X-API-Key`",
        )


def _refused(field: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"The preflight request is refused: {why}.", [{"field": field, "message": why}])


def _shown(text: str) -> str:
    return text[:_LONGEST_SHOWN]
