"""Drills of the runbook about what the served app works with: its callers, a webhook, streams, a replica, features."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from pydantic import SecretStr

from feature_repo.store import materialize, open_feature_store
from infra.clock import SystemClock
from infra.db.postgres import connect
from infra.endpoints import Endpoints, open_endpoints
from infra.settings import Settings
from serving.access.store import create_key
from tests.conftest import allow_tests_more, make_settings, remove_kept_aside
from tests.fault.drilling import beside, calling, drill, held, until_fired, until_quiet
from tests.prometheus import Prometheus, watching
from tests.serving_process import ServingProcess, serving_process
from tests.serving_world import insert_people
from tests.standby import Standby, standby_of
from tests.streams import EVENTS, LIKE, PEOPLE, consuming
from tests.webhook import Webhook, listening

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

TIMEOUT_S = 1.0
SIGNED_WITH = "whsec_" + base64.b64encode(bytes(range(32))).decode()
TOLD = {
    "SERVING__WORKERS": "2",
    "SERVING__TIMEOUT_S": str(TIMEOUT_S),
    "SERVING__AUTH__MODE": "required",
    "SERVING__CACHE__ENABLED": "false",
    "STREAM__ENABLED": "true",
    "WEBHOOKS__ALLOW_PRIVATE": "true",
    "WEBHOOKS__SECRET": SIGNED_WITH,
}
SHORTENED = {"duet_newcomers_looked_timestamp_seconds > 300": "duet_newcomers_looked_timestamp_seconds > 9"}
LONG_AGO = timedelta(minutes=10)


@dataclass
class Town:
    """A served app that asks for keys, with a standby, a webhook and streams; `key` opens it."""

    service: ServingProcess
    endpoints: Endpoints
    settings: Settings
    standby: Standby
    webhook: Webhook
    redis: redis.Redis
    key: str

    def block(self) -> None:
        """Have somebody block another, of which the webhook is to be told."""
        block = {"actor_id": 1, "target_id": 2, "kind": "block"}
        unblock = {**block, "kind": "unblock"}
        with httpx.Client(headers={"x-api-key": self.key}, timeout=20, trust_env=False) as client:
            for body in (unblock, block):
                client.post(f"{self.service.url}/v1/interactions", json=body).raise_for_status()

    def run(self, statement: str, *values: Any) -> None:
        with connect(self.endpoints.database_url, autocommit=True) as connection:
            connection.execute(statement, values)  # type: ignore[arg-type]  # written in this file

    def materialize(self, *, ago: timedelta = timedelta()) -> None:
        """Fill the online features with what was so until then."""
        materialize(open_feature_store(self.settings, self.endpoints), SystemClock().now() - ago)


@pytest.fixture(scope="module")
def town(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    # A primary of its own: the standby of a shared one would replay what other tests write.
    root = tmp_path_factory.mktemp("town")
    primary = make_settings(root / "primary", redis_url=SecretStr(endpoints.redis_url))
    with ExitStack() as stack:
        stack.callback(remove_kept_aside, primary)
        own = stack.enter_context(open_endpoints(primary))
        allow_tests_more(primary)
        with connect(own.database_url, autocommit=True) as connection:
            insert_people(connection)
            key = create_key(connection, "drills")
        client = stack.enter_context(redis.Redis.from_url(endpoints.redis_url, socket_timeout=10))
        client.flushdb()
        standby = stack.enter_context(standby_of(own.database_url, root))
        webhook = stack.enter_context(listening(204))
        told = {**TOLD, "WEBHOOKS__URL": webhook.url, "POSTGRES__READ_REPLICA_URL": standby.url}
        service = stack.enter_context(serving_process(own, root, **told))
        known = {"database_url": SecretStr(own.database_url), "data_dir": root / "duet"}
        town = Town(service, own, primary.model_copy(update=known), standby, webhook, client, key)
        town.materialize(ago=timedelta(days=3))
        yield town


@pytest.fixture(scope="module")
def prometheus(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    with watching(town.service.port, folder, key=town.key, shortened=SHORTENED) as prometheus:
        yield prometheus


@contextmanager
def refusing(town: Town, age: timedelta) -> Iterator[None]:
    """Let the receiver answer with 500, until what it is to be told of is so old."""
    town.webhook.status = 500
    try:
        town.block()
        town.run("update duet.webhook_events set created_at = created_at - %s", age)
        yield
    finally:
        town.webhook.status = 204


def test_a_webhook_that_answers_with_500(town: Town, prometheus: Prometheus) -> None:
    drill(prometheus, {"DuetWebhooksLate"}, refusing(town, LONG_AGO))


def test_a_webhook_that_answers_with_500_for_more_than_a_day(town: Town, prometheus: Prometheus) -> None:
    drill(prometheus, {"DuetWebhooksLost"}, refusing(town, timedelta(hours=25)))


def test_a_consumer_of_streams_that_is_gone(town: Town, prometheus: Prometheus, tmp_path: Path) -> None:
    with ExitStack() as stack:

        @contextmanager
        def gone() -> Iterator[None]:
            added_at = SystemClock().now() - LONG_AGO
            town.redis.xadd(EVENTS, {"json": json.dumps(LIKE)}, id=f"{int(added_at.timestamp() * 1000)}-0")
            yield
            stack.enter_context(consuming(town.settings, tmp_path / "log"))

        drill(prometheus, {"DuetStreamLate"}, gone())


def test_an_entry_of_a_stream_that_is_no_json(town: Town, prometheus: Prometheus, tmp_path: Path) -> None:
    @contextmanager
    def added() -> Iterator[None]:
        town.redis.xadd(PEOPLE, {"json": "somebody new"})
        yield

    with consuming(town.settings, tmp_path / "log"):
        drill(prometheus, {"DuetStreamRefuses"}, added())


def test_a_task_that_keeps_ending(town: Town, prometheus: Prometheus) -> None:
    @contextmanager
    def overwritten() -> Iterator[None]:
        """Write a word where the consumer counts: what measures the streams cannot read it."""
        town.redis.hset(f"{EVENTS}:duet:settled", "removed", "none")
        yield
        town.redis.hdel(f"{EVENTS}:duet:settled", "removed")

    drill(prometheus, {"DuetTaskEnds"}, overwritten())


def test_calls_without_a_key(town: Town, prometheus: Prometheus) -> None:
    asking = calling(f"{town.service.url}/v1/recommendations", {"user_id": 1})
    drill(prometheus, {"DuetKeysRefused"}, asking)


def test_calls_that_are_not_answered_in_time(town: Town, prometheus: Prometheus) -> None:
    def halt(ended: threading.Event) -> None:
        """Hold every worker for longer than a call may take, again and again."""
        while not ended.is_set():
            with held(town.service.workers()):
                ended.wait(1.5 * TIMEOUT_S)
            ended.wait(0.5 * TIMEOUT_S)

    @contextmanager
    def halted() -> Iterator[None]:
        with calling(f"{town.service.url}/v1/recommendations", {"user_id": 1}, key=town.key), beside(halt):
            yield

    drill(prometheus, {"DuetErrors"}, halted())


def test_one_of_two_workers_that_hangs(town: Town, prometheus: Prometheus) -> None:
    drill(prometheus, {"DuetNewcomersStale"}, held(town.service.workers()[:1]))


def test_a_replica_that_stands_still(town: Town, prometheus: Prometheus) -> None:
    @contextmanager
    def paused() -> Iterator[None]:
        town.standby.pause()
        try:
            town.run("update duet.users set bio = 'a drill' where user_id = 1")
            yield
        finally:
            town.standby.resume()

    drill(prometheus, {"DuetReplicaLags"}, paused())


def test_features_that_are_three_days_old(town: Town, prometheus: Prometheus) -> None:
    until_fired(prometheus, {"DuetFeaturesStale"})
    town.materialize()
    until_quiet(prometheus, {"DuetFeaturesStale"})
