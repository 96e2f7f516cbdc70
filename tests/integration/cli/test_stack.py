import http.server
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from pydantic import SecretStr

from infra.embedded.ports import free_port
from infra.endpoints import Endpoints
from infra.errors import PortTaken
from infra.settings import Settings
from infra.sign_of_life import SIGNS, SignOfLife
from infra.supervisor.probes import (
    CodeServerProbe,
    GraphqlProbe,
    HeartbeatProbe,
    PostgresProbe,
    RedisProbe,
    StreamProbe,
)
from infra.supervisor.processes import end, marked, spawn, sweep, tail
from infra.supervisor.sockets import private_socket
from infra.supervisor.spec import HttpProbe, Service, StartStep, TcpProbe
from infra.supervisor.stack import build_stack, choose_addresses, list_externals, prepare_dagster_home

ENDPOINTS = Endpoints(
    "postgresql://duet:planted@127.0.0.1:5/duet", "redis://:planted@127.0.0.1:6/0", "http://127.0.0.1:7"
)


def make(tmp_path: Path, **groups: Any) -> Settings:
    return Settings(data_dir=tmp_path, **{"dagster": {"port": 0}, "serving": {"port": 0}, **groups})  # type: ignore[arg-type]


@contextmanager
def answering(payload: object, status: int = 200) -> Iterator[str]:
    """A web server that answers every question with the same JSON."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(payload).encode())

        do_GET = do_POST  # noqa: N815 - the name that the library calls

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_the_process_with_our_code_outlives_a_machine_that_stood_still(tmp_path: Path) -> None:
    settings = make(tmp_path)
    stack = {spec.name: spec for spec in build_stack(settings, ENDPOINTS, choose_addresses(settings), tmp_path)}
    command = stack["dagster-code"].command
    assert int(command[command.index("--heartbeat-ttl") + 1]) >= 86_400


def test_orphans_are_closed_between_the_code_server_and_the_daemon(tmp_path: Path) -> None:
    settings = make(tmp_path)
    addresses = choose_addresses(settings)
    stack = {spec.name: spec for spec in build_stack(settings, ENDPOINTS, addresses, tmp_path)}
    assert stack["dagster-code"].after == ("dagster-storage",)
    assert stack["dagster-orphans"].after == ("dagster-code",)
    assert "dagster-orphans" in stack["dagster-daemon"].after
    assert isinstance(stack["dagster-orphans"], StartStep)


def test_the_consumer_of_streams_is_there_where_it_is_wanted(tmp_path: Path) -> None:
    for wanted in (False, True):
        settings = make(tmp_path, stream={"enabled": wanted})
        names = [spec.name for spec in build_stack(settings, ENDPOINTS, choose_addresses(settings), tmp_path)]
        assert ("stream" in names) is wanted


def test_children_use_the_running_servers_and_report_nothing_home(tmp_path: Path) -> None:
    settings = make(tmp_path)
    addresses = choose_addresses(settings)
    for spec in build_stack(settings, ENDPOINTS, addresses, tmp_path):
        assert spec.environment["DUET_DATABASE_URL"] == ENDPOINTS.database_url
        assert spec.environment["DUET_MLFLOW__URL"] == ENDPOINTS.mlflow_url
        assert spec.environment["DUET_SERVING__PORT"] == str(addresses.serving_port)
        assert spec.environment["BENTOML_DO_NOT_TRACK"] == "true"
        assert Path(spec.environment["DUET_DATA_DIR"]).is_absolute()
        assert "planted" not in " ".join(spec.command)


def test_each_process_is_told_of_postgres_as_the_role_that_it_needs(tmp_path: Path) -> None:
    of_serving, of_pipelines = (f"postgresql://{who}:planted@127.0.0.1:5/duet" for who in ("serving", "pipelines"))
    endpoints = replace(ENDPOINTS, serving_database_url=of_serving, pipelines_database_url=of_pipelines)
    settings = make(tmp_path, stream={"enabled": True})
    specs = build_stack(settings, endpoints, choose_addresses(settings), tmp_path)
    assert {spec.name: spec.environment["DUET_DATABASE_URL"] for spec in specs} == {
        "dagster-storage": ENDPOINTS.database_url,
        "dagster-code": of_pipelines,
        "dagster": of_pipelines,
        "dagster-orphans": of_pipelines,
        "dagster-daemon": of_pipelines,
        "serving": of_serving,
        "stream": of_serving,
    }


def test_every_process_is_asked_whether_it_is_ready_and_whether_it_hangs(tmp_path: Path) -> None:
    settings = make(tmp_path, stream={"enabled": True})
    services = [
        spec
        for spec in build_stack(settings, ENDPOINTS, choose_addresses(settings), tmp_path)
        if isinstance(spec, Service)
    ]
    assert len(services) == 5
    assert not [service.name for service in services if service.probe is None or service.alive is None]


def test_dagsters_processes_write_logs_without_colours(tmp_path: Path) -> None:
    settings = make(tmp_path)
    stack = {spec.name: spec for spec in build_stack(settings, ENDPOINTS, choose_addresses(settings), tmp_path)}
    for name in ("dagster-code", "dagster", "dagster-daemon"):
        command = stack[name].command
        assert command[command.index("--log-format") + 1] == "json", name


def test_whatever_takes_too_long_to_start_names_the_setting_of_its_limit(tmp_path: Path) -> None:
    settings = make(
        tmp_path,
        stream={"enabled": True},
        dagster={"port": 0, "start_timeout_s": 7},
        serving={"port": 0, "start_timeout_s": 8},
    )
    specs = build_stack(settings, ENDPOINTS, choose_addresses(settings), tmp_path)
    of_dagster, of_serving = ("DUET_DAGSTER__START_TIMEOUT_S", 7.0), ("DUET_SERVING__START_TIMEOUT_S", 8.0)
    assert {spec.name: (spec.limit_setting, spec.start_timeout_s) for spec in specs} == {
        "dagster-storage": of_dagster,
        "dagster-code": of_dagster,
        "dagster": of_dagster,
        "dagster-orphans": of_dagster,
        "dagster-daemon": of_dagster,
        "serving": of_serving,
        "stream": of_serving,
    }


def test_passwords_do_not_show_in_addresses(tmp_path: Path) -> None:
    assert not [e.url for e in list_externals(make(tmp_path), ENDPOINTS) if "planted" in e.url]


def test_only_databases_of_our_own_are_started_again(tmp_path: Path) -> None:
    own = list_externals(make(tmp_path), ENDPOINTS)
    assert all(external.revive is not None and external.log is not None for external in own)
    others = make(
        tmp_path,
        database_url=SecretStr(ENDPOINTS.database_url),
        redis_url=SecretStr(ENDPOINTS.redis_url),
        mlflow={"url": "http://127.0.0.1:7"},
    )
    assert all(external.revive is None and external.stop is None for external in list_externals(others, ENDPOINTS))


def test_the_workspace_points_at_our_code_server(tmp_path: Path) -> None:
    addresses = choose_addresses(make(tmp_path))
    home = prepare_dagster_home(tmp_path, addresses)
    [entry] = yaml.safe_load((home / "workspace.yaml").read_text())["load_from"]
    assert entry == {"grpc_server": {"socket": str(addresses.code_server), "location_name": "duet"}}
    assert (home / "dagster.yaml").is_file()


def test_a_server_on_every_address_is_probed_on_this_machine(tmp_path: Path) -> None:
    settings = make(tmp_path, serving={"port": 0, "host": "0.0.0.0"})  # noqa: S104
    addresses = choose_addresses(settings)
    serving = build_stack(settings, ENDPOINTS, addresses, tmp_path)[-1]
    assert isinstance(serving, Service)
    assert serving.probe == HttpProbe(f"http://127.0.0.1:{addresses.serving_port}/health/ready")


def test_a_taken_port_is_refused_with_its_setting(tmp_path: Path) -> None:
    with answering({}) as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(PortTaken, match=rf"{port}.*DUET_SERVING__PORT"):
            choose_addresses(make(tmp_path, serving={"port": port}))


def location(result: dict[str, str], status: str = "LOADED") -> dict[str, Any]:
    entry = {"name": "duet", "loadStatus": status, "locationOrLoadError": result}
    return {"data": {"workspaceOrError": {"__typename": "Workspace", "locationEntries": [entry]}}}


@pytest.mark.parametrize(
    ("payload", "refusal"),
    [
        (location({"__typename": "RepositoryLocation"}), None),
        (location({}, "LOADING"), "the code location duet is loading"),
        (
            location({"__typename": "PythonError", "message": "no module"}),
            "the code location duet cannot be loaded: no module",
        ),
        ({"data": {"workspaceOrError": {"locationEntries": []}}}, "no code location is loaded"),
    ],
)
def test_dagster_is_healthy_when_our_code_is_loaded(payload: object, refusal: str | None) -> None:
    with answering(payload) as url:
        assert GraphqlProbe(url).check() == refusal


def daemons(at: float | None, *, healthy: bool = True) -> dict[str, Any]:
    one = {"daemonType": "SENSOR", "required": True, "healthy": healthy, "lastHeartbeatTime": at}
    unused = {"daemonType": "BACKFILL", "required": False, "healthy": False, "lastHeartbeatTime": None}
    return {"data": {"instance": {"daemonHealth": {"allDaemonStatuses": [one, unused]}}}}


def test_heartbeats_of_an_earlier_or_a_silent_daemon_do_not_count() -> None:
    now = time.time()
    with answering(daemons(at=now - 100.0)) as url:
        assert GraphqlProbe(url, daemons=True, since=now - 101.0).check() is None
        assert GraphqlProbe(url, daemons=True, since=now - 99.0).check() == "no heartbeat from SENSOR"
        assert GraphqlProbe(url, daemons=True, since=0.0).started(now).check() == "no heartbeat from SENSOR"
    with answering(daemons(at=now - 1000.0)) as url:
        assert GraphqlProbe(url, daemons=True, since=now - 5000.0).check() == "no heartbeat from SENSOR"
    with answering(daemons(at=None)) as url:
        assert GraphqlProbe(url, daemons=True, since=99.0).check() == "no heartbeat from SENSOR"
    with answering(daemons(at=now, healthy=False)) as url:
        assert GraphqlProbe(url, daemons=True, since=99.0).check() == "no heartbeat from SENSOR"


def test_a_daemon_hangs_only_where_dagster_answers_that_it_has_long_been_silent() -> None:
    now = time.time()
    for healthy, last, hangs in (
        (True, now - 100.0, False),
        (False, now - 100.0, False),  # a beat that tells of an error is one, too
        (False, now - 1000.0, True),
        (False, None, False),
    ):
        with answering(daemons(at=last, healthy=healthy)) as url:
            refusal = HeartbeatProbe(url).check()
        assert refusal == ("no heartbeat from SENSOR for more than 300 s" if hangs else None)
    with answering({"data": None, "errors": ["Postgres does not answer"]}) as url:
        assert HeartbeatProbe(url).check() is None
    assert HeartbeatProbe(f"http://127.0.0.1:{free_port()}").check() is None


def test_a_consumer_of_streams_is_known_by_the_rounds_that_it_began(tmp_path: Path) -> None:
    now, probe = time.time(), StreamProbe(tmp_path)
    assert probe.check() == "no round on the streams of interactions, people"
    for name in SIGNS:
        SignOfLife(tmp_path, name).give()
    assert probe.check() is None
    assert probe.started(now - 1.0).check() is None
    assert probe.started(now + 1000.0).check() == "no round on the streams of interactions, people"
    os.utime(tmp_path / "stream" / "people.alive", (now - 61.0, now - 61.0))
    assert probe.check() == "no round on the streams of people"


@pytest.fixture
def mute() -> Iterator[int]:
    """The port of a server that hangs: the kernel accepts its connections, and nobody ever reads from them."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_a_server_that_hangs_is_not_healthy_because_its_port_is_open(mute: int) -> None:
    assert TcpProbe("127.0.0.1", mute).check() is None
    redis = RedisProbe(f"redis://:planted@127.0.0.1:{mute}/0", timeout_s=0.3).check()
    assert redis is not None
    assert redis.startswith(f"127.0.0.1:{mute} answers no PING (")
    postgres = PostgresProbe(f"postgresql://duet:planted@127.0.0.1:{mute}/duet", timeout_s=2.0).check()
    assert postgres is not None
    assert postgres.startswith(f"127.0.0.1:{mute} answers no query (")
    assert "planted" not in redis + postgres


def test_a_code_server_that_hangs_is_not_healthy_because_its_socket_is_there(tmp_path: Path) -> None:
    path = tmp_path / "code"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        silent = CodeServerProbe(path, timeout_s=0.3).check()
    assert silent == f"the code server at {path} does not answer (DEADLINE_EXCEEDED)"


def test_databases_that_answer_are_healthy(endpoints: Endpoints) -> None:
    assert PostgresProbe(endpoints.database_url).check() is None
    assert RedisProbe(endpoints.redis_url).check() is None


def test_a_code_server_is_asked_through_to_the_process_that_holds_the_code(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text("import dagster as dg\n\n@dg.asset\ndef one() -> None: ...\n")
    path = private_socket(tmp_path / "data", "dagster-code")
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))  # what a server leaves that was killed
    command = (
        *(sys.executable, "-m", "dagster", "code-server", "start", "--socket", str(path)),
        *("--python-file", str(tmp_path / "tiny.py"), "--location-name", "tiny"),
    )
    log, mark = tmp_path / "log", str(tmp_path)
    home = {"DAGSTER_HOME": str(tmp_path), "DAGSTER_DISABLE_TELEMETRY": "yes"}
    process = spawn(command, mark=mark, environment=home, log_path=log)
    probe = CodeServerProbe(path)
    try:
        wait_for(lambda: probe.check() is None, tail_of=log)
        assert path.is_socket()
        assert path.stat().st_mode & 0o077 == 0
        assert not [c for p in marked(mark) for c in p.net_connections("inet")]
        (tmp_path / "tiny.py").write_text("raise ConnectionError('nobody is there')\n")
        with grpc.insecure_channel(f"unix:{path}") as channel:
            channel.unary_unary("/api.DagsterApi/ReloadCode")(b"", timeout=120)
        assert "the code cannot be loaded: ConnectionError: nobody is there" in str(probe.check())
        inner = next(p for p in marked(mark) if p.pid != process.pid and " grpc " in f" {' '.join(p.cmdline())} ")
        inner.kill()
        wait_for(lambda: probe.check() is not None, tail_of=log)
        assert path.is_socket()
    finally:
        end(process, 5.0)
        sweep(mark)


def wait_for(claim: Callable[[], object], *, tail_of: Path) -> None:
    deadline = time.monotonic() + 120
    while not claim():
        assert time.monotonic() < deadline, tail(tail_of)
        time.sleep(0.1)


def test_a_service_that_is_not_ready_is_shown_with_its_reasons() -> None:
    with answering({"reasons": ["Postgres does not answer", "no people"]}, status=503) as url:
        assert HttpProbe(url).check() == f"{url} answers 503: Postgres does not answer; no people"
    with answering("nothing", status=500) as url:
        assert HttpProbe(url).check() == f"{url} answers 500"


def test_a_silent_dagster_is_a_reason_and_not_a_crash() -> None:
    refusal = GraphqlProbe(f"http://127.0.0.1:{free_port()}").check()
    assert refusal is not None
    assert refusal.endswith("/graphql gives no answer (ConnectError)")
