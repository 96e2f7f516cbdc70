"""Real servers are started, shared, killed and recovered."""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from psycopg import sql

from infra.cli.app import run
from infra.db.postgres import connect
from infra.embedded.account import ACCOUNT, REACHABLE
from infra.embedded.lease import leased
from infra.embedded.postgres import ROLE, EmbeddedPostgres, installed_programs
from infra.embedded.processes import identity
from infra.embedded.redis import EmbeddedRedis
from infra.embedded.roles import MLFLOW, PIPELINES, SERVING
from infra.embedded.servers import ServerStatus, inspect, stop_all
from infra.endpoints import Endpoints, open_endpoints, running_endpoints
from infra.errors import PortTaken, ServerUnavailable
from infra.settings import RedisSettings, Settings
from tests.killing import kill

# Opens endpoints on the data folder argv[1], says so, and waits for its standard input to end.
HOLD = """
import sys
from pathlib import Path
from infra.endpoints import open_endpoints
from infra.settings import RedisSettings, Settings
settings = Settings(data_dir=Path(sys.argv[1]), postgres={"shared_buffers_mb": 16}, mlflow={"port": 0})
with open_endpoints(settings) as endpoints:
    print(endpoints.database_url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Settings]:
    """Settings of servers that only this test uses, and nothing left of them afterwards."""
    settings = Settings(
        environment="test", data_dir=tmp_path / "duet", postgres={"shared_buffers_mb": 16}, mlflow={"port": 0}
    )
    yield settings
    stop_all(settings)
    data = EmbeddedPostgres(settings).known_data
    if data is not None and data.exists():
        shutil.rmtree(data)


def status_of(settings: Settings, name: str) -> ServerStatus:
    return next(server for server in inspect(settings) if server.name == name)


def hold(settings: Settings) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(settings.data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def let_go(holder: subprocess.Popen[str]) -> None:
    holder.communicate("", timeout=60)
    assert holder.returncode == 0


def test_two_processes_that_start_at_once_share_one_server_and_the_last_one_stops_it(alone: Settings) -> None:
    first, second = hold(alone), hold(alone)
    assert first.stdout is not None
    assert second.stdout is not None
    assert first.stdout.readline() == second.stdout.readline() != ""
    server = status_of(alone, "postgres")
    assert {holder.pid for holder in server.leases} == {first.pid, second.pid}
    let_go(first)
    assert status_of(alone, "postgres").pid == server.pid
    let_go(second)
    assert not any(server.is_running for server in inspect(alone))
    assert identity(server.pid or 0) is None


def test_a_killed_postgres_loses_no_committed_row_and_recovers(alone: Settings) -> None:
    with open_endpoints(alone) as endpoints:
        acknowledged = 0
        with (
            contextlib.closing(connect(endpoints.database_url, autocommit=True)) as writer,
            contextlib.suppress(psycopg.OperationalError),
        ):
            for user_id in range(1, 1_000_000):
                writer.execute("insert into duet.users (user_id) values (%s)", (user_id,))
                acknowledged = user_id
                if user_id == 200:
                    kill(status_of(alone, "postgres").pid or 0)
        assert acknowledged >= 200
        with pytest.raises(ServerUnavailable, match="cannot be reached"):
            connect(endpoints.database_url)
        with open_endpoints(alone) as recovered, connect(recovered.database_url) as connection:
            rows = connection.execute("select count(*) from duet.users where user_id <= %s", (acknowledged,)).fetchone()
            assert rows == (acknowledged,)
            assert recovered.database_url == endpoints.database_url


def test_a_postgres_whose_port_was_taken_meanwhile_moves(alone: Settings) -> None:
    with open_endpoints(alone) as endpoints:
        with connect(endpoints.database_url, autocommit=True) as connection:
            connection.execute("insert into duet.users (user_id) values (1)")
        port = status_of(alone, "postgres").port or 0
        kill(status_of(alone, "postgres").pid or 0)
        with socket.socket() as squatter:
            squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            for _ in range(200):  # the killed server's children let go of the socket a moment later
                with contextlib.suppress(OSError):
                    squatter.bind(("127.0.0.1", port))
                    squatter.listen()
                    break
                time.sleep(0.05)
            with open_endpoints(alone) as moved, connect(moved.database_url) as connection:
                assert status_of(alone, "postgres").port != port
                assert connection.execute("select count(*) from duet.users").fetchone() == (1,)


def test_a_killed_redis_keeps_what_it_acknowledged(alone: Settings) -> None:
    server = EmbeddedRedis(alone)
    with leased(server) as running:
        with redis.Redis.from_url(server.url(running)) as client:
            for number in range(500):
                client.set(f"key:{number}", number)
        kill(running.pid)
        with leased(server) as recovered, redis.Redis.from_url(server.url(recovered)) as client:
            assert recovered.pid != running.pid
            assert client.dbsize() == 500


def test_data_survives_a_clean_restart(alone: Settings) -> None:
    with open_endpoints(alone) as endpoints, redis.Redis.from_url(endpoints.redis_url) as client:
        client.set("key", "value")
        with connect(endpoints.database_url, autocommit=True) as connection:
            for setting in ("fsync", "full_page_writes", "synchronous_commit"):
                assert connection.execute(f"show {setting}".encode()).fetchone() == ("on",)
            connection.execute("insert into duet.users (user_id) values (1)")
    with open_endpoints(alone) as again, redis.Redis.from_url(again.redis_url) as client:
        assert again == endpoints
        assert client.get("key") == b"value"
        with connect(again.database_url) as connection:
            assert connection.execute("select user_id from duet.users").fetchall() == [(1,)]


def test_servers_whose_user_was_killed_are_used_again_or_stopped(alone: Settings) -> None:
    holder = hold(alone)
    assert holder.stdout is not None
    holder.stdout.readline()
    orphan = status_of(alone, "postgres")
    holder.kill()
    holder.communicate()
    assert status_of(alone, "postgres").leases == ()
    with open_endpoints(alone):
        assert status_of(alone, "postgres").pid == orphan.pid
    assert not status_of(alone, "postgres").is_running
    assert not any(server.is_running for server in inspect(alone))


def test_a_hung_postgres_is_replaced(alone: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedPostgres(alone)
    with leased(server) as running:
        os.kill(running.pid, signal.SIGSTOP)
        monkeypatch.setattr("infra.embedded.postgres.CONNECT_TIMEOUT_S", 1)
        monkeypatch.setattr("infra.embedded.postgres.STOP_TIMEOUT_S", 1.0)
        assert server.running(patience_s=0.0) is None
        replacement = server.start()
        assert replacement.pid != running.pid


def test_a_killed_initdb_leaves_nothing_half_made(alone: Settings) -> None:
    server = EmbeddedPostgres(alone)
    half_made = server.data.parent / f".{server.data.name}-init-left"
    half_made.mkdir(parents=True)
    with leased(server):
        assert not half_made.exists()


def test_a_data_folder_that_was_removed_and_made_anew_starts_empty(alone: Settings) -> None:
    with open_endpoints(alone) as endpoints, connect(endpoints.database_url, autocommit=True) as connection:
        connection.execute("insert into duet.users (user_id) values (1)")
    shutil.rmtree(alone.data_dir)
    with open_endpoints(alone) as endpoints, connect(endpoints.database_url) as connection:
        assert connection.execute("select count(*) from duet.users").fetchone() == (0,)


def test_data_of_another_major_version_is_refused_in_one_sentence(alone: Settings) -> None:
    server = EmbeddedPostgres(alone)
    assert server.password
    server.data.mkdir(parents=True)
    (server.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(ServerUnavailable, match="was made by PostgreSQL 9"), leased(server):
        pass


@pytest.mark.parametrize(("group", "variable"), [("postgres", "DUET_POSTGRES__PORT"), ("redis", "DUET_REDIS__PORT")])
def test_an_explicit_port_that_is_taken_is_refused_in_one_sentence(tmp_path: Path, group: str, variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(data_dir=tmp_path / "duet", **{group: {"port": port}})
        server = EmbeddedPostgres(settings) if group == "postgres" else EmbeddedRedis(settings)
        with pytest.raises(PortTaken, match=rf"Port {port} on 127.0.0.1 is taken.*`{variable}`"), leased(server):
            pass
        assert not any(server.is_running for server in inspect(settings))
    data = EmbeddedPostgres(settings).known_data
    if data is not None:
        shutil.rmtree(data)


def test_servers_listen_on_loopback_only_and_ask_for_a_password(endpoints: Endpoints) -> None:
    with connect(endpoints.database_url) as connection:
        assert connection.execute("show listen_addresses").fetchone() == ("127.0.0.1",)
    password = psycopg.conninfo.conninfo_to_dict(endpoints.database_url)["password"]
    with pytest.raises(ServerUnavailable) as caught:
        connect(endpoints.database_url.replace(str(password), "wrong-password"))
    assert "wrong-password" not in str(caught.value)
    url = endpoints.redis_url.partition("@")[2]
    with redis.Redis.from_url(f"redis://{url}") as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_passwords_are_in_private_files_and_in_no_command_line(alone: Settings) -> None:
    with open_endpoints(alone, roles=True) as endpoints:
        secrets = list((alone.data_dir / "secrets").iterdir())
        assert len(secrets) == 6
        assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
        passwords = [path.read_text().strip() for path in secrets]
        commands = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
        assert not [command for command in commands for password in passwords if password in command]
        children = (endpoints, endpoints.of_serving(), endpoints.of_pipelines())
        given = "".join(value for child in children for value in child.environment().values())
        # A child of the supervisor is told neither the superuser's nor that of MLflow's server.
        kept = {(alone.data_dir / "secrets" / f"postgres_{who}password").read_text().strip() for who in ("", "mlflow_")}
        assert {password for password in passwords if password not in given} == kept


def test_nobody_who_is_given_a_url_is_a_superuser_and_only_the_owner_may_change_the_schema(alone: Settings) -> None:
    with open_endpoints(alone) as before, connect(before.database_url, autocommit=True) as connection:
        # As in a data folder of before there were the roles.
        connection.execute("create table mlflow.made_by_the_owner (id int)")
    with open_endpoints(alone, roles=True) as endpoints:
        server, running = EmbeddedPostgres(alone), EmbeddedPostgres(alone).running()
        assert running is not None
        urls = {role: server.url(running, role) for role in (ROLE, SERVING, PIPELINES, MLFLOW)}
        assert urls[ROLE] == endpoints.database_url
        assert urls[SERVING] == endpoints.of_serving().database_url
        assert urls[PIPELINES] == endpoints.of_pipelines().database_url
        refused = {
            SERVING: ["alter table duet.users add more int", "drop table duet.users", "select from duet.imports"],
            PIPELINES: ["select from duet.api_keys", "select from mlflow.made_by_the_owner"],
            MLFLOW: ["select from duet.users", "select from features.user_profile", "select from dagster.any"],
        }
        for role, url in urls.items():
            with connect(url, autocommit=True) as connection:
                [rights] = connection.execute(
                    "select current_user::text, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls"
                    " from pg_roles where rolname = current_user"
                )
                assert rights == (role, False, False, False, False)
                denied = ["copy (select 1) to program 'true'", *refused.get(role, [])]
                denied += ["create schema mine", "create table duet.mine (id int)"] if role in refused else []
                for statement in denied:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute(statement.encode())
        with connect(urls[MLFLOW], autocommit=True) as connection:
            connection.execute("alter table mlflow.made_by_the_owner add more int")
            connection.execute("create table mlflow.made_by_itself (id int)")
        with connect(urls[ROLE]) as connection:
            connection.execute("select from mlflow.made_by_itself")


def test_what_a_superuser_owned_before_is_the_services_after_the_next_start(alone: Settings) -> None:
    server = EmbeddedPostgres(alone)
    with leased(server) as running, connect(server.superuser_url(running), autocommit=True) as connection:
        connection.execute(sql.SQL("alter database duet owner to {}").format(sql.Identifier("duet")))
        connection.execute("create schema old")
        connection.execute("create type old.mood as enum ('good')")
        connection.execute('create table old."Odd name" (id bigint generated always as identity, mood old.mood)')
        connection.execute("create view old.seen as select 1 as one")
        connection.execute("create function old.one() returns int language sql as 'select 1'")
    with open_endpoints(alone) as endpoints, connect(endpoints.database_url) as connection:
        connection.execute("insert into old.\"Odd name\" (mood) values ('good')")
        connection.execute('alter table old."Odd name" add column more int')
        for what in ("function old.one()", "view old.seen", 'table old."Odd name"', "type old.mood", "schema old"):
            connection.execute(sql.SQL("drop {}").format(sql.SQL(what)))


def test_nothing_below_the_data_folder_is_open_to_others(alone: Settings) -> None:
    alone.data_dir.mkdir(mode=0o755)
    with open_endpoints(alone, mlflow=True):
        assert alone.data_dir.stat().st_mode & 0o067 == 0
        served = [*(alone.data_dir / "mlflow").rglob("*"), alone.data_dir / "logs" / "mlflow.log"]
        assert not [path for path in served if path.stat().st_mode & 0o077]
        data = EmbeddedPostgres(alone).data
        assert data.stat().st_mode & 0o077 == 0
        if os.geteuid() == 0:
            assert (data.owner(), data.group()) == (ACCOUNT, ACCOUNT)


def test_data_that_belonged_to_the_shared_account_becomes_the_servers_own(alone: Settings) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root lends its server another account")
    server = EmbeddedPostgres(alone)
    with leased(server):
        pass
    for path in (server.data, *server.data.rglob("*")):
        shutil.chown(path, "nobody", "nogroup")
    with open_endpoints(alone) as endpoints, connect(endpoints.database_url) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    assert {path.owner() for path in server.data.rglob("*")} == {ACCOUNT}


def test_configured_urls_start_nothing(tmp_path: Path, connected_settings: Settings, endpoints: Endpoints) -> None:
    with open_endpoints(connected_settings) as opened:
        assert (opened.database_url, opened.redis_url) == (endpoints.database_url, endpoints.redis_url)
    assert not list(connected_settings.data_dir.glob("*")), "the folder is made private, and nothing is in it"


def test_the_printed_variables_lead_to_the_running_servers(alone: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ServerUnavailable, match="start the platform with `duet up`"):
        running_endpoints(alone)
    with open_endpoints(alone) as endpoints:
        assert run(["--data-dir", str(alone.data_dir), "env"], entries=()) == 0
    printed = dict(line.removeprefix("export ").split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert {name: shlex.split(value)[0] for name, value in printed.items()} == {
        **endpoints.environment(),
        "MLFLOW_BACKEND_STORE_URI": endpoints.sqlalchemy_url("mlflow"),
    }


def test_stop_all_stops_servers_in_use(alone: Settings) -> None:
    with open_endpoints(alone):
        stop_all(alone)
        assert not any(server.is_running for server in inspect(alone))


def test_root_can_run_a_checkout_that_nobody_else_can_read(
    tmp_path: Path, alone: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root lends its server another account")
    installed = installed_programs()
    closed = tmp_path / "site-packages"
    shutil.copytree(installed, closed / installed.parent.name / installed.name, symlinks=True)
    libraries = installed.parent.with_name(installed.parent.name + ".libs")
    shutil.copytree(libraries, closed / libraries.name, symlinks=True)
    closed.chmod(0o700)
    aside = Path(tempfile.mkdtemp(dir=REACHABLE))
    aside.chmod(0o755)
    monkeypatch.setattr("infra.embedded.account.REACHABLE", aside)
    monkeypatch.setattr(
        "infra.embedded.postgres.installed_programs", lambda: closed / installed.parent.name / installed.name
    )
    try:
        with open_endpoints(alone) as endpoints, connect(endpoints.database_url) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        note = next(server.note for server in inspect(alone) if server.name == "postgres")
        assert "cannot reach" in note
    finally:
        shutil.rmtree(aside)


def test_a_start_that_progresses_is_waited_for_beyond_its_limit(
    alone: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedRedis(alone.model_copy(update={"redis": RedisSettings(start_timeout_s=1.0)}))
    answers, began = EmbeddedRedis._answers, time.monotonic()

    def loading(one: EmbeddedRedis, port: int) -> bool:
        with one.log.open("a") as log:
            log.write("loading\n")
        return time.monotonic() - began > 1.5 and answers(one, port)

    monkeypatch.setattr(EmbeddedRedis, "_answers", loading)
    running = server.start()
    assert psutil.pid_exists(running.pid)


def test_a_start_without_progress_is_given_up_with_its_setting_and_leaves_nothing(
    alone: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedRedis(alone.model_copy(update={"redis": RedisSettings(start_timeout_s=0.5)}))
    monkeypatch.setattr(EmbeddedRedis, "_answers", lambda *_: False)
    with pytest.raises(ServerUnavailable, match=r"did not start .* without progress: .*DUET_REDIS__START_TIMEOUT_S"):
        server.start()
    assert server._processes() == []
