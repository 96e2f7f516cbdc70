"""All embedded servers of one data folder at a glance, and the way to stop them whoever uses them."""

from dataclasses import dataclass
from pathlib import Path

from infra.embedded.lease import Holder, holders, stop
from infra.embedded.mlflow import EmbeddedMlflow
from infra.embedded.postgres import EmbeddedPostgres
from infra.embedded.processes import uptime_s
from infra.embedded.redis import EmbeddedRedis
from infra.settings import Settings


@dataclass(frozen=True)
class ServerStatus:
    """One server: whether it runs, where, since when, for whom; `pid` and `port` are None when it does not."""

    name: str
    pid: int | None
    port: int | None
    uptime_s: float
    leases: tuple[Holder, ...]
    data: Path
    log: Path
    note: str

    @property
    def is_running(self) -> bool:
        """Tell whether the server runs and answers."""
        return self.pid is not None


def inspect(settings: Settings) -> list[ServerStatus]:
    """Look at every server without locking, starting or changing anything."""
    found = []
    for server in _servers(settings):
        running = server.running(patience_s=0.0) if server.folder.exists() else None
        note = ""
        data = (server.known_data or server.wanted) if isinstance(server, EmbeddedPostgres) else server.data
        if isinstance(server, EmbeddedPostgres) and data != server.wanted:
            note = f"data lies in {data}, because the server's account cannot reach {server.wanted}"
        found.append(
            ServerStatus(
                name=server.name,
                pid=running.pid if running else None,
                port=running.port if running else None,
                uptime_s=uptime_s(running.pid) if running else 0.0,
                leases=tuple(holders(server.folder)),
                data=data,
                log=server.log,
                note=note,
            )
        )
    return found


def stop_all(settings: Settings) -> None:
    """Stop every server, those in use included; MLflow first, because it works on Postgres."""
    for server in _servers(settings):
        if server.folder.exists():
            stop(server)


def _servers(settings: Settings) -> tuple[EmbeddedMlflow, EmbeddedRedis, EmbeddedPostgres]:
    return EmbeddedMlflow(settings), EmbeddedRedis(settings), EmbeddedPostgres(settings)
