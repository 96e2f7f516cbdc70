"""A service with a real streaming standby: read while it is near, left alone when it lags, is silent or is dead."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from infra.cli.checks import CheckResult, check_servers
from infra.db.postgres import connect
from infra.endpoints import Endpoints, open_endpoints
from infra.settings import Settings
from tests.conftest import allow_tests_more, make_settings, remove_kept_aside
from tests.serving_process import serving_process
from tests.serving_world import insert_people
from tests.standby import Standby, standby_of
from tests.waiting import until

DEADLINE_MS = 10_000
MAX_LAG_S = 5


@dataclass
class Replicated:
    """A service on a primary and its standby, and a connection to the primary."""

    client: httpx.Client
    primary: psycopg.Connection[Any]
    standby: Standby
    settings: Settings

    def health(self) -> dict[str, Any]:
        return dict(self.client.get("/health").json())

    def replica(self) -> dict[str, Any]:
        return dict(self.health()["replica"])

    def ask(self, user_id: int = 1) -> httpx.Response:
        return self.client.post("/v1/recommendations", json={"user_id": user_id, "limit": 100})

    def shown(self, user_id: int = 1) -> set[int]:
        """Ask for people, at the best level."""
        response = self.ask(user_id)
        answer = response.json()
        assert (response.status_code, answer["level"]) == (200, 1), (answer["reason"], answer["timings_ms"])
        return {item["user_id"] for item in answer["items"]}

    def act(self, actor_id: int, target_id: int, kind: str) -> None:
        act = {"actor_id": actor_id, "target_id": target_id, "kind": kind}
        assert self.client.post("/v1/interactions", json=act).status_code in {200, 201}

    def series(self, name: str) -> float:
        """Return one line of the metrics."""
        lines = self.client.get("/metrics").text.splitlines()
        return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")))

    def reads(self) -> float:
        return self.series('duet_breaker_calls_total{dependency="replica",result="success"}')

    def diagnosis(self) -> CheckResult:
        """What the doctor says of the replica."""
        return next(finding for finding in check_servers(self.settings) if "replica" in finding.name)


@pytest.fixture(scope="module")
def replicated(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    # A primary of its own: the standby of a busy one would replay what all other tests write.
    root = tmp_path_factory.mktemp("replicated")
    settings = make_settings(root / "primary", redis_url=SecretStr(endpoints.redis_url))
    with contextlib.ExitStack() as stack:
        stack.callback(remove_kept_aside, settings)
        own = stack.enter_context(open_endpoints(settings))
        allow_tests_more(settings)
        primary = stack.enter_context(connect(own.database_url, autocommit=True))
        insert_people(primary, 40)
        standby = stack.enter_context(standby_of(own.database_url, root))
        service = stack.enter_context(
            serving_process(
                own,
                root,
                POSTGRES__READ_REPLICA_URL=standby.url,
                POSTGRES__REPLICA_MAX_LAG_S=str(MAX_LAG_S),
                SERVING__CACHE__ENABLED="false",
                SERVING__DEADLINE_MS=str(DEADLINE_MS),
            )
        )
        client = stack.enter_context(httpx.Client(base_url=service.url, timeout=20, trust_env=False))
        group = settings.postgres.model_copy(
            update={"read_replica_url": SecretStr(standby.url), "replica_max_lag_s": MAX_LAG_S}
        )
        known = {"database_url": SecretStr(own.database_url), "postgres": group}
        one = Replicated(client, primary, standby, settings.model_copy(update=known))
        # Ready it is without the snapshot of people, too, which takes its time on a busy machine.
        until(lambda: one.ask().json()["level"] == 1, 60)
        yield one


def test_a_replica_that_keeps_up_is_read(replicated: Replicated) -> None:
    until(lambda: replicated.replica()["used"])
    report = replicated.health()
    assert report["replica"] == {**report["replica"], "status": "up", "message": None}
    assert 0 <= report["replica"]["lag_s"] < MAX_LAG_S
    assert report["pools"]["replica"]["size"] > 0
    before = replicated.reads()
    assert replicated.shown() == set(range(2, 41, 2))
    assert replicated.reads() == before + 1
    assert 0 <= replicated.series("duet_replica_lag_seconds") < MAX_LAG_S
    found = replicated.diagnosis()
    assert found.ok, found
    assert "within" in found.seen


def test_a_replica_that_stands_still_makes_no_answer_old(replicated: Replicated) -> None:
    until(lambda: replicated.replica()["used"])
    replicated.standby.pause()
    try:
        before = replicated.reads()
        replicated.act(1, 2, "like")
        assert 2 not in replicated.shown()
        assert replicated.reads() > before  # it is still near enough: the last check found out what it misses
        replicated.act(4, 1, "block")
        assert not {2, 4} & replicated.shown()
        until(lambda: not replicated.replica()["used"])
        before = replicated.reads()
        replicated.act(1, 6, "pass")
        replicated.primary.execute("update duet.users set visible = false where user_id = 8")
        assert replicated.shown() == set(range(10, 41, 2))
        assert replicated.reads() == before
        until(lambda: replicated.series("duet_replica_lag_seconds") > MAX_LAG_S)
        assert replicated.replica()["status"] == "up"
        found = replicated.diagnosis()
        assert (found.ok, found.seen) == (False, f"more than {MAX_LAG_S} s behind")
    finally:
        replicated.standby.resume()
    until(lambda: replicated.replica()["used"])
    before = replicated.reads()
    assert replicated.shown() == set(range(10, 41, 2))
    assert replicated.reads() == before + 1


def test_a_server_that_is_no_replica_is_refused_by_the_doctor(replicated: Replicated) -> None:
    own = replicated.settings
    group = own.postgres.model_copy(update={"read_replica_url": own.database_url})
    replicated.settings = own.model_copy(update={"postgres": group})
    try:
        found = replicated.diagnosis()
    finally:
        replicated.settings = own
    assert not found.ok
    assert "not in recovery" in found.seen


def test_a_replica_that_falls_silent_and_then_dies_takes_nothing_from_the_answers(replicated: Replicated) -> None:
    until(lambda: replicated.replica()["used"])
    expected = replicated.shown()
    replicated.standby.silence()
    for _ in range(5):
        assert replicated.shown() == expected
    until(lambda: replicated.replica()["status"] == "down")
    assert replicated.replica()["lag_s"] is None
    replicated.standby.kill()
    for _ in range(5):
        assert replicated.shown() == expected
    report = replicated.health()
    assert (report["replica"]["used"], report["replica"]["status"]) == (False, "down")
    assert report["status"] != "not_ready"
    found = replicated.diagnosis()
    assert not found.ok
    assert "cannot be reached" in found.seen
