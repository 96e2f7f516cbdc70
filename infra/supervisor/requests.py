"""How another command asks a running platform to start one of its processes anew: a file named after the process."""

import time
from collections.abc import Callable
from pathlib import Path

from infra.supervisor.errors import PlatformNotRunning, RestartFailed, UnknownProcess
from infra.supervisor.state import PlatformState, ServicePhase, ServiceState, platform_dir, running_state

TICK_S = 0.1


def take_requests(data_dir: Path) -> list[str]:
    """Return the names that were asked for since the last call, and forget them."""
    names = []
    for path in sorted(_folder(data_dir).glob("*")):
        path.unlink(missing_ok=True)
        names.append(path.name)
    return names


def restart(data_dir: Path, name: str, *, report: Callable[[ServiceState], None] = lambda _: None) -> ServiceState:
    """Have the running platform end and start one process, and return once it is healthy again.

    Raises:
        PlatformNotRunning: nobody is there to do it.
        UnknownProcess: the platform has no process of that name, or somebody else runs it.
        RestartFailed: it ended again, or cannot be started.
    """
    state = _running(data_dir)
    before = state.services.get(name)
    names = sorted(name for name, service in state.services.items() if service.is_ours)
    if before is None or not before.is_ours:
        why = "is not started by Duet" if before is not None else "is no process of this platform"
        raise UnknownProcess(f"`{name}` {why}: choose one of {', '.join(names)}")
    folder = _folder(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    seen = before
    while True:
        now = _running(data_dir).services[name]
        if now != seen:
            seen = now
            report(now)
        if now.restarts_asked > before.restarts_asked and now.phase is ServicePhase.HEALTHY:
            return now
        if now.restarts_asked > before.restarts_asked and now.phase is ServicePhase.DIED:
            raise RestartFailed(f"{name} {now.detail}")
        time.sleep(TICK_S)


def _running(data_dir: Path) -> PlatformState:
    state = running_state(data_dir)
    if state is None:
        raise PlatformNotRunning(f"no platform runs on {data_dir}; start one with `duet up`")
    return state


def _folder(data_dir: Path) -> Path:
    return platform_dir(data_dir) / "restart"
