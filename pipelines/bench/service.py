"""The serving app as a process of its own, started as the supervisor starts it, and what it and its servers use."""

import http.client
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import psutil

from infra.clock import Clock
from infra.embedded.ports import free_port
from infra.embedded.postgres import EmbeddedPostgres
from infra.embedded.processes import working_in
from infra.embedded.redis import EmbeddedRedis
from infra.endpoints import Endpoints
from infra.settings import Settings
from infra.supervisor.processes import describe_exit, end, spawn, tail
from infra.supervisor.stack import SERVING_TARGET
from infra.telemetry import TELEMETRY_OFF
from pipelines.bench.errors import ProcessFailed

HOST: Final = "127.0.0.1"
_NOBODY: Final = "http://127.0.0.1:9"
"""An MLflow that is not there, so that the service starts from its last good release."""
_POLL_S: Final = 0.05
_START_S: Final = 180.0
_STOP_S: Final = 15.0
_WORKER: Final = "worker"
_MB: Final = 2**20


@dataclass(frozen=True)
class Memory:
    """Of one process, MiB: private (USS), what it shares with others, and both."""

    private_mb: float
    shared_mb: float
    resident_mb: float


@dataclass(frozen=True)
class Cpu:
    """CPU seconds used so far by the service, Postgres and Redis."""

    service: float
    postgres: float
    redis: float

    def since(self, before: "Cpu") -> "Cpu":
        """Return what was used since."""
        return Cpu(self.service - before.service, self.postgres - before.postgres, self.redis - before.redis)


@dataclass(frozen=True)
class ServiceProcess:
    """A running service, where it listens, and how long it took from process start."""

    port: int
    pid: int
    ready_s: float
    """Until /health/ready answered 200."""
    full_s: float
    """Until an answer was of level 1."""
    settings: Settings

    def cpu(self) -> Cpu:
        """Return the CPU seconds of every process that takes part in an answer, but for the client."""
        return Cpu(
            _cpu_of(_with_children(self.pid)),
            _cpu_of(working_in(EmbeddedPostgres(self.settings).known_data or Path("/nowhere"), "postgres")),
            _cpu_of(working_in(EmbeddedRedis(self.settings).data, "redis-")),
        )

    def workers(self) -> list[Memory]:
        """Return the memory of each worker, the first one first."""
        return [memory_of(process) for process in _with_children(self.pid) if _is_worker(process)]


@contextmanager
def run_service(
    settings: Settings,
    endpoints: Endpoints,
    clock: Clock,
    asker: int,
    *,
    workers: int = 1,
    environment: Mapping[str, str] | None = None,
) -> Iterator[ServiceProcess]:
    """Have the service running and answering at level 1 for the length of the block.

    Args:
        settings: of the benchmark's world.
        endpoints: its running servers.
        clock: tells the seconds of the start.
        asker: somebody whose answer is of level 1 once everything is loaded.
        workers: worker processes.
        environment: further variables, e.g. to switch the cache off.

    Raises:
        ProcessFailed: it ended, or did not come to answer at level 1.
    """
    port = free_port(HOST)
    log = settings.data_dir / "logs" / "bench-serving.log"
    variables = {
        **TELEMETRY_OFF,
        **replace(endpoints, mlflow_url=endpoints.mlflow_url or _NOBODY).environment(),
        "DUET_ENVIRONMENT": settings.environment,
        "DUET_DATA_DIR": str(settings.data_dir),
        "DUET_SERVING__HOST": HOST,
        "DUET_SERVING__PORT": str(port),
        "DUET_SERVING__WORKERS": str(workers),
        "DUET_LOGGING__FORMAT": "json",
        "BENTOML_HOME": str(settings.data_dir / "bentoml"),
        **(environment or {}),
    }
    command = (sys.executable, "-m", "bentoml", "serve", SERVING_TARGET, "--host", HOST, "--port", str(port))
    began_s = clock.monotonic()
    process = spawn(command, mark=f"bench:{settings.data_dir}", environment=variables, log_path=log)
    try:

        def wait(is_there: Callable[[], bool], said: Sequence[str] = ()) -> float:
            while not is_there():
                code = process.poll()
                if code is not None:
                    raise ProcessFailed(f"The service ended with {describe_exit(code)}; {log} ends: {tail(log, 3)}")
                if clock.monotonic() - began_s > _START_S:
                    last = f" ({said[-1]})" if said else ""
                    raise ProcessFailed(f"The service gave no full answer within {_START_S:.0f} s{last}: see {log}.")
                time.sleep(_POLL_S)
            return round(clock.monotonic() - began_s, 2)

        ready_s = wait(lambda: _ask(port, "GET", "/health/ready")[0] == 200)
        said: list[str] = []
        full_s = wait(lambda: _is_full(port, asker, said), said)
        yield ServiceProcess(port, process.pid, ready_s, full_s, settings)
    finally:
        end(process, _STOP_S)


def memory_of(process: psutil.Process) -> Memory:
    """Return the memory of a process."""
    full = process.memory_full_info()
    return Memory(round(full.uss / _MB, 1), round((full.rss - full.uss) / _MB, 1), round(full.rss / _MB, 1))


def _is_full(port: int, asker: int, said: list[str]) -> bool:
    """Ask once; keep in `said` why the answer is not of level 1."""
    status, body = _ask(port, "POST", "/v1/recommendations", {"user_id": asker, "limit": 20})
    if status != 200:
        said.append(f"status {status}")
        return False
    answer = json.loads(body)
    said.append(f"level {answer['level']}: {answer['reason']}")
    return int(answer["level"]) == 1


def _ask(port: int, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"} if content else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def _with_children(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _is_worker(process: psutil.Process) -> bool:
    try:
        return _WORKER in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _cpu_of(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total
