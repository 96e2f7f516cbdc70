"""The processes of Duet on one machine: their commands, their order, and how one sees that they are healthy.

Postgres, Redis and MLflow come from `infra.endpoints`; here are Dagster's three processes and the serving app.
The order is not taste: orphaned runs are closed after the code server answers and before the daemon retries them.
"""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml

from infra.embedded.ports import free_port, refuse_taken
from infra.endpoints import Endpoints, open_endpoints
from infra.errors import ConfigurationError
from infra.settings import Settings
from infra.supervisor.spec import External, HttpProbe, Probe, Service, Spec, Step, TcpProbe
from infra.supervisor.state import logs_dir
from infra.telemetry import TELEMETRY_OFF
from infra.urls import without_password

LOCATION = "duet"
CODE_MODULE = "pipelines.definitions"
# After so long without its proxy's heartbeat the process with our code ends itself, and nobody starts it again: with
# Dagster's 30 s a machine that slept or stood still lost every schedule, sensor and guard. `duet down` ends it, too.
CODE_UNHEARD_S = 7 * 86_400
SERVING_TARGET = "serving.service:Duet"
LOOPBACK = "127.0.0.1"
ANY_ADDRESS = {"0.0.0.0", "::"}  # noqa: S104 - compared with, never bound


@contextmanager
def duet_stack(settings: Settings) -> Iterator[tuple[list[Spec], list[External]]]:
    """Have the databases for the length of the block and give what is to be started on them, and what to watch.

    Raises:
        PortTaken, ServerUnavailable, MigrationError, ConfigurationError: before anything of ours was started.
    """
    addresses = choose_addresses(settings)
    home = prepare_dagster_home(settings.data_dir, addresses)
    with open_endpoints(settings, mlflow=True) as endpoints:
        yield build_stack(settings, endpoints, addresses, home), list_externals(settings, endpoints)


@dataclass(frozen=True)
class Addresses:
    """The ports of this start, all of them free a moment ago."""

    code_server: int
    dagster_host: str
    dagster_port: int
    serving_host: str
    serving_port: int

    @property
    def dagster_url(self) -> str:
        """Where a person opens Dagster."""
        return _url(self.dagster_host, self.dagster_port)

    @property
    def serving_url(self) -> str:
        """Where an app asks for recommendations."""
        return _url(self.serving_host, self.serving_port)


def choose_addresses(settings: Settings) -> Addresses:
    """Check or pick the ports of everything that starts here.

    Raises:
        PortTaken: something else listens on a port of the settings.
    """
    dagster, serving = settings.dagster, settings.serving
    return Addresses(
        code_server=free_port(LOOPBACK),
        dagster_host=dagster.host,
        dagster_port=_port(dagster.host, dagster.port, "DUET_DAGSTER__PORT"),
        serving_host=serving.host,
        serving_port=_port(serving.host, serving.port, "DUET_SERVING__PORT"),
    )


@dataclass(frozen=True)
class GraphqlProbe:
    """Healthy when Dagster's web server has loaded our code location or, with `daemons`, when its daemons beat.

    Heartbeats of an earlier daemon, from before `since` (seconds since 1970), do not count.
    """

    url: str
    daemons: bool = False
    since: float = field(default_factory=time.time)
    timeout_s: float = 5.0

    def check(self) -> str | None:
        """Return None when healthy, else the reason."""
        query = (
            "{instance{daemonHealth{allDaemonStatuses{daemonType required healthy lastHeartbeatTime}}}}"
            if self.daemons
            else "{workspaceOrError{__typename ... on Workspace{locationEntries{name loadStatus "
            "locationOrLoadError{__typename ... on PythonError{message}}}} ... on PythonError{message}}}"
        )
        try:
            answer = httpx.post(f"{self.url}/graphql", json={"query": query}, timeout=self.timeout_s, trust_env=False)
            data = answer.raise_for_status().json()["data"]
            return _sick_daemons(data, self.since) if self.daemons else _broken_location(data)
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as failure:
            return f"{self.url}/graphql gives no answer ({type(failure).__name__})"


def build_stack(settings: Settings, endpoints: Endpoints, addresses: Addresses, home: Path) -> list[Spec]:
    """List the processes to start, in an order in which each comes after what it needs.

    Args:
        settings: of this platform.
        endpoints: the running databases.
        addresses: from `choose_addresses`.
        home: Dagster's folder, from `prepare_dagster_home`.
    """
    shared = {
        **TELEMETRY_OFF,
        **endpoints.environment(),
        "DUET_DATA_DIR": str(settings.data_dir.resolve()),
        "DUET_DAGSTER__PORT": str(addresses.dagster_port),
        "DUET_SERVING__PORT": str(addresses.serving_port),
        "DAGSTER_HOME": str(home),
        "PYTHONUNBUFFERED": "1",
    }
    workspace = str(home / "workspace.yaml")
    return [
        Step("dagster-storage", (*_python("dagster"), "instance", "migrate"), shared),
        Service(
            "dagster-code",
            (*_python("dagster"), "code-server", "start", "--host", LOOPBACK, "--port", str(addresses.code_server),
             "--module-name", CODE_MODULE, "--location-name", LOCATION, "--use-python-environment-entry-point",
             "--heartbeat-ttl", str(CODE_UNHEARD_S)),
            shared,
            probe=TcpProbe(LOOPBACK, addresses.code_server),
            after=("dagster-storage",),
            start_timeout_s=settings.dagster.start_timeout_s,
        ),
        Service(
            "dagster",
            (*_python("dagster_webserver"), "--host", addresses.dagster_host, "--port", str(addresses.dagster_port),
             "--workspace", workspace),
            shared,
            probe=GraphqlProbe(_local(addresses.dagster_host, addresses.dagster_port)),
            url=addresses.dagster_url,
            after=("dagster-code",),
            start_timeout_s=settings.dagster.start_timeout_s,
        ),
        Step("dagster-orphans", (sys.executable, "-m", "pipelines.orphans"), shared, after=("dagster-code",)),
        Service(
            "dagster-daemon",
            (*_python("dagster._daemon"), "run", "--workspace", workspace),
            shared,
            probe=GraphqlProbe(_local(addresses.dagster_host, addresses.dagster_port), daemons=True),
            after=("dagster-orphans", "dagster"),
            start_timeout_s=settings.dagster.start_timeout_s,
        ),
        Service(
            "serving",
            (*_python("bentoml"), "serve", SERVING_TARGET, "--host", addresses.serving_host, "--port",
             str(addresses.serving_port)),
            {**shared, "BENTOML_HOME": str(settings.data_dir.resolve() / "bentoml")},
            probe=HttpProbe(_local(addresses.serving_host, addresses.serving_port) + "/health/ready"),
            url=addresses.serving_url,
            start_timeout_s=settings.serving.start_timeout_s,
            stop_grace_s=15.0 + settings.serving.drain_s,
        ),
    ]  # fmt: skip


def list_externals(settings: Settings, endpoints: Endpoints) -> list[External]:
    """List the servers that `infra.endpoints` runs, to be watched; their URLs without the password."""

    def revive() -> None:
        # Our own lease keeps what this starts; the ports are remembered, so clients find it again.
        with open_endpoints(settings, mlflow=True):
            pass

    def watch(name: str, probe: Probe, url: str, configured: object) -> External:
        if configured:
            return External(name, probe, without_password(url))
        return External(name, probe, without_password(url), logs_dir(settings.data_dir) / f"{name}.log", revive)

    database, cache, mlflow = endpoints.database_url, endpoints.redis_url, endpoints.mlflow_url
    found = [
        watch("postgres", _tcp(database, 5432), database, settings.database_url),
        watch("redis", _tcp(cache, 6379), cache, settings.redis_url),
    ]
    if mlflow is not None:
        health = HttpProbe(f"{mlflow.rstrip('/')}/health", timeout_s=5.0)
        found.append(watch("mlflow", health, mlflow, settings.mlflow.url))
    return found


def prepare_dagster_home(data_dir: Path, addresses: Addresses) -> Path:
    """Write Dagster's folder: the project's dagster.yaml and a workspace that points at our code server.

    Raises:
        ConfigurationError: the project's dagster.yaml cannot be found.
    """
    home = data_dir.resolve() / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_project_file("dagster.yaml"), home / "dagster.yaml")
    server = {"host": LOOPBACK, "port": addresses.code_server, "location_name": LOCATION}
    (home / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    return home


def _project_file(name: str) -> Path:
    for folder in (Path(__file__).resolve().parents[2], Path.cwd()):
        if (folder / name).is_file():
            return folder / name
    raise ConfigurationError(f"`{name}` is not found: run `duet` in the folder of the project")


def _port(host: str, port: int, setting: str) -> int:
    if port == 0:
        return free_port(host)
    refuse_taken(port, setting, host)
    return port


def _python(module: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module)


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _local(host: str, port: int) -> str:
    """The address under which this machine reaches a server that listens on `host`."""
    return _url(LOOPBACK if host in ANY_ADDRESS else host, port)


def _tcp(url: str, default_port: int) -> TcpProbe:
    parts = urlsplit(url)
    return TcpProbe(parts.hostname or LOOPBACK, parts.port or default_port)


def _broken_location(data: dict[str, dict[str, object]]) -> str | None:
    workspace = data["workspaceOrError"]
    entries = workspace.get("locationEntries")
    if not isinstance(entries, list) or not entries:
        return "no code location is loaded"
    for entry in entries:
        if entry["loadStatus"] != "LOADED":
            return f"the code location {entry['name']} is loading"
        result = entry["locationOrLoadError"]
        if result["__typename"] != "RepositoryLocation":
            return f"the code location {entry['name']} cannot be loaded: {str(result.get('message', ''))[:300]}"
    return None


def _sick_daemons(data: dict[str, dict[str, dict[str, list[dict[str, Any]]]]], since: float) -> str | None:
    statuses = data["instance"]["daemonHealth"]["allDaemonStatuses"]
    sick = [
        str(s["daemonType"])
        for s in statuses
        if s["required"] and not (s["healthy"] and (s["lastHeartbeatTime"] or 0) >= since)
    ]
    return f"no heartbeat from {', '.join(sick)}" if sick else None
