"""Starts the serving app as BentoML runs it, in processes of its own, with the settings that a test wants."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from feature_repo.store import apply_catalogue, open_feature_store
from infra.embedded.ports import free_port
from infra.endpoints import Endpoints
from infra.web.client import tls
from tests.conftest import REDIS_PATIENCE, make_settings
from tests.serving_world import remember_town
from tests.waiting import until

ROOT = Path(__file__).parents[1]
START_S = 120.0
REDIS_VARIABLES = {f"DUET_REDIS__{name.upper()}": str(value) for name, value in REDIS_PATIENCE.items()}


@dataclass
class ServingProcess:
    """A running serving app: the process of BentoML that its workers belong to."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if any("worker.service" in word for word in child.cmdline())]

    def wait_until_ready(self, timeout_s: float = START_S) -> None:
        """Wait until every worker that a few probes meet is ready, degraded or not."""
        good = 0

        def are_ready() -> bool:
            nonlocal good
            assert self.process.poll() is None, self.log.read_text()
            try:
                good = (
                    good + 1
                    if httpx.get(f"{self.url}/health/ready", trust_env=False, verify=tls()).status_code == 200
                    else 0
                )
            except httpx.TransportError:
                good = 0
            return good == 5

        until(are_ready, timeout_s, self.log.read_text)


@contextmanager
def serving_process(
    endpoints: Endpoints,
    root: Path,
    *,
    people: int = 40,
    ready: bool = True,
    inside: Sequence[str] = (),
    **variables: str,
) -> Iterator[ServingProcess]:
    """Run the app for the length of the block; `variables` are settings by name without `DUET_`.

    `inside` is a command that runs the command that follows it.
    """
    data_dir = root / "duet"
    if not data_dir.exists():
        apply_catalogue(open_feature_store(make_settings(data_dir), endpoints))
        remember_town(data_dir, range(1, people + 1), root / "written")
    port = free_port()
    log = root / "serving.log"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DUET_")},
        **endpoints.environment(),
        "BENTOML_HOME": str(root / "bentoml"),
        "DUET_ENVIRONMENT": "test",
        "DUET_DATA_DIR": str(data_dir),
        "DUET_SERVING__PORT": str(port),
        "DUET_SERVING__TIMEOUT_S": "10",
        "DUET_SERVING__DEADLINE_MS": "5000",
        "DUET_SERVING__QUEUE_TIMEOUT_MS": "5000",
        "DUET_SERVING__EXPLORATION_SHARE": "0",
        "DUET_SERVING__SNAPSHOT_REFRESH_S": "0.2",
        **REDIS_VARIABLES,
        **{f"DUET_{name}": value for name, value in variables.items()},
    }
    with _started("serving.service:Duet", port, log, environment, inside) as process:
        served = ServingProcess(process, port, log)
        if ready:
            served.wait_until_ready()
        yield served


@contextmanager
def ranker_process(root: Path, **variables: str) -> Iterator[ServingProcess]:
    """Run the ranker's service for the length of the block, on the local copies of the app that is served in `root`.

    `variables` are settings by name without `DUET_`.
    """
    port, log = free_port(), root / "ranker.log"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DUET_")},
        "BENTOML_HOME": str(root / "bentoml"),
        "DUET_ENVIRONMENT": "test",
        "DUET_DATA_DIR": str(root / "duet"),
        **{f"DUET_{name}": value for name, value in variables.items()},
    }
    with _started("serving.ranker_service:RankerService", port, log, environment) as process:
        served = ServingProcess(process, port, log)

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return httpx.get(f"{served.url}/readyz", trust_env=False, verify=tls()).status_code == 200
            except httpx.TransportError:
                return False

        until(is_ready, START_S, log.read_text)
        yield served


@contextmanager
def _started(
    service: str, port: int, log: Path, environment: dict[str, str], inside: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    command = [*inside, sys.executable, "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=output)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()
                process.wait()
                raise
