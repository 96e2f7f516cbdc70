"""One whole platform for the end-to-end tests, driven through the `duet` command and HTTP as its users do."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from infra.web.client import tls
from tests.waiting import until

ANY_FREE_PORT = {
    "DUET_MLFLOW__PORT": "0",
    "DUET_DAGSTER__PORT": "0",
    "DUET_SERVING__PORT": "0",
    "DUET_POSTGRES__START_TIMEOUT_S": "300",
    "DUET_REDIS__START_TIMEOUT_S": "300",
    "DUET_MLFLOW__START_TIMEOUT_S": "300",
    "DUET_DAGSTER__START_TIMEOUT_S": "300",
    "DUET_WEB__AUTH": "required",  # as where other people have accounts: every client of ours has to send the token
    "DUET_SERVING__RELEASE_POLL_S": "1",
    "DUET_SERVING__DEADLINE_MS": "5000",  # these tests are about what is answered, not how fast on a busy machine
    "DUET_SERVING__TIMEOUT_S": "20",
    "DUET_SERVING__SNAPSHOT_REFRESH_S": "5",
}

HANGS_S = 850.0
"""After which a command hangs, and no machine is only busy; less than the limit of a test, to say which command."""

LOCATION = {"repositoryLocationName": "duet", "repositoryName": "__repository__"}
LAUNCH = """
mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
SCHEDULES = """
query($repository: RepositorySelector!) {
  schedulesOrError(repositorySelector: $repository) {
    ... on Schedules { results { id scheduleState { status } } }
  }
}
"""
STOP = """
mutation($id: String!) {
  stopRunningSchedule(id: $id) {
    ... on ScheduleStateResult { scheduleState { status } }
    ... on PythonError { message }
  }
}
"""


def clean_environment(**more: str) -> dict[str, str]:
    """The environment of a person's shell: nothing of this test run leaks into the platform."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DUET_", "DAGSTER_", "PYTEST_"))}
    return {**kept, **more}


@dataclass(frozen=True)
class Duet:
    """Runs `duet` commands against one data directory, of the code that lies in `folder`."""

    data_dir: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def __call__(self, *arguments: str, expect: int = 0, timeout_s: float = HANGS_S) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "infra.cli", *arguments],
            cwd=self.folder,
            env=clean_environment(DUET_DATA_DIR=str(self.data_dir), COLUMNS="160", **ANY_FREE_PORT, **self.variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        told = f"duet {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == expect, told
        assert "Traceback" not in done.stderr, told
        return done.stdout + done.stderr

    @cached_property
    def urls(self) -> dict[str, str]:
        """Where the platform answers; asked once, because ports stay."""
        found: dict[str, str] = json.loads(self("status", "--json"))["urls"]
        return found

    @property
    def token(self) -> str:
        """What MLflow and Dagster ask for."""
        return (self.data_dir / "secrets" / "web_token").read_text().strip()

    @property
    def bearer(self) -> dict[str, str]:
        """The headers with which a program is let in."""
        return {"Authorization": f"Bearer {self.token}"}

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.post(f"{self.urls['serving']}{path}", json=body, timeout=10, verify=tls())

    def ask_dagster(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = httpx.post(
            f"{self.urls['dagster']}/graphql",
            json={"query": query, "variables": variables},
            headers=self.bearer,
            verify=tls(),
            timeout=60,
        ).json()
        assert "errors" not in answer, answer
        found: dict[str, Any] = answer["data"]
        return found


def parameters(job: str, config: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what Dagster is asked to launch: a job, and settings by step."""
    return {
        "selector": {"jobName": job, **LOCATION},
        "runConfigData": {"ops": {step: {"config": values} for step, values in config.items()}},
    }


def stop_schedules(platform: Duet, found: frozenset[str] = frozenset({"RUNNING"})) -> None:
    """Let no test meet the night: what the clock starts would promote an index in the midst of one at 03:30."""
    listed = platform.ask_dagster(SCHEDULES, repository=LOCATION)["schedulesOrError"]["results"]
    assert {schedule["scheduleState"]["status"] for schedule in listed} <= found
    answers: list[dict[str, Any]] = []

    def is_stopped(schedule: dict[str, Any]) -> bool:
        answers.append(platform.ask_dagster(STOP, id=schedule["id"])["stopRunningSchedule"])
        return bool(answers[-1].get("scheduleState", {}).get("status") == "STOPPED")

    for schedule in listed:
        # Dagster's daemon writes the state of a schedule when it first looks, and refuses who writes at that instant.
        until(lambda schedule=schedule: is_stopped(schedule), instead=lambda: answers[-1])


def processes_of(data_dir: Path) -> list[str]:
    """Command lines of every process that works on this data directory."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), process.cwd(), process.environ().get("DUET_DATA_DIR", "")]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(data_dir) in word for word in words):
            found.append(" ".join(process.cmdline()))
    return found


@contextmanager
def running(platform: Duet, *, again: bool = False) -> Iterator[Duet]:
    """Have a platform up for the length of the block, and no process of it afterwards; `again`: it was up before."""
    try:
        platform("up", "--detach")
        stop_schedules(platform, frozenset({"RUNNING", "STOPPED"} if again else {"RUNNING"}))
        yield platform
    finally:
        platform("down")
    assert processes_of(platform.data_dir) == []


@pytest.fixture(scope="module")
def duet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Duet]:
    """A platform that is up, on a data directory of its own."""
    with running(Duet(tmp_path_factory.mktemp("e2e") / "duet")) as platform:
        yield platform
