"""Counts who uses an embedded server: the first user starts it, the last one out stops it.

A lease is a file named after its holder; the folder is guarded by `flock`, so that two processes that start at once
get one server. Leases of dead processes (also after a reused pid) are pruned by whoever comes next. It refuses to
wait for the lock for ever.
"""

import contextlib
import fcntl
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from infra.embedded.files import write_text
from infra.embedded.processes import identity, is_alive
from infra.errors import ServerUnavailable

LOCK_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Running:
    """A server that runs: its main process and where it listens."""

    pid: int
    host: str
    port: int


class Server(Protocol):
    """One embedded server; every method is called under the lock of its folder."""

    @property
    def folder(self) -> Path:
        """The folder of the lock and the leases."""
        ...

    def running(self) -> Running | None:
        """Return the server that runs and answers, or None."""
        ...

    def start(self) -> Running:
        """Start the server, clearing up after a crash, and wait until it answers."""
        ...

    def stop(self) -> None:
        """End the server and everything it left behind."""
        ...


@dataclass(frozen=True)
class Holder:
    """A live process that uses a server."""

    pid: int
    command: str


@contextlib.contextmanager
def locked(folder: Path, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Hold the folder's lock; the kernel drops it if this process dies. Raises ServerUnavailable after `timeout_s`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a", encoding="ascii") as file:
        until = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise ServerUnavailable(
                        f"Another process has been starting or stopping the server of `{folder}` for more than"
                        f" {timeout_s:.0f} s: end it, then try again."
                    ) from None
                time.sleep(0.02)
        yield


@contextlib.contextmanager
def leased(server: Server) -> Iterator[Running]:
    """Use a server for the length of the block, starting it if nobody has; the last user out stops it."""
    with locked(server.folder):
        _prune(server.folder)
        # Written before the start: a kill in between leaves a dead lease, never a server without one.
        mine = _write_lease(server.folder)
    owner = os.getpid()
    try:
        with locked(server.folder):
            running = server.running() or server.start()
        yield running
    finally:
        # A start that failed, or was told to end in its middle, may have left a process.
        if os.getpid() == owner:  # a forked child that unwinds must not give up its parent's lease
            with locked(server.folder):
                mine.unlink(missing_ok=True)
                _stop_if_unused(server)


def retire(server: Server) -> bool:
    """Stop a server that nobody uses; return whether it is stopped."""
    if not server.folder.exists():
        return True  # never started: leave no trace of having looked
    with locked(server.folder):
        return _stop_if_unused(server)


def stop(server: Server) -> None:
    """Stop a server whoever uses it."""
    with locked(server.folder):
        server.stop()


def holders(folder: Path) -> list[Holder]:
    """Return the live processes that hold a lease."""
    return [holder for _, holder in _leases(folder) if holder is not None]


def _stop_if_unused(server: Server) -> bool:
    _prune(server.folder)
    if holders(server.folder):
        return False
    server.stop()
    return True


def _write_lease(folder: Path) -> Path:
    pid = os.getpid()
    path = folder / "leases" / f"{pid}-{secrets.token_hex(4)}.json"
    command = " ".join([Path(sys.argv[0] or sys.executable).name, *sys.argv[1:3]])
    write_text(path, json.dumps({"pid": pid, "identity": identity(pid), "command": command}))
    return path


def _leases(folder: Path) -> list[tuple[Path, Holder | None]]:
    found: list[tuple[Path, Holder | None]] = []
    for path in sorted((folder / "leases").glob("*.json")):
        try:
            lease = json.loads(path.read_text(encoding="utf-8"))
            alive = is_alive(int(lease["pid"]), str(lease["identity"]))
            found.append((path, Holder(int(lease["pid"]), str(lease["command"])) if alive else None))
        except FileNotFoundError:
            continue  # given up while we looked
        except (OSError, ValueError, KeyError, TypeError):
            found.append((path, None))  # torn by a full disk: nobody can vouch for it
    return found


def _prune(folder: Path) -> None:
    for path, holder in _leases(folder):
        if holder is None:
            path.unlink(missing_ok=True)
