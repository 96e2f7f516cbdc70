"""One platform on one data directory: run it here, start it in the background, stop it, ask where it is.

A supervisor that was killed leaves processes behind; the next start and the next stop find and end them.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType

from infra.data_folder import require_data_folder, require_open_folder
from infra.embedded.processes import identity, is_alive
from infra.endpoints import open_endpoints
from infra.safe_settings import refuse_unsafe
from infra.settings import Settings
from infra.supervisor.errors import PlatformNotStopped, ServiceDied, StartInterrupted, in_words
from infra.supervisor.processes import describe_exit, end, spawn, sweep, tail
from infra.supervisor.spec import External, Spec
from infra.supervisor.stack import duet_stack
from infra.supervisor.state import (
    Phase,
    PlatformState,
    ServiceState,
    forget_state,
    is_locked,
    logs_dir,
    mark_of,
    platform_lock,
    publish_state,
    read_state,
    refuse_running,
    running_state,
    write_state,
)
from infra.supervisor.supervisor import Report, Supervisor
from infra.supervisor.upkeep import Upkeep
from infra.time_zones import require_time_zones
from infra.web.token import decided

STOP_WITHIN_S = 90.0
TICK_S = 0.25

Ready = Callable[[PlatformState], None]
Stack = Callable[[Settings], AbstractContextManager[tuple[list[Spec], list[External]]]]


def run_platform(
    settings: Settings,
    *,
    report: Report = lambda _: None,
    on_ready: Ready = lambda _: None,
    stack: Stack = duet_stack,
) -> None:
    """Run everything in the foreground until SIGINT, SIGTERM or SIGHUP, then stop everything.

    Args:
        settings: of the platform.
        report: called after each change of one process.
        on_ready: called once, when everything is healthy.
        stack: gives the processes to run and the servers to watch.

    Raises:
        PlatformRunning: one already runs on this data directory.
        ConfigurationError: production refuses these settings, or the folder or the machine cannot be used; nothing was
            started.
        DuetError: a port is taken, or something did not start; everything is stopped again.
    """
    refuse_unsafe(settings)
    require_data_folder(settings.data_dir)
    require_time_zones()
    settings = decided(settings)
    with platform_lock(settings.data_dir), _stop_on_signals() as stop:
        sweep(mark_of(settings.data_dir))
        pid = os.getpid()
        state = PlatformState(data_dir=settings.data_dir.resolve(), pid=pid, identity=identity(pid) or "")
        write_state(state)
        try:
            with stack(settings) as (specs, externals):
                supervisor = Supervisor(state, report=report, should_stop=stop.is_set)
                try:
                    supervisor.start(specs, externals)
                    supervisor.watch()
                    on_ready(state)
                    upkeep = Upkeep(settings)
                    while not stop.wait(TICK_S):
                        supervisor.watch()
                        upkeep.look()
                finally:
                    state.phase = Phase.STOPPING
                    publish_state(state)
                    supervisor.stop()
        except StartInterrupted:
            forget_state(settings.data_dir)
        except Exception as failure:
            state.phase, state.reason = Phase.FAILED, in_words(failure)
            publish_state(state)
            raise
        else:
            forget_state(settings.data_dir)


def start_in_background(settings: Settings, *, report: Report = lambda _: None) -> PlatformState:
    """Start a supervisor in a session of its own and return when everything is healthy.

    Raises:
        PlatformRunning: one already runs on this data directory.
        ConfigurationError: production refuses these settings, or the folder or the machine cannot be used; nothing was
            started.
        ServiceDied: the supervisor ended before that; the sentence gives its reason.
    """
    refuse_unsafe(settings)
    require_data_folder(settings.data_dir)
    require_time_zones()
    data_dir = settings.data_dir.resolve()
    refuse_running(data_dir)
    log = logs_dir(data_dir) / "platform.log"
    forget_state(data_dir)
    command = (sys.executable, "-m", "infra.cli", "--data-dir", str(data_dir), "up")
    process = spawn(command, mark="", environment={"PYTHONUNBUFFERED": "1"}, log_path=log)
    try:
        return _await_background(process, data_dir, log, report)
    except BaseException:
        # Ctrl-C while waiting must not leave a half-started platform in the background.
        end(process, STOP_WITHIN_S)
        raise


def _await_background(process: subprocess.Popen[bytes], data_dir: Path, log: Path, report: Report) -> PlatformState:
    seen: dict[str, ServiceState] = {}
    while True:
        code = process.poll()
        state = read_state(data_dir)
        ours = state if state is not None and state.pid == process.pid else None
        for name, service in (ours.services if ours is not None else {}).items():
            if seen.get(name) != service:
                seen[name] = service
                report(service)
        if code is not None:
            reason = ours.reason if ours is not None else None
            last = tail(log, 1).removeprefix("error: ")
            raise ServiceDied(reason or f"the platform ended with {describe_exit(code)}; {log} ends: {last}")
        if ours is not None and ours.phase in {Phase.RUNNING, Phase.DEGRADED}:
            return ours
        time.sleep(TICK_S)


def stop_platform(settings: Settings) -> bool:
    """Stop the platform of this data directory and return whether anything was there to stop.

    Raises:
        PlatformNotStopped: processes are left over although they were killed.
        ConfigurationError: the data folder cannot be looked into.
    """
    require_open_folder(settings.data_dir)
    data_dir = settings.data_dir.resolve()
    state = running_state(data_dir)
    if state is not None:
        _end_supervisor(state)
    with platform_lock(data_dir):
        swept = sweep(mark_of(data_dir))
        crashed = state is None and read_state(data_dir) is not None
        if crashed or swept:
            # The killed supervisor could not give its databases back: whoever uses them last stops them.
            with open_endpoints(settings):
                pass
        forget_state(data_dir)
    left = sweep(mark_of(data_dir), grace_s=1.0)
    if left:
        raise PlatformNotStopped(f"processes keep coming back: {', '.join(map(str, left))}; end them by hand")
    return state is not None or crashed or bool(swept)


def serving_url(settings: Settings) -> str:
    """Return the address of the serving app: of the running platform, else of the settings."""
    state = running_state(settings.data_dir)
    url = state.urls().get("serving") if state is not None else None
    return url or f"http://{settings.serving.host}:{settings.serving.port}"


def dagster_url(settings: Settings) -> str:
    """Return the address of Dagster's web server: of the running platform, else of the settings."""
    state = running_state(settings.data_dir)
    url = state.urls().get("dagster") if state is not None else None
    return url or f"http://{settings.dagster.host}:{settings.dagster.port}"


def _end_supervisor(state: PlatformState) -> None:
    if is_alive(state.pid, state.identity):
        _signal(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_WITHIN_S
    while is_locked(state.data_dir) or is_alive(state.pid, state.identity):
        if time.monotonic() > deadline:
            _signal(state.pid, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(TICK_S)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError as refused:
        raise PlatformNotStopped(f"the platform (pid {pid}) belongs to another user; stop it as that user") from refused


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    stop = threading.Event()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, ask_to_stop) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
