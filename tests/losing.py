"""A server before the served app that passes requests on and loses answers, as a network or a proxy does."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

HTML = b"<html>Bad gateway</html>"
# What belongs to one connection alone.
OWN_HEADERS = {"host", "connection", "content-length", "transfer-encoding", "server", "date"}


@dataclass
class Losing:
    """`losses` stand for the next answers, None for none lost; the app gets those requests unless `before` is set."""

    url: str = ""
    losses: list[int | None] = field(default_factory=list)
    before: bool = False
    seen_at: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@contextmanager
def losing(app: str, retry_after_s: int = 1) -> Iterator[Losing]:
    """Run the server before the app at a URL."""
    state = Losing()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            return

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            state.seen_at.append(time.monotonic())
            state.bodies.append(body)
            state.keys.append(self.headers.get("Authorization"))
            lost = state.losses.pop(0) if state.losses else None
            if lost is None or not state.before:
                headers = {name: value for name, value in self.headers.items() if name.lower() not in OWN_HEADERS}
                with httpx.Client(trust_env=False, timeout=20) as client:
                    answer = client.request(self.command, app + self.path, content=body, headers=headers)
            if lost is None:
                self.send(answer.status_code, dict(answer.headers), answer.content)
            else:
                self.send(lost, {"Retry-After": str(retry_after_s), "Content-Type": "text/html"}, HTML)

        def send(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in OWN_HEADERS:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self.pass_on()

        def do_POST(self) -> None:
            self.pass_on()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
