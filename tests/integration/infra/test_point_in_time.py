"""A database is brought back to the moment before a mistake, by the scripts and settings that compose mounts."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.embedded.account import REACHABLE, Account, reachable_copy
from infra.embedded.ports import free_port
from infra.embedded.postgres import installed_programs
from tests.architecture.sources import ROOT
from tests.waiting import until

SCRIPTS = ROOT / "infra" / "compose" / "postgres"


@dataclass
class Cluster:
    """A cluster of its own in `folder`, which archives as postgresql.conf says."""

    folder: Path
    account: Account
    programs: Path
    port: int = field(default_factory=free_port)

    @property
    def environment(self) -> dict[str, str]:
        """What the scripts are given, and where the programs are."""
        return {
            "PATH": f"{self.programs / 'bin'}:{os.environ['PATH']}",
            "ARCHIVE": str(self.folder / "archive"),
            "PGDATA": str(self.folder / "data"),
            "PGHOST": "127.0.0.1",
            "PGUSER": "duet",
            "PGPORT": str(self.port),
            "PGTZ": "UTC",
        }

    def run(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(word) for word in words],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            **self.account.popen(),
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def make(self) -> None:
        self.run("initdb", "--username", "duet", "--auth", "trust", "--no-sync", "--encoding", "UTF8")

    def start(self) -> None:
        """Start it with the settings of the log in postgresql.conf; only the place of the script is another."""
        text = (SCRIPTS / "postgresql.conf").read_text().replace("/etc/duet/postgres", str(self.folder / "scripts"))
        chosen = re.findall(r"^(archive_\w+|wal_level|max_wal_senders) = (.*)$", text, re.MULTILINE)
        assert {name for name, _ in chosen} >= {"archive_mode", "archive_command", "archive_timeout", "wal_level"}
        own = {
            "listen_addresses": "'127.0.0.1'",
            "unix_socket_directories": "''",
            "shared_buffers": "16MB",
            "fsync": "off",
        }
        written = "".join(f"{name} = {value}\n" for name, value in [*chosen, *own.items()])
        (self.folder / "test.conf").write_text(written)
        options = f"-p {self.port} -c config_file={self.folder / 'data' / 'postgresql.conf'}"
        (self.folder / "data" / "postgresql.conf").write_text(f"include '{self.folder / 'test.conf'}'\n")
        self.run("pg_ctl", "start", "--wait", "--silent", "--log", self.folder / "log", "--options", options)

    def stop(self) -> None:
        self.run("pg_ctl", "stop", "--mode", "fast", "--wait", "--silent", check=False)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(host="127.0.0.1", port=self.port, user="duet", dbname="postgres", autocommit=True)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    account = Account.choose()
    programs = reachable_copy(account, installed_programs())
    # The account of the server cannot go into a temporary folder of root's.
    parent = REACHABLE if account.uid is not None else tmp_path
    folder = Path(tempfile.mkdtemp(prefix="duet-recovery-", dir=parent))
    shutil.copytree(SCRIPTS, folder / "scripts")
    made = Cluster(folder, account, programs)
    for path in (folder / "archive", folder / "data"):
        path.mkdir()
        account.make_folder(path)
    account.make_folder(folder)
    try:
        made.make()
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def archived(cluster: Cluster) -> list[str]:
    return sorted(path.name for path in (cluster.folder / "archive" / "wal").glob("*.gz"))


def test_a_deleted_table_is_back_after_a_recovery_to_the_moment_before(cluster: Cluster) -> None:
    scripts = cluster.folder / "scripts"
    with cluster.connect() as connection:
        connection.execute("create table likes as select generate_series(1, 10) as id")
        connection.execute("select pg_switch_wal()")
        until(lambda: connection.execute("select archived_count from pg_stat_archiver").fetchone() != (0,))
        assert not (cluster.folder / "archive" / "wal").exists(), "nothing is kept before a base backup"
        cluster.run("sh", scripts / "base-backup.sh")
        connection.execute("select pg_sleep(1.1)")  # a base backup is named by the second
        connection.execute("insert into likes select generate_series(11, 20)")
        [moment] = connection.execute("select clock_timestamp()::text").fetchone() or [""]
        connection.execute("drop table likes")
        connection.execute("select pg_switch_wal()")
        [written] = connection.execute("select pg_walfile_name(pg_current_wal_lsn() - 1)").fetchone() or [""]
        until(lambda: f"{written}.gz" in archived(cluster))
    cluster.stop()
    refused = cluster.run("sh", scripts / "recover.sh", moment, check=False)
    assert "is not empty" in refused.stderr
    (cluster.folder / "data").rename(cluster.folder / "aside")
    said = cluster.run("sh", scripts / "recover.sh", moment).stdout
    assert "is in place" in said
    cluster.start()
    with cluster.connect() as connection:
        until(lambda: connection.execute("select pg_is_in_recovery()").fetchone() == (False,))
        assert connection.execute("select count(*) from likes").fetchone() == (20,)


def test_a_new_base_backup_deletes_what_only_older_ones_needed(cluster: Cluster) -> None:
    scripts, archive = cluster.folder / "scripts", cluster.folder / "archive"
    for name in ("base-20200101T000000Z", "base-20200102T000000Z"):
        (archive / name).mkdir()
    (archive / "wal").mkdir(mode=0o777)
    (archive / "wal").chmod(0o777)
    old = archive / "wal" / "000000010000000000000000.gz"
    old.write_bytes(b"")
    kept = "START WAL LOCATION: 0/9000028 (file 000000010000000000000009)\n"
    (archive / "base-20200102T000000Z" / "backup_label").write_text(kept)
    cluster.run("sh", scripts / "base-backup.sh")
    names = sorted(path.name for path in archive.glob("base-*"))
    assert len(names) == 2
    assert names[0] == "base-20200102T000000Z"
    assert not old.exists()
