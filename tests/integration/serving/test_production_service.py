"""The service as it runs in production: two workers, keys needed, JSON logs, a page of one origin allowed."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from infra.db.postgres import connect
from infra.endpoints import Endpoints
from infra.settings import load_settings
from serving.access.store import create_key
from tests.conftest import empty_tables
from tests.serving_process import ROOT, ServingProcess, serving_process
from tests.serving_world import insert_people
from tests.waiting import until
from tests.webhook import Webhook, listening

ORIGIN = "https://app.example.com"
WEBHOOK_WORD = "hook-of-the-test-7431"
WEBHOOK_SECRET = "whsec_c2lnbmVkIHdpdGggdGhpcyBrZXkgb2YgYSB0ZXN0"
ASK = {"user_id": 987654, "limit": 3}


@dataclass
class Closed:
    """The running service and keys for it."""

    service: ServingProcess
    client: httpx.Client
    key: str
    small_key: str
    webhook: Webhook

    def ask(self, key: str | None = None, **headers: str) -> httpx.Response:
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        return self.client.post("/v1/recommendations", json=ASK, headers=headers)

    def series(self, name: str) -> dict[str, float]:
        """Return the series of one metric, by labels, as a scrape shows them."""
        text = self.client.get("/metrics", headers={"x-api-key": self.key}).text
        found = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE)
        return {labels: float(value) for labels, value in found}


@pytest.fixture(scope="module")
def closed(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    with connect(endpoints.database_url) as connection:
        empty_tables(connection)
        insert_people(connection, 40)
        key = create_key(connection, "website")
        small_key = create_key(connection, "small", requests_per_minute=2)
        connection.commit()
    with (
        listening(204, WEBHOOK_WORD) as webhook,
        serving_process(
            endpoints,
            tmp_path_factory.mktemp("production"),
            ENVIRONMENT="production",
            SERVING__WORKERS="2",
            SERVING__CORS_ORIGINS=f"{ORIGIN}, https://other.example.com",
            SERVING__AUTH__REFRESH_S="0.2",
            SERVING__HEADER_TIMEOUT_S="3",
            LOGGING__REQUEST_SHARE="1",
            WEBHOOKS__URL=webhook.url,
            WEBHOOKS__SECRET=WEBHOOK_SECRET,
            WEBHOOKS__ALLOW_PRIVATE="true",
            STREAM__ENABLED="true",
        ) as service,
        # A connection for each request, so that both workers answer.
        httpx.Client(base_url=service.url, timeout=20, trust_env=False, headers={"connection": "close"}) as client,
    ):
        yield Closed(service, client, key, small_key, webhook)


def test_a_call_needs_a_key_and_a_refusal_says_so_in_the_envelope(closed: Closed) -> None:
    for refused in (closed.ask(), closed.ask("duet_wrong"), closed.ask(closed.key[:-1] + "x")):
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert UUID(refused.headers["x-request-id"])
        assert re.fullmatch(r"\d+\.\d+", refused.headers["x-process-time"])
    answered = [
        closed.ask(closed.key),
        closed.client.post("/v1/recommendations", json=ASK, headers={"x-api-key": closed.key}),
    ]
    assert [answer.json()["error"]["code"] for answer in answered] == ["unknown_user"] * 2  # past the door


def test_probes_are_open_and_pages_are_for_a_key_or_the_token_of_the_service_itself(closed: Closed) -> None:
    outside = {"x-forwarded-for": "192.0.2.7"}
    own = (closed.service.log.parent / "duet" / "secrets" / "web_token").read_text().strip()
    assert closed.client.get("/health/live", headers=outside).status_code == 200
    # One of the workers may still be loading, or the machine too busy for Postgres' pulse.
    wait_until(lambda: closed.client.get("/health/ready", headers=outside).status_code == 200)
    for path in ("/health", "/metrics", "/docs.json", "/", "/schema.json"):
        assert closed.client.get(path, headers=outside).status_code == 401
        assert closed.client.get(path, headers={**outside, "x-api-key": closed.key}).status_code == 200
        bare = httpx.get(closed.service.url + path, trust_env=False, timeout=20)  # this machine, or a proxy on it
        assert bare.status_code == 401
        assert closed.client.get(path, headers={"authorization": f"Bearer {own}"}).status_code == 200


def test_a_flood_of_headers_and_connections_that_say_nothing_hold_up_no_probe(closed: Closed) -> None:
    address = ("127.0.0.1", closed.service.port)
    silent = [socket.create_connection(address) for _ in range(50)]
    for _ in range(4):
        with socket.create_connection(address, timeout=30) as flood:
            sent = 0
            with contextlib.suppress(OSError):  # closed on us
                flood.sendall(b"GET /health/live HTTP/1.1\r\n")
                for number in range(100_000):  # 100 MB
                    flood.sendall(b"X-%d: %s\r\n" % (number, b"a" * 1000))
                    sent += 1000
            assert sent < 50_000_000
            assert closed.client.get("/health/live").status_code == 200
    for connection in silent:
        connection.settimeout(60)
        assert connection.recv(100).startswith(b"HTTP/1.1 408")
        connection.close()


def test_a_key_has_its_own_limit_and_says_when_to_come_again(closed: Closed) -> None:
    answers = [closed.ask(closed.small_key) for _ in range(12)]
    limited = [answer for answer in answers if answer.status_code == 429]
    assert 12 - len(limited) <= 2 * 2  # each of two workers counts for itself
    assert limited[0].json()["error"]["code"] == "rate_limited"
    assert 1 <= int(limited[0].headers["retry-after"]) <= 60
    assert closed.ask(closed.key).status_code == 404


def test_pages_of_allowed_origins_may_ask_and_read_refusals(closed: Closed) -> None:
    preflight = closed.client.options(
        "/v1/recommendations",
        headers={
            "origin": ORIGIN,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, content-type",
        },
    )
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert UUID(preflight.headers["x-request-id"])
    refused = closed.ask(origin=ORIGIN)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)
    assert "access-control-allow-origin" not in closed.ask(origin="https://elsewhere.example.com").headers


def test_a_revoked_key_is_refused_by_every_worker_soon(closed: Closed, endpoints: Endpoints) -> None:
    with connect(endpoints.database_url) as connection:
        gone = create_key(connection, "gone")
        connection.commit()
        wait_until(lambda: all(closed.ask(gone).status_code == 404 for _ in range(6)))
        connection.execute("update duet.api_keys set revoked_at = now() where name = 'gone'")
        connection.commit()
    wait_until(lambda: all(closed.ask(gone).status_code == 401 for _ in range(6)))


def test_health_names_every_part_and_no_secret(closed: Closed, endpoints: Endpoints) -> None:
    report = closed.client.get("/health", headers={"x-api-key": closed.key}).json()
    assert report["keys"] == {"needed": True, "known": True, "message": None}
    assert report["postgres"]["status"] == report["redis"]["status"] == "up"
    assert report["pools"]["primary"]["most"] > 0
    assert report["limiter"] == {"in_flight": 0, "queued": 0, "most": 16}
    assert not secrets_in(json.dumps(report), closed, endpoints)


def test_a_match_and_a_block_reach_the_webhook_of_the_app(closed: Closed) -> None:
    def did(actor: int, kind: str, target: int) -> str:
        event = {"event_id": str(uuid4()), "actor_id": actor, "target_id": target, "kind": kind}

        def stored() -> bool:
            answer = closed.client.post("/v1/interactions", json=event, headers={"x-api-key": closed.key})
            return answer.status_code in {200, 201}  # a busy machine refuses some, and they are sent again

        wait_until(stored)
        return str(event["event_id"])

    did(31, "like", 32)
    made = [did(32, "like", 31), did(31, "block", 34)]
    wait_until(lambda: {told["id"] for told in closed.webhook.received} == set(made))
    assert {told["type"] for told in closed.webhook.received} == {"match", "block"}

    def delivered() -> bool:
        report = closed.client.get("/health", headers={"x-api-key": closed.key}).json()["webhooks"]
        return (report["status"], report["waiting"]) == ("on", 0)

    wait_until(delivered)
    # Either worker may have answered, and it counts after the receiver has: at least once each.
    wait_until(lambda: closed.series("duet_webhooks_total").get('outcome="delivered"', 0.0) >= len(made))


def test_how_far_the_consumer_of_streams_is_behind_is_in_health_and_metrics(closed: Closed) -> None:
    def report() -> dict[str, Any]:
        return dict(closed.client.get("/health", headers={"x-api-key": closed.key}).json()["streams"])

    wait_until(lambda: set(report()["lags"]) == {"duet:interactions", "duet:people"})
    assert (report()["status"], report()["message"]) == ("on", None)
    assert closed.series("duet_stream_waiting_entries").keys() == {'stream="duet:interactions"', 'stream="duet:people"'}


def test_metrics_of_all_workers_are_summed_in_every_scrape(closed: Closed) -> None:
    live = 'route="/health/live",status="200"'
    before = closed.series("duet_http_requests_total").get(live, 0)
    count, buckets = "duet_http_request_seconds_count", "duet_http_request_seconds_bucket"
    timed_before = closed.series(count).get('route="/health/live"', 0)
    for _ in range(30):
        closed.client.get("/health/live")
    # The last one is counted after it was answered, perhaps by another worker than the one that is scraped.
    wait_until(lambda: closed.series(count).get('route="/health/live"', 0) == timed_before + 30)
    for _ in range(6):  # whichever worker is scraped
        assert closed.series("duet_http_requests_total")[live] == before + 30
        assert closed.series(count)['route="/health/live"'] == timed_before + 30
        assert closed.series(buckets)['le="+Inf",route="/health/live"'] == timed_before + 30
    spread = [value for labels, value in closed.series(buckets).items() if "/health/live" in labels]
    assert spread == sorted(spread)


def test_what_callers_send_never_becomes_a_label(closed: Closed) -> None:
    for path in ("/no/such/path-31337", "/v1/recommendations/31337"):
        closed.client.get(path)
    closed.ask("duet_31337")
    assert "31337" not in closed.client.get("/metrics", headers={"x-api-key": closed.key}).text


def pids_of(closed: Closed) -> set[str]:
    """Return whose memory the metrics tell: one series for each worker, whichever of them is scraped."""
    labels = (re.search(r'part="own",pid="(\d+)"', text) for text in closed.series("duet_process_memory_bytes"))
    return {found[1] for found in labels if found}


def test_gauges_of_a_dead_worker_vanish_and_another_one_takes_over(closed: Closed) -> None:
    idle = 'pool="primary",state="idle"'
    wait_until(lambda: len(closed.service.workers()) == 2)
    wait_until(lambda: closed.series("duet_pool_connections").get(idle, 0) >= 20)  # ten for each of two workers
    pids = {str(worker.pid) for worker in closed.service.workers()}
    wait_until(lambda: pids_of(closed) == pids)
    victim = closed.service.workers()[0]
    victim.send_signal(signal.SIGKILL)
    wait_until(lambda: str(victim.pid) not in pids_of(closed))
    # Those of one worker: a pool that was busy for a moment keeps one or two more than ten.
    wait_until(lambda: closed.series("duet_pool_connections").get(idle, 0) <= 15)
    wait_until(lambda: len(closed.service.workers()) == 2)
    closed.service.wait_until_ready()


def test_every_line_of_the_log_is_json_with_the_id_of_its_request_and_without_secrets(
    closed: Closed, endpoints: Endpoints
) -> None:
    mine = "0b6f3c52-14ce-4a0c-8d5a-5a0f2b3f4a10"
    closed.ask(closed.key, **{"x-request-id": mine})
    closed.ask(closed.key + "0", **{"x-request-id": mine})
    wait_until(lambda: closed.service.log.read_text().count(mine) == 2)  # a line is written after its answer is sent
    text = closed.service.log.read_text()
    ours = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    foreign = [line for line in text.splitlines() if not line.startswith("{")]
    assert all("[cli]" in line for line in foreign), foreign  # BentoML's own, before the service is there
    requests = [line for line in ours if line["event"] == "request"]
    assert {line["status"] for line in requests if line.get("request_id") == mine} == {404, 401}
    assert all(UUID(line["request_id"]) for line in requests)
    assert "987654" not in text
    assert not secrets_in(text, closed, endpoints)


def test_refusals_and_settings_tell_no_secret(closed: Closed, endpoints: Endpoints, monkeypatch: Any) -> None:
    said = [closed.ask(closed.key + "0").text, closed.client.get("/docs.json", headers={"x-api-key": closed.key}).text]
    for name, value in endpoints.environment().items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    said += [repr(settings), str(settings), settings.model_dump_json()]
    assert not secrets_in("\n".join(said), closed, endpoints)


def secrets_in(text: str, closed: Closed, endpoints: Endpoints) -> list[str]:
    """Return which secrets of this service are in a text."""
    passwords = [urlsplit(url).password for url in (endpoints.database_url, endpoints.redis_url)]
    keys = [key.rpartition("_")[2] for key in (closed.key, closed.small_key)]
    keys += [WEBHOOK_WORD, WEBHOOK_SECRET.removeprefix("whsec_")]
    return [secret for secret in [*keys, *(word for word in passwords if word)] if secret in text]


def wait_until(true: Any, timeout_s: float = 40.0) -> None:
    def met() -> bool:
        try:
            return bool(true())
        except httpx.TransportError:
            return False  # the connection was the killed worker's

    until(met, timeout_s)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({}, "No API key is active, so nobody could call: make one with `duet keys create`."),
        pytest.param(
            {"DUET_SERVING__AUTH__MODE": "off"},
            "which is refused in production: set it to `required`.",
            marks=pytest.mark.long,
        ),
        pytest.param(
            {"DUET_SERVING__CORS_ORIGINS": "*", "DUET_SERVING__CORS_CREDENTIALS": "true"},
            "which is refused in production: name the origins.",
            marks=pytest.mark.long,
        ),
    ],
)
def test_an_unsafe_start_is_refused_with_one_sentence(
    endpoints: Endpoints, connection: psycopg.Connection[Any], tmp_path: Path, variables: dict[str, str], sentence: str
) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DUET_")},
        **endpoints.environment(),
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "DUET_ENVIRONMENT": "production",
        "DUET_DATA_DIR": str(tmp_path / "duet"),
        **variables,
    }
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:Duet", "--port", "0"]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr
