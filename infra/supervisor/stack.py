"""The processes of Duet on one machine: their commands, their order, and how one sees that they are healthy.

Postgres, Redis and MLflow come from `infra.endpoints`; here are Dagster's three processes and the serving app.
The order is not taste: orphaned runs are closed after the code server answers and before the daemon retries them.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from infra.embedded.lease import Server, stop
from infra.embedded.mlflow import EmbeddedMlflow
from infra.embedded.ports import free_port, refuse_taken
from infra.embedded.postgres import EmbeddedPostgres
from infra.embedded.redis import EmbeddedRedis
from infra.endpoints import Endpoints, open_endpoints
from infra.errors import ConfigurationError
from infra.settings import Settings
from infra.supervisor.probes import (
    CodeServerProbe,
    GraphqlProbe,
    HeartbeatProbe,
    PostgresProbe,
    RedisProbe,
    StreamProbe,
)
from infra.supervisor.sockets import private_socket
from infra.supervisor.spec import External, HttpProbe, Probe, Service, Spec, StartStep
from infra.supervisor.state import logs_dir
from infra.telemetry import TELEMETRY_OFF
from infra.urls import without_password
from infra.web.token import guard_environment, web_token

LOCATION = "duet"
PLAIN_LOG = ("--log-format", "json")  # Dagster's usual form colours every line, in files, too
CODE_MODULE = "pipelines.definitions"
# After so long without its proxy's heartbeat the process with our code ends itself, and nobody starts it again: with
# Dagster's 30 s a machine that slept or stood still lost every schedule, sensor and guard. `duet down` ends it, too.
CODE_UNHEARD_S = 7 * 86_400
DAGSTER_LIMIT = "DUET_DAGSTER__START_TIMEOUT_S"
SERVING_LIMIT = "DUET_SERVING__START_TIMEOUT_S"
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
    with open_endpoints(settings, mlflow=True, roles=True) as endpoints:
        yield build_stack(settings, endpoints, addresses, home), list_externals(settings, endpoints)


@dataclass(frozen=True)
class Addresses:
    """Where this start listens: the socket of Dagster's code server, and ports that were free a moment ago."""

    code_server: Path
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
    """Check or pick the addresses of everything that starts here.

    Whoever reaches the code server runs code as this account, so it listens where no other account comes in.

    Raises:
        PortTaken: something else listens on a port of the settings.
        ConfigurationError: there is no place for a socket of this account's own.
    """
    dagster, serving = settings.dagster, settings.serving
    return Addresses(
        code_server=private_socket(settings.data_dir, "dagster-code"),
        dagster_host=dagster.host,
        dagster_port=_port(dagster.host, dagster.port, "DUET_DAGSTER__PORT"),
        serving_host=serving.host,
        serving_port=_port(serving.host, serving.port, "DUET_SERVING__PORT"),
    )


def build_stack(settings: Settings, endpoints: Endpoints, addresses: Addresses, home: Path) -> list[Spec]:
    """List the processes to start, in an order in which each comes after what it needs.

    Args:
        settings: of this platform.
        endpoints: the running databases; a process is told of Postgres as the role that it needs, and no other.
        addresses: from `choose_addresses`.
        home: Dagster's folder, from `prepare_dagster_home`.
    """
    token = web_token(settings)
    shared = {
        **TELEMETRY_OFF,
        **guard_environment(settings),
        "DUET_DAGSTER__HOST": addresses.dagster_host,
        "DUET_DAGSTER__PORT": str(addresses.dagster_port),
        "DUET_SERVING__PORT": str(addresses.serving_port),
        "DAGSTER_HOME": str(home),
        "PYTHONUNBUFFERED": "1",
    }
    # Dagster's own tables are brought forward by their owner, as Duet's are.
    migrating = {**shared, **endpoints.environment()}
    pipelines = {**shared, **endpoints.of_pipelines().environment()}
    serves = {**shared, **endpoints.of_serving().environment()}
    workspace = str(home / "workspace.yaml")
    code = CodeServerProbe(addresses.code_server)
    dagster = _local(addresses.dagster_host, addresses.dagster_port)
    serving = _local(addresses.serving_host, addresses.serving_port)
    specs: list[Spec] = [
        StartStep(
            "dagster-storage",
            (*_python("dagster"), "instance", "migrate"),
            migrating,
            start_timeout_s=settings.dagster.start_timeout_s,
            limit_setting=DAGSTER_LIMIT,
        ),
        Service(
            "dagster-code",
            (*_python("dagster"), "code-server", "start", "--socket", str(addresses.code_server),
             "--module-name", CODE_MODULE, "--location-name", LOCATION, "--use-python-environment-entry-point",
             "--heartbeat-ttl", str(CODE_UNHEARD_S), *PLAIN_LOG),
            pipelines,
            probe=code,
            alive=code,
            after=("dagster-storage",),
            # Runs that the code server launched go on without it; those that did not survive are closed.
            again=("dagster-orphans",),
            outlives="multiprocessing",
            start_timeout_s=settings.dagster.start_timeout_s,
            limit_setting=DAGSTER_LIMIT,
        ),
        Service(
            "dagster",
            (*_python("pipelines.webserver"), "--host", addresses.dagster_host, "--port", str(addresses.dagster_port),
             "--workspace", workspace, *PLAIN_LOG),
            pipelines,
            probe=GraphqlProbe(dagster, token),
            alive=HttpProbe(f"{dagster}/server_info", timeout_s=10.0),
            url=addresses.dagster_url,
            after=("dagster-code",),
            start_timeout_s=settings.dagster.start_timeout_s,
            limit_setting=DAGSTER_LIMIT,
        ),
        StartStep(
            "dagster-orphans",
            _python("pipelines.runs.orphans"),
            pipelines,
            after=("dagster-code",),
            start_timeout_s=settings.dagster.start_timeout_s,
            limit_setting=DAGSTER_LIMIT,
        ),
        Service(
            "dagster-daemon",
            (*_python("dagster._daemon"), "run", "--workspace", workspace, *PLAIN_LOG),
            pipelines,
            probe=GraphqlProbe(dagster, token, daemons=True),
            alive=HeartbeatProbe(dagster, token),
            hung_after_s=180.0,  # after a sleep of the machine the next beat may be a minute away
            after=("dagster-orphans", "dagster"),
            start_timeout_s=settings.dagster.start_timeout_s,
            limit_setting=DAGSTER_LIMIT,
        ),
        Service(
            "serving",
            (*_python("bentoml"), "serve", SERVING_TARGET, "--host", addresses.serving_host, "--port",
             str(addresses.serving_port)),
            {**serves, "BENTOML_HOME": str(settings.data_dir.resolve() / "bentoml")},
            probe=HttpProbe(f"{serving}/health/ready"),
            alive=HttpProbe(f"{serving}/health/live", timeout_s=10.0),
            url=addresses.serving_url,
            start_timeout_s=settings.serving.start_timeout_s,
            limit_setting=SERVING_LIMIT,
            stop_grace_s=15.0 + settings.serving.drain_s,
        ),
    ]  # fmt: skip
    if settings.stream.enabled:
        at_work = StreamProbe(settings.data_dir.resolve())
        specs.append(
            Service(
                "stream",
                (*_python("infra.cli"), "stream"),
                serves,
                probe=at_work,
                alive=at_work,
                start_timeout_s=settings.serving.start_timeout_s,
                limit_setting=SERVING_LIMIT,
                stop_grace_s=20.0,
            )
        )
    return specs


def list_externals(settings: Settings, endpoints: Endpoints) -> list[External]:
    """List the servers that `infra.endpoints` runs, to be watched; their URLs without the password."""

    def revive() -> None:
        # Our own lease keeps what this starts; the ports are remembered, so clients find it again.
        with open_endpoints(settings, mlflow=True):
            pass

    def watch(name: str, probe: Probe, url: str, configured: object, server: Server) -> External:
        if configured:
            return External(name, probe, without_password(url))
        log = logs_dir(settings.data_dir) / f"{name}.log"
        return External(name, probe, without_password(url), log, revive, lambda: stop(server))

    database, cache, mlflow = endpoints.database_url, endpoints.redis_url, endpoints.mlflow_url
    found = [
        watch(
            "postgres",
            PostgresProbe(endpoints.of_serving().database_url),
            database,
            settings.database_url,
            EmbeddedPostgres(settings),
        ),
        watch("redis", RedisProbe(cache), cache, settings.redis_url, EmbeddedRedis(settings)),
    ]
    if mlflow is not None:
        health = HttpProbe(f"{mlflow.rstrip('/')}/health", timeout_s=5.0)
        found.append(watch("mlflow", health, mlflow, settings.mlflow.url, EmbeddedMlflow(settings)))
    return found


def prepare_dagster_home(data_dir: Path, addresses: Addresses) -> Path:
    """Write Dagster's folder: the project's dagster.yaml and a workspace that points at our code server.

    Raises:
        ConfigurationError: the project's dagster.yaml cannot be found.
    """
    home = data_dir.resolve() / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_project_file("dagster.yaml"), home / "dagster.yaml")
    server = {"socket": str(addresses.code_server), "location_name": LOCATION}
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
