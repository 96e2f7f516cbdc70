"""`duet status` shows what serves, a pinned rollback, and why a release is refused."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from infra.cli.platform import asked, told
from infra.settings import Settings

HEALTH: dict[str, Any] = {
    "status": "degraded",
    "reasons": ["The versions do not make a release: index 2 [x] was built\nfrom embedding 1."],
    "release": {"release": "e1-i1-r1", "loaded_at": None, "refused": "…", "pinned": "e1-i1-r1"},
    "experiment": {"name": "taste", "state": "running", "challenger": "e2-i2-r2", "refused": None, "message": None},
    "population": {},
}


class Handler(BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_serving_says_of_its_releases_is_shown(
    settings: Settings, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "body", json.dumps(HEALTH).encode())
    found = asked(settings, url)
    assert found is not None
    assert set(found) == {"status", "reasons", "release", "experiment"}
    lines = "\n".join(told(found))
    assert "[bold]serves[/] e1-i1-r1" in lines
    assert "[yellow]pinned[/] e1-i1-r1" in lines
    assert "[bold]challenger[/] e2-i2-r2" in lines
    assert r"index 2 \[x] was built from embedding 1." in lines


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"nonsense"])
def test_a_service_that_says_something_else_says_nothing(
    settings: Settings, url: str, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(Handler, "body", body)
    assert asked(settings, url) is None
    assert told(None) == ["[yellow]serving[/] does not say what it serves"]


def test_a_service_that_is_away_says_nothing(settings: Settings) -> None:
    assert asked(settings, None) is None
    assert asked(settings, "http://127.0.0.1:1") is None
