"""HTTP/1.1 over kept-alive connections with as little CPU per request as Python allows.

The client shares the machine with the service, so every microsecond it spends is missing there. It knows the one kind
of answer that the service gives: a status, a length, a body.
"""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, Final

_HEADERS_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"

Done = Callable[[int, bytes, float], None]
"""Called with the status (0 when the connection broke), the body, and the monotonic time of its last byte."""


class Connection(asyncio.Protocol):
    """One connection; `send` may be called again once the answer before is there."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._body_at = -1
        self._length = 0
        self._done: Done | None = None

    @property
    def is_open(self) -> bool:
        """Return whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]

    def send(self, request: bytes, done: Done) -> None:
        """Send a whole request; `done` is called exactly once."""
        self._done = done
        if self._transport is None or self._transport.is_closing():
            self._finish(0, b"")
            return
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Gather an answer and hand it over when it is whole."""
        self._received += data
        if self._body_at < 0:
            end = self._received.find(_HEADERS_END)
            if end < 0:
                return
            head = bytes(self._received[:end]).lower()
            self._body_at = end + len(_HEADERS_END)
            self._length = _content_length(head)
        if len(self._received) - self._body_at >= self._length:
            status = int(self._received[9:12])
            body = bytes(self._received[self._body_at : self._body_at + self._length])
            self._received.clear()
            self._body_at = -1
            self._finish(status, body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits that no answer will come."""
        del exc
        self._transport = None
        self._received.clear()
        self._body_at = -1
        self._finish(0, b"")

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _finish(self, status: int, body: bytes) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(status, body, time.monotonic())


def _content_length(head: bytes) -> int:
    at = head.find(_LENGTH)
    if at < 0:
        return 0
    return int(head[at + len(_LENGTH) :].partition(b"\r\n")[0])


def post(host: str, port: int, path: str, body: dict[str, Any]) -> bytes:
    """Return the bytes of a POST request with a JSON body."""
    content = json.dumps(body, separators=(",", ":")).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def connect(host: str, port: int) -> Connection:
    """Open a connection; raises OSError."""
    _, protocol = await asyncio.get_running_loop().create_connection(Connection, host, port)
    return protocol
