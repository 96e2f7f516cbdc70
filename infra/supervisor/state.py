"""The file through which a running platform tells other commands about itself, and the lock that proves it runs.

`<data_dir>/platform/state.json` holds no secret. It is believed only while the supervisor holds
`<data_dir>/platform/lock`; the kernel lets go of the lock when the supervisor dies, however it dies.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from infra.data_folder import require_open_folder
from infra.embedded.account import make_private
from infra.supervisor.errors import PlatformRunning

_log = structlog.get_logger(__name__)


class Phase(StrEnum):
    """Where a platform stands."""

    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class ServicePhase(StrEnum):
    """Where one process stands."""

    WAITING = "waiting"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DIED = "died"
    DONE = "done"
    STOPPED = "stopped"


class ServiceState(BaseModel):
    """What is known of one process."""

    model_config = ConfigDict(extra="ignore")

    name: str
    phase: ServicePhase = ServicePhase.WAITING
    pid: int | None = None
    url: str | None = None
    log: Path | None = None
    detail: str | None = None
    ready_after_s: float | None = None
    is_ours: bool = True
    restarts_asked: int = 0


class PlatformState(BaseModel):
    """What is known of one platform.

    `identity` tells the supervisor from any other process with its pid; `watched_at` is when it last looked.
    """

    model_config = ConfigDict(extra="ignore")

    data_dir: Path
    pid: int
    identity: str
    phase: Phase = Phase.STARTING
    reason: str | None = None
    watched_at: float | None = None
    services: dict[str, ServiceState] = {}

    def urls(self) -> dict[str, str]:
        """Return the address of every service that has one, by name."""
        return {name: service.url for name, service in self.services.items() if service.url is not None}


def platform_dir(data_dir: Path) -> Path:
    """Return the folder of the state file and the lock."""
    return data_dir.resolve() / "platform"


def logs_dir(data_dir: Path) -> Path:
    """Return the folder of the log files."""
    return data_dir.resolve() / "logs"


def mark_of(data_dir: Path) -> str:
    """Return the mark that all processes of the platform on `data_dir` carry."""
    return str(data_dir.resolve())


def write_state(state: PlatformState) -> None:
    """Replace the state file in one step; raises OSError where that cannot be done."""
    folder = platform_dir(state.data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"state.{os.getpid()}.tmp"
    temporary.write_text(state.model_dump_json(indent=1))
    temporary.replace(folder / "state.json")


def publish_state(state: PlatformState) -> None:
    """Write the state, or log why that cannot be done now: what is watched must not end where a disk is full."""
    try:
        write_state(state)
    except OSError as refused:
        _log.error("state_not_written", folder=str(platform_dir(state.data_dir)), why=str(refused))


def read_state(data_dir: Path) -> PlatformState | None:
    """Return the last written state, dead or alive; None when there is none that can be read."""
    try:
        return PlatformState.model_validate_json((platform_dir(data_dir) / "state.json").read_text())
    except (FileNotFoundError, ValidationError):
        return None


def forget_state(data_dir: Path) -> None:
    """Remove the state file."""
    (platform_dir(data_dir) / "state.json").unlink(missing_ok=True)


def running_state(data_dir: Path) -> PlatformState | None:
    """Return the state of the platform that runs on `data_dir`, None when none runs."""
    return read_state(data_dir) if is_locked(data_dir) else None


def is_locked(data_dir: Path) -> bool:
    """Return whether a living supervisor holds `data_dir`; raises ConfigurationError where that cannot be looked up."""
    require_open_folder(data_dir)
    path = platform_dir(data_dir) / "lock"
    if not path.exists():
        return False
    with path.open("ab") as lock:
        return not _try_lock(lock)


@contextmanager
def platform_lock(data_dir: Path) -> Iterator[None]:
    """Hold `data_dir` for one supervisor.

    Raises:
        PlatformRunning: another one holds it.
    """
    make_private(data_dir.resolve())
    folder = platform_dir(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("ab") as lock:
        if not _try_lock(lock):
            raise _running(data_dir)
        yield


def refuse_running(data_dir: Path) -> None:
    """Raise PlatformRunning when a supervisor holds `data_dir`."""
    if is_locked(data_dir):
        raise _running(data_dir)


def _running(data_dir: Path) -> PlatformRunning:
    state = read_state(data_dir)
    who = f" (pid {state.pid})" if state is not None else ""
    return PlatformRunning(
        f"a platform already runs on {data_dir}{who}; see `duet status`, "
        "start one of its processes anew with `duet restart NAME`, stop it with `duet down`"
    )


def _try_lock(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
