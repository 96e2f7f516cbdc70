"""Bounds of an HTTP connection before anything of it is parsed: bytes of the head, time for it, number of connections.

uvicorn with httptools has none of them: headers grow until memory ends while everybody else waits, and a connection
that never sends a whole request stays for ever. The protocol here is uvicorn's own with these bounds around it.
"""

import asyncio
import json
import os
from collections.abc import Collection, Iterable
from typing import Any, ClassVar, Final, NamedTuple, Self
from uuid import uuid4

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from infra.settings import ServingSettings

MAX_URL_BYTES = 8192
REFUSALS: Final = {
    "malformed_request": 400,
    "headers_timeout": 408,
    "url_too_long": 414,
    "headers_too_large": 431,
    "too_many_connections": 503,
}
"""The status of each refusal, by its code."""
_SLICE = 8192
"""Bytes that the parser gets at a time while a head is read: so much may come in beyond a bound."""
_LINGER_S = 2.0
"""How long a connection is kept that was answered before everything had come in."""
_DISCARDED_BYTES = 2**20
"""How much is still read of what was refused: a connection closed on unread bytes is reset, and its answer lost."""


class HttpLimits(NamedTuple):
    """The bounds of every connection of a process."""

    max_head_bytes: int = 32768
    head_timeout_s: float = 10.0
    max_connections: int = 500

    @classmethod
    def of(cls, settings: ServingSettings) -> Self:
        """Return those that these settings ask for."""
        return cls(settings.max_header_bytes, settings.header_timeout_s, settings.max_connections)


class LimitedHttp(HttpToolsProtocol):
    """One HTTP connection within bounds; beyond them it is answered in the envelope of every refusal, and closed."""

    limits: ClassVar[HttpLimits] = HttpLimits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head, if there is room for one more connection."""
        super().connection_made(transport)
        self.in_head = True
        self.since_s = self.loop.time()
        self._head_bytes = 0
        self._messages = 0
        self._discarded = 0
        self._refused = False
        self._timer: asyncio.TimerHandle | None = None
        if len(self.connections) > self.limits.max_connections:
            waiting = [one for one in _ours(self.connections) if one.in_head and one is not self]
            if not waiting:
                self._refuse("too_many_connections", "Too many connections are open: try again in a moment.")
                return
            # Whoever sends nothing makes room, the oldest first: else such connections would shut out all others.
            min(waiting, key=lambda one: one.since_s).transport.close()
        self._start_timer(self.limits.head_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the parser, those of a head in slices and counted."""
        if self._refused:
            self._discarded += len(data)
            if self._discarded > _DISCARDED_BYTES:
                self.transport.abort()
            return
        view, start = memoryview(data), 0
        while start < len(view) and self.in_head and not self._is_over():
            if self._timer is None:
                self._start_timer(self.limits.head_timeout_s)
            most = self.limits.max_head_bytes
            part = view[start : start + min(_SLICE, most - self._head_bytes)]
            if not part:
                self._refuse("headers_too_large", f"The headers are larger than {most} bytes.")
                break
            start += len(part)
            self._head_bytes += len(part)  # 0 again after a whole head
            super().data_received(bytes(part))
        if start < len(view) and not self._is_over():
            super().data_received(bytes(view[start:]))

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._messages += 1
        self.in_head = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._refuse("url_too_long", f"The address is longer than {MAX_URL_BYTES} bytes.")

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self.in_head = False
        self._head_bytes = 0
        self._stop_timer()
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request; the next one may begin."""
        self.in_head = True
        self.since_s = self.loop.time()
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Close the connection soon if nobody waits for the rest of a body: a trickle would keep it open for ever."""
        super().on_response_complete()
        if not self.in_head and not self.transport.is_closing():
            self.loop.call_later(_LINGER_S, self._close_within, self._messages)

    def _close_within(self, message: int) -> None:
        if message == self._messages and not self.in_head:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, and let nothing else be said on the connection."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's hint hides that there may be none
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started:
                self.transport.close()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        self._refuse("malformed_request", f"{msg} Send a method, a path and headers as RFC 9112 has them.")

    def _is_over(self) -> bool:
        return self._refused or self.transport.is_closing()

    def _start_timer(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            seconds = self.limits.head_timeout_s
            self._refuse("headers_timeout", f"The headers did not arrive within {seconds:g} s.")

    def _refuse(self, code: str, message: str) -> None:
        if self._is_over():
            return
        self._refused = True
        self._stop_timer()
        request_id = str(uuid4())
        error = {"code": code, "message": message, "details": []}
        body = json.dumps({"error": error, "request_id": request_id}).encode()
        head = b"content-type: application/json\r\nconnection: close\r\nx-request-id: %b\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(STATUS_LINE[REFUSALS[code]] + head % (request_id.encode(), len(body)) + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)


def limit_http(limits: HttpLimits) -> None:
    """Put every HTTP connection that uvicorn takes in this process within these bounds."""
    LimitedHttp.limits = limits
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:LimitedHttp"


def trust_proxies(addresses: Collection[str]) -> None:
    """Let uvicorn believe X-Forwarded-For of these addresses only; of itself it believes loopback."""
    os.environ["FORWARDED_ALLOW_IPS"] = ",".join(addresses) or "nobody"


def _ours(connections: Iterable[Any]) -> Iterable[LimitedHttp]:
    return (one for one in connections if isinstance(one, LimitedHttp))
