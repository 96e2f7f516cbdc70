"""Drills of the runbook about the machine below the served app: a disk that is full, too little memory, too many files.

Each app runs as in a container, in a mount namespace of its own: its data folder is a disk of 64 MiB, and the file that
tells how much memory a container may use says what the drill wants. Nothing enforces that limit.
"""

import os
import resource
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import redis

from infra.db.postgres import connect
from infra.endpoints import Endpoints
from tests.conftest import empty_tables
from tests.fault.drilling import drill
from tests.prometheus import Prometheus, watching
from tests.serving_process import ServingProcess, serving_process
from tests.serving_world import insert_people
from tests.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

TOLD = {"SERVING__MAX_CONNECTIONS": "6000", "SERVING__HEADER_TIMEOUT_S": "600"}
FILES = 12_000
CONTAINER = """
set -e
data=$1 limit=$2; shift 2
kept=$(mktemp -d); cp -a "$data/." "$kept"
mount -t tmpfs -o size=64m tmpfs "$data"
cp -a "$kept/." "$data"; rm -r "$kept"
for file in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do
  [ ! -e "$file" ] || mount --bind "$limit" "$file"
done
exec "$@"
"""


@dataclass
class Machine:
    """A served app in a container, and its data folder as the app sees it."""

    service: ServingProcess
    data: Path


@contextmanager
def machine(endpoints: Endpoints, root: Path, limit: str) -> Iterator[Machine]:
    """Serve in a container that may use so much memory, bytes or `max`."""
    written = root / "limit"
    written.write_text(limit)
    inside = [*namespace(), "sh", "-c", CONTAINER, "container", str(root / "duet"), str(written)]
    with serving_process(endpoints, root, inside=inside, **TOLD) as service:
        worker = service.workers()[0].pid
        yield Machine(service, Path(f"/proc/{worker}/root") / (root / "duet").relative_to("/"))


def namespace() -> Sequence[str]:
    """Return the command that runs another one where it may mount; skips where that is not allowed."""
    command = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    tried = subprocess.run([*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("nothing may be mounted here, so there is no small disk")
    return command


@pytest.fixture(scope="module")
def _files() -> Iterator[None]:
    """Let this process and those that it starts hold thousands of sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < FILES:
        pytest.skip(f"a process may hold {hard} files here, fewer than {FILES}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def roomy(_files: None, endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with connect(endpoints.database_url) as connection, redis.Redis.from_url(endpoints.redis_url) as client:
        empty_tables(connection)
        client.flushdb()
        insert_people(connection)
    with machine(endpoints, tmp_path_factory.mktemp("roomy"), "max") as one:
        yield one


@pytest.fixture(scope="module")
def prometheus(roomy: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with watching(roomy.service.port, tmp_path_factory.mktemp("prometheus")) as prometheus:
        yield prometheus


def test_a_disk_that_is_nearly_full(roomy: Machine, prometheus: Prometheus) -> None:
    @contextmanager
    def full() -> Iterator[None]:
        ballast = roomy.data / "ballast"
        ballast.write_bytes(bytes(int(psutil.disk_usage(str(roomy.data)).free * 0.95)))
        yield
        ballast.unlink()

    drill(prometheus, {"DuetDiskNearlyFull"}, full())


def test_clients_that_leave_their_connections_open(roomy: Machine, prometheus: Prometheus) -> None:
    @contextmanager
    def left_open() -> Iterator[None]:
        with ExitStack() as stack:
            for _ in range(5100):
                stack.enter_context(socket.create_connection(("127.0.0.1", roomy.service.port), 20))
            yield

    drill(prometheus, {"DuetDescriptorsMany"}, left_open())


def test_workers_that_hold_nearly_all_of_their_memory(
    roomy: Machine, prometheus: Prometheus, endpoints: Endpoints, tmp_path: Path
) -> None:
    def own_bytes() -> float:
        found = prometheus.answers('sum(duet_process_memory_bytes{part="own"})')
        return float(found[0]["value"][1]) if found else 0.0

    @contextmanager
    def small() -> Iterator[None]:
        """Serve beside it with as much memory as the same app holds already, and have a roomy one in its place."""
        until(lambda: own_bytes() > 0)
        with machine(endpoints, tmp_path, str(int(own_bytes()))) as other:
            prometheus.ask(roomy.service.port, other.service.port)
            yield
        prometheus.ask(roomy.service.port)

    drill(prometheus, {"DuetMemoryNearlyFull"}, small())
