"""A receiver of alerts and of webhook deliveries on a free port of this machine."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Webhook(ThreadingHTTPServer):
    """A receiver of alerts: keeps what it is sent, and answers with a status or not at all."""

    daemon_threads = True
    request_queue_size = 128  # of the default, 5, twenty deliveries at once lose one to a dropped SYN now and then

    def __init__(self, status: int | None, word: str) -> None:
        self.word = word
        self.received: list[dict[str, Any]] = []
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.status = status
        self.ended = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hooks/{self.word}"


class _Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.server.received.append(json.loads(body))
        if self.server.status is None:
            self.server.ended.wait(60)
            return
        self.send_response(self.server.status)
        if 300 <= self.server.status < 400:
            self.send_header("location", self.server.url)
        self.end_headers()

    def log_message(self, *_words: Any) -> None:
        """Say nothing."""


@contextmanager
def listening(status: int | None, word: str = "of-the-test") -> Iterator[Webhook]:
    """Listen for alerts; `status` None keeps the caller waiting."""
    with Webhook(status, word) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
