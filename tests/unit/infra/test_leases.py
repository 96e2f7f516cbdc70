import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.embedded.account import REACHABLE, Account, data_folder, reachable_copy
from infra.embedded.files import secret, write_text
from infra.embedded.lease import Running, holders, leased, locked, retire, stop
from infra.embedded.ports import choose, is_free, refuse_taken
from infra.embedded.processes import identity, is_alive
from infra.errors import PortTaken, ServerUnavailable


@dataclass
class FakeServer:
    """A server that only counts."""

    folder: Path
    name: str = "fake"
    is_up: bool = False
    fails: bool = False
    calls: list[str] = field(default_factory=list)

    def running(self) -> Running | None:
        return Running(1, "127.0.0.1", 1) if self.is_up else None

    def start(self) -> Running:
        self.calls.append("start")
        if self.fails:
            raise ServerUnavailable("The fake does not start.")
        self.is_up = True
        return Running(1, "127.0.0.1", 1)

    def stop(self) -> None:
        self.calls.append("stop")
        self.is_up = False


@pytest.fixture
def server(tmp_path: Path) -> FakeServer:
    return FakeServer(tmp_path / "run")


def test_the_first_user_starts_and_the_last_one_stops(server: FakeServer) -> None:
    with leased(server):
        with leased(server):
            assert len(holders(server.folder)) == 2
        assert server.calls == ["start"]
    assert server.calls == ["start", "stop"]
    assert holders(server.folder) == []


def test_threads_that_start_at_once_get_one_server(server: FakeServer) -> None:
    together = threading.Barrier(6)

    def use() -> None:
        together.wait()
        with leased(server):
            together.wait()

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.calls == ["start", "stop"]


def test_a_failed_start_leaves_no_lease(server: FakeServer) -> None:
    server.fails = True
    with pytest.raises(ServerUnavailable), leased(server):
        pass
    assert holders(server.folder) == []


def test_a_start_that_is_told_to_end_in_its_middle_leaves_no_process(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = server.start

    def told_to_end() -> Running:
        whole()
        raise SystemExit(128 + signal.SIGTERM)

    monkeypatch.setattr(server, "start", told_to_end)
    with pytest.raises(SystemExit), leased(server):
        pass
    assert server.running() is None
    assert holders(server.folder) == []


def test_an_error_inside_the_block_gives_the_lease_back(server: FakeServer) -> None:
    with pytest.raises(KeyError), leased(server):
        raise KeyError
    assert server.calls == ["start", "stop"]


def test_the_lease_of_a_dead_process_does_not_keep_a_server(server: FakeServer) -> None:
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    lease = {"pid": int(child.stdout), "identity": "gone", "command": "x"}
    write_text(server.folder / "leases" / "dead.json", json.dumps(lease))
    server.is_up = True
    assert retire(server)
    assert server.calls == ["stop"]
    assert list((server.folder / "leases").iterdir()) == []


def test_a_reused_pid_does_not_keep_a_server(server: FakeServer) -> None:
    lease = {"pid": os.getpid(), "identity": "started at another time", "command": "x"}
    write_text(server.folder / "leases" / "reused.json", json.dumps(lease))
    assert holders(server.folder) == []


def test_a_torn_lease_does_not_keep_a_server(server: FakeServer) -> None:
    write_text(server.folder / "leases" / "torn.json", '{"pid": 1')
    assert retire(server)


def test_retire_leaves_a_server_in_use_alone_and_stop_does_not(server: FakeServer) -> None:
    with leased(server):
        assert not retire(server)
        assert server.is_up
        stop(server)
        assert not server.is_up


def test_a_forked_child_does_not_give_up_its_parents_lease(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with leased(server):
        parent = os.getpid()
        monkeypatch.setattr("infra.embedded.lease.os.getpid", lambda: parent + 1)
    assert server.calls == ["start"]


def test_waiting_for_the_lock_is_bounded(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ServerUnavailable, match="starting or stopping"), locked(tmp_path, 0.05):
        pass


def test_a_zombie_counts_as_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    known_as = identity(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert identity(child.pid) is None
    assert not is_alive(child.pid, known_as or "")
    child.wait()


def test_an_explicit_port_that_is_taken_is_refused_by_name(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"Port {port} on 127.0.0.1 is taken.*`DUET_REDIS__PORT`"):
            choose(port, tmp_path / "port", "DUET_REDIS__PORT")
    refuse_taken(port, "DUET_REDIS__PORT")


def test_a_chosen_port_is_remembered_until_somebody_takes_it(tmp_path: Path) -> None:
    memory = tmp_path / "port"
    first = choose(0, memory, "X")
    assert choose(0, memory, "X") == first
    with socket.create_server(("127.0.0.1", first)):
        assert not is_free(first)
        second = choose(0, memory, "X")
    assert second != first
    assert memory.read_text() == str(second)


def test_a_damaged_memory_of_the_port_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("nonsense")
    assert 0 < choose(0, tmp_path / "port", "X") < 65536


def test_a_password_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "password"
    assert secret(path) == secret(path)
    assert len(secret(path)) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("infra.files.os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_data_below_a_closed_folder_is_kept_aside_and_the_choice_is_remembered(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    account = Account(uid=65534, gid=65534)
    kept = data_folder(account, closed / "data" / "postgres", tmp_path / "note")
    assert kept.parent == REACHABLE
    assert kept == data_folder(Account(None, None), closed / "data" / "postgres", tmp_path / "note")


def test_this_very_user_reaches_everything(tmp_path: Path) -> None:
    assert data_folder(Account(None, None), tmp_path / "postgres", tmp_path / "note") == tmp_path / "postgres"


def test_programs_below_a_closed_folder_are_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.embedded.account.REACHABLE", tmp_path / "aside")
    (tmp_path / "aside").mkdir()
    programs = tmp_path / "closed" / "wheel" / "install"
    (programs / "bin").mkdir(parents=True)
    (programs / "bin" / "postgres").write_text("program")
    (tmp_path / "closed" / "wheel.libs").mkdir()
    (tmp_path / "closed" / "wheel.libs" / "libpq.so").write_text("library")
    (tmp_path / "closed").chmod(0o700)
    account = Account(uid=65534, gid=65534)
    copy = reachable_copy(account, programs)
    assert (copy / "bin" / "postgres").read_text() == "program"
    assert (copy / ".." / ".." / "wheel.libs" / "libpq.so").read_text() == "library"
    assert reachable_copy(account, programs) == copy
    assert reachable_copy(Account(None, None), programs) == programs


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a folder of somebody else")
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 12345, -1)
    with pytest.raises(ServerUnavailable, match="belongs to somebody else"):
        Account(uid=65534, gid=65534).make_folder(folder)
