import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from serving.commands import register
from serving.errors import NotServing, RefusedByService

ANSWER: dict[str, Any] = {
    "items": [
        {
            "user_id": 7,
            "position": 1,
            "score": 0.4104,
            "p_like": 0.72,
            "p_liked_back": None,
            "sources": ["retrieval", "content"],
            "explanation": {"p_like": [{"feature": "age_gap", "contribution": -0.5}], "p_liked_back": []},
        }
    ],
    "release": "e3-i3-r2",
    "order": "retrieval",
    "level": 1,
    "level_name": "full",
    "message": None,
    "timings_ms": {"total": 4.2},
    "request_id": "c9f0f895-fb98-4b91-9f5b-0242ac120003",
}


class Service(BaseHTTPRequestHandler):
    """Answers what the test put into `reply`, and keeps what it was asked."""

    reply: tuple[int, Any] = (200, ANSWER)
    asked: Any = None

    def do_POST(self) -> None:
        type(self).asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status, content = self.reply
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()
    Service.reply = (200, ANSWER)


def run(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *arguments: str) -> Any:
    monkeypatch.setenv("DUET_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DUET_SERVING__PORT", url.rpartition(":")[2])
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    return CliRunner().invoke(app, ["recommend", *arguments])


def test_a_table_of_people_is_printed(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = run(url, monkeypatch, tmp_path, "42", "--limit", "3", "--explain")
    assert result.exit_code == 0, result.output
    assert Service.asked == {"user_id": 42, "limit": 3, "explain": True}
    for shown in (
        "7",
        "0.410",
        "72%",
        "retrieval, content",
        "age_gap -0.50",
        "level 1 (full)",
        "e3-i3-r2",
        "order of the retrieval",
    ):
        assert shown in result.stdout


def test_people_are_named_as_they_came(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(url, monkeypatch, tmp_path, "anna-7").exit_code == 0
    assert Service.asked["user_id"] == "anna-7"


def test_json_is_the_answer_itself(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert json.loads(run(url, monkeypatch, tmp_path, "42", "--json").stdout) == ANSWER


def test_a_service_that_is_not_there_is_one_sentence(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = run("http://127.0.0.1:9", monkeypatch, tmp_path, "42")
    assert isinstance(result.exception, NotServing)
    assert "duet up" in str(result.exception)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((404, {"error": {"message": "Nobody has the id 42."}}), "Nobody has the id 42."),
        ((502, b"<html>"), "no answer of Duet"),
        ((200, {"unexpected": 1}), "no answer of Duet"),
    ],
)
def test_a_refusal_is_told(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reply: tuple[int, Any], said: str
) -> None:
    Service.reply = reply
    result = run(url, monkeypatch, tmp_path, "42")
    assert isinstance(result.exception, RefusedByService)
    assert said in str(result.exception)
