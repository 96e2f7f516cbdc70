"""Start one process, end one process with everything it started, and find what was left over.

Every process started here carries the mark `SUPERVISED_BY_DUET=<data directory>` in its environment, which its own
children inherit. So a later command finds all of them even when the supervisor was killed and no parent is left.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from infra.files import PRIVATE

MARK = "SUPERVISED_BY_DUET"  # not `DUET_…`: the settings refuse variables that they do not know
NAME = "SUPERVISED_AS"
TAIL_LINES = 25
GONE_WITHIN_S = 5.0
TAIL_BYTES = 16_384


def spawn(
    command: tuple[str, ...], *, mark: str, environment: Mapping[str, str], log_path: Path, name: str = ""
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, its output appended to `log_path`.

    Raises:
        OSError: the program cannot be started.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log, _default_signals():
        return subprocess.Popen(  # noqa: S603 - the commands are ours
            command,
            env={**os.environ, **environment, MARK: mark, NAME: name},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=PRIVATE,
        )


def end(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """End `process`: SIGTERM, up to `grace_s` seconds, then SIGKILL of its whole group; reaps it."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    # The leader may be gone while members of its group live on.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def clear(process: subprocess.Popen[bytes], mark: str, name: str, outlives: str | None = None) -> None:
    """Kill `process` and everything it started, so that its ports are free for the next one; reaps it.

    What it started is known by `mark` and `name`, because workers in sessions of their own belong to no group of it.
    Those whose command line holds the word `outlives`, and everything that they started, are spared.
    """
    found = [member for member in marked(mark) if member.pid != process.pid and _variable(member, NAME) == name]
    spared = {
        pid
        for member in found
        if outlives is not None and outlives in _words(member)
        for pid in (member.pid, *(child.pid for child in _children(member)))
    }
    if process.poll() is None:
        process.kill()
    ended = [member for member in found if member.pid not in spared]
    _signal_all(ended, signal.SIGKILL)
    psutil.wait_procs(ended, timeout=GONE_WITHIN_S)
    process.wait()


def marked(mark: str) -> list[psutil.Process]:
    """Return the living processes that carry `mark`, this one and its ancestors excepted."""
    me = psutil.Process()
    spared = {me.pid, *(parent.pid for parent in me.parents())}
    return [process for process in psutil.process_iter() if process.pid not in spared and _carries(process, mark)]


def sweep(mark: str, grace_s: float = 5.0) -> list[int]:
    """End every process that carries `mark`: SIGTERM, up to `grace_s` seconds, SIGKILL. Return their pids.

    A process that starts another one while it is being ended is covered: the sweep repeats until none is found.
    """
    swept: list[int] = []
    for _ in range(5):
        found = marked(mark)
        if not found:
            break
        swept += [process.pid for process in found]
        _signal_all(found, signal.SIGTERM)
        _, alive = psutil.wait_procs(found, timeout=grace_s)
        _signal_all(alive, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=grace_s)
    return sorted(set(swept))


def tail(log_path: Path, lines: int = TAIL_LINES) -> str:
    """Return the last `lines` lines of a log file; empty when there is none."""
    try:
        with log_path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - TAIL_BYTES))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def describe_exit(code: int) -> str:
    """Say how a process ended: its exit code, or the name of the signal."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _carries(process: psutil.Process, mark: str) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark
    except (psutil.Error, OSError):  # gone meanwhile, or of another user
        return False


def _variable(process: psutil.Process, variable: str) -> str | None:
    try:
        return process.environ().get(variable)
    except (psutil.Error, OSError):
        return None


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _signal_all(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


@contextmanager
def _default_signals() -> Iterator[None]:
    """Undo ignored SIGINT and SIGTERM while a child starts: it would inherit that and never stop.

    Handlers written in Python need no care, a new program starts without them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ignored = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
