"""Attacks on a real Dagster web server: no link and no page of others changes anything, and the UI still works."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from infra.embedded.ports import free_port
from infra.settings import Settings
from infra.supervisor.probes import GraphqlProbe
from infra.web.token import bearer, guard_environment, web_token
from tests.conftest import make_settings

CHANGE = "mutation { setNuxSeen }"
LOOK = "{ version }"
LOGS = 'subscription { pipelineRunLogs(runId: "nobody") { __typename } }'
FOREIGN = {"Origin": "http://evil.example"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return make_settings(tmp_path_factory.mktemp("webserver"), web={"auth": "required"}, dagster={"port": free_port()})


@pytest.fixture(scope="module")
def server(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("home")
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    url = f"http://127.0.0.1:{settings.dagster.port}"
    command = ("--empty-workspace", "--host", "127.0.0.1", "--port", str(settings.dagster.port))
    environment = {**os.environ, **guard_environment(settings), "DAGSTER_HOME": str(home)}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.webserver", *command], env=environment, stdout=log, stderr=log
        )
    try:
        probe = GraphqlProbe(url, web_token(settings))
        while (refusal := probe.check()) is not None and "no answer" in refusal:
            assert process.poll() is None, Path(home / "log").read_text()
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def ask(server: str, settings: Settings) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, headers=bearer(web_token(settings)), timeout=60) as client:
        yield client


def test_a_mutation_goes_by_a_post_of_json_and_by_nothing_else(ask: httpx.Client) -> None:
    assert ask.get("/graphql", params={"query": CHANGE}).status_code == 405
    fragments = "query A { version } " + CHANGE.replace("mutation", "mutation B")
    assert ask.get("/graphql", params={"query": fragments, "operationName": "B"}).status_code == 405
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "text/plain; application/json"):
        answer = ask.post("/graphql", params={"query": CHANGE}, content="", headers={"Content-Type": content_type})
        assert answer.status_code == 415, content_type
    assert ask.post("/graphql", json={"query": "{ shouldShowNux }"}).json()["data"] == {"shouldShowNux": True}
    assert ask.post("/graphql", json={"query": CHANGE}).json()["data"] == {"setNuxSeen": True}
    assert ask.post("/graphql", json={"query": "{ shouldShowNux }"}).json()["data"] == {"shouldShowNux": False}
    assert "version" in ask.get("/graphql", params={"query": LOOK}).json()["data"]


def test_pages_of_others_foreign_hosts_and_whoever_has_no_token_are_refused(ask: httpx.Client, server: str) -> None:
    for headers in (FOREIGN, {"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}):
        assert ask.get("/graphql", params={"query": CHANGE}, headers=headers).status_code == 403, headers
        assert ask.post("/graphql", json={"query": LOOK}, headers=headers).status_code == 403, headers
        assert ask.post("/report_asset_materialization/a", headers=headers).status_code == 403, headers
    assert httpx.post(f"{server}/graphql", json={"query": LOOK}, timeout=60).status_code == 401
    assert httpx.get(f"{server}/logs/a/b.out", timeout=60).status_code == 401


def test_a_head_that_is_too_large_is_refused_before_anybody_is_asked_for_a_token(server: str) -> None:
    answer = httpx.get(server, headers={"X-Long": "a" * 60_000}, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (431, "headers_too_large")


def test_a_browser_that_opened_the_link_follows_the_logs_of_a_run(ask: httpx.Client, server: str) -> None:
    token = ask.headers["Authorization"].removeprefix("Bearer ")
    with httpx.Client(base_url=server, timeout=60, follow_redirects=True) as browser:
        assert "<html" in browser.get("/", params={"token": token}).text
        held = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    with _followed(server, {"Cookie": held, "Origin": server}) as websocket:
        websocket.send(json.dumps({"type": "connection_init"}))
        assert json.loads(websocket.recv(60)) == {"type": "connection_ack"}
        websocket.send(json.dumps({"type": "start", "id": "1", "payload": {"query": LOGS}}))
        assert json.loads(websocket.recv(60))["type"] == "data"
    for headers in ({"Cookie": held, **FOREIGN}, {"Origin": server}):
        with pytest.raises(InvalidStatus, match="403"):
            _followed(server, headers)


def _followed(server: str, headers: dict[str, Any]) -> ClientConnection:
    origin = headers.pop("Origin")
    url = f"{server.replace('http', 'ws', 1)}/graphql"
    return connect(url, origin=origin, additional_headers=headers, subprotocols=["graphql-ws"], proxy=None)  # type: ignore[list-item]
