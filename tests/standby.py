"""A real streaming standby of a Postgres server, made by the embedded server's own programs."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg

from infra.db.postgres import connect
from infra.embedded.account import REACHABLE, Account, reachable_copy
from infra.embedded.ports import free_port
from infra.embedded.postgres import installed_programs
from tests.killing import kill


@dataclass
class Standby:
    """A running standby; `url` is the primary's with another port."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def pause(self) -> None:
        """Let it receive and replay nothing: it falls behind."""
        self._control("select pg_wal_replay_pause()")

    def resume(self) -> None:
        """Let it catch up."""
        self._control("select pg_wal_replay_resume()")

    def silence(self) -> None:
        """Stop every process of it: connections stay open and nobody answers."""
        for process in self._processes():
            process.suspend()

    def kill(self) -> None:
        """SIGKILL every process of it."""
        processes = self._processes()
        self.process.kill()
        self.process.wait(10)
        for process in processes[1:]:
            if process.is_running():
                kill(process.pid)

    def _control(self, statement: psycopg.abc.Query) -> None:
        with connect(self.url, autocommit=True) as connection:
            connection.execute(statement)

    def _processes(self) -> list[psutil.Process]:
        main = psutil.Process(self.process.pid)
        return [main, *main.children()]


@contextmanager
def standby_of(primary_url: str, root: Path) -> Iterator[Standby]:
    """Run a standby for the length of the block; `root` takes its log."""
    account = Account.choose()
    programs = reachable_copy(account, installed_programs()) / "bin"
    # The account of the server cannot go into a temporary folder of root's.
    folder = Path(tempfile.mkdtemp(prefix="duet-standby-", dir=REACHABLE if account.uid is not None else root))
    account.make_folder(folder)
    data, log = folder / "data", root / "standby.log"
    port = free_port()
    options = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "max_connections": 200,  # as many as the primary's, or it refuses to start
        "shared_buffers": "16MB",
        "fsync": "off",
    }
    with log.open("wb") as output:
        copy = [programs / "pg_basebackup", "-D", data, "-R", "-X", "stream", "-c", "fast", "--no-sync"]
        subprocess.run(
            [*copy, "-d", primary_url], stdout=output, stderr=output, cwd=folder, check=True, **account.popen()
        )
        serve = [programs / "postgres", "-D", data, *(f"--{name}={value}" for name, value in options.items())]
        process = subprocess.Popen(serve, stdout=output, stderr=output, cwd=folder, **account.popen())
    place = urlsplit(primary_url)
    url = urlunsplit(place._replace(netloc=f"{place.netloc.rpartition(':')[0]}:{port}"))
    standby = Standby(process, url, log)
    try:
        _wait_until_it_answers(standby)
        yield standby
    finally:
        if process.poll() is None:
            standby.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_it_answers(standby: Standby) -> None:
    until = time.monotonic() + 20
    while True:
        assert standby.process.poll() is None, standby.log.read_text()
        try:
            psycopg.connect(standby.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            assert time.monotonic() < until, standby.log.read_text()
            time.sleep(0.05)
        else:
            return
