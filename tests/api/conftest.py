"""The serving app as BentoML runs it, in a process and a database of its own."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from feature_repo.store import apply_catalogue, open_feature_store
from infra.db.postgres import connect
from infra.db.roles import grant_roles
from infra.embedded.ports import free_port
from infra.endpoints import Endpoints
from tests.conftest import make_settings, role_url, with_own_database
from tests.serving_process import REDIS_VARIABLES
from tests.serving_world import insert_people, remember_town
from tests.waiting import until

ROOT = Path(__file__).parents[2]
PEOPLE = 40
START_S = 120.0


@dataclass
class Served:
    """A running serving app and a client of it."""

    client: httpx.Client
    log: Path

    @property
    def url(self) -> str:
        """Where it answers."""
        return str(self.client.base_url)

    def recommend(self, user_id: int, **request: Any) -> dict[str, Any]:
        """Ask for people; fails unless the answer is 200."""
        response = self.client.post("/v1/recommendations", json={"user_id": user_id, **request})
        assert response.status_code == 200, response.text
        return dict(response.json())

    def wait_for(self, people: int, since_s: float = -math.inf) -> None:
        """Wait until the snapshot holds so many people, as they were read after `since_s` (monotonic seconds)."""

        def is_there() -> bool:
            asked_s = time.monotonic()
            population = self.client.get("/health").json()["population"]
            return bool(population["people"] == people and population["age_s"] < asked_s - since_s)

        until(is_there)


@pytest.fixture(scope="session")
def endpoints(endpoints: Endpoints) -> Endpoints:
    """A database of its own, because the app runs on while other folders are tested and says in it that it serves."""
    return with_own_database(endpoints, f"{urlsplit(endpoints.database_url).path.lstrip('/')}_api")


@pytest.fixture(scope="session")
def served(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One app for all API tests of this worker: a release from the local copy, no MLflow, no exploration."""
    root = tmp_path_factory.mktemp("served")
    data_dir = root / "duet"
    settings = make_settings(data_dir)
    apply_catalogue(open_feature_store(settings, endpoints))
    remember_town(data_dir, range(1, PEOPLE + 1), root / "written")
    port = free_port()
    log = root / "serving.log"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DUET_")},
        **endpoints.environment(),
        "DUET_DATABASE_URL": as_serving(endpoints),
        "BENTOML_HOME": str(root / "bentoml"),
        "DUET_ENVIRONMENT": "test",
        "DUET_DATA_DIR": str(data_dir),
        "DUET_SERVING__PORT": str(port),
        "DUET_SERVING__TIMEOUT_S": "10",
        "DUET_SERVING__DEADLINE_MS": "5000",
        "DUET_SERVING__EXPLORATION_SHARE": "0",
        **REDIS_VARIABLES,
        "DUET_SERVING__SNAPSHOT_REFRESH_S": "0.2",
        "DUET_SERVING__MAX_BODY_BYTES": "4096",
    }
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:Duet", "--host", "127.0.0.1"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)], env=environment, cwd=ROOT, stdout=output, stderr=output
        )
    try:
        # The server closes a connection that idles for five seconds, maybe at the instant at which it is used again.
        fresh = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False, limits=fresh) as client:
            wait_until_ready(client, process, log)
            yield Served(client, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def as_serving(endpoints: Endpoints) -> str:
    """Return the URL of the database for a role with the rights of serving: what the app needs, and no more."""
    names = {"serving": "duet_serving_of_tests", "pipelines": "duet_pipelines_of_tests"}
    with connect(endpoints.database_url, autocommit=True) as connection:
        urls = {what: role_url(connection, endpoints, name) for what, name in names.items()}
        grant_roles(connection, **names)
    return urls["serving"]


@pytest.fixture
def town(served: Served, connection: psycopg.Connection[Any]) -> Served:
    """The app over people 1..40 of the town, fresh for each test."""
    insert_people(connection, PEOPLE)
    # So many may still be there of the test before, and then be gone for a moment.
    served.wait_for(PEOPLE, time.monotonic())
    return served


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the app is ready, degraded or not."""

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return client.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    until(is_ready, START_S, log.read_text)
