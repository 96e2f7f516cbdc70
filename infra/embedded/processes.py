"""Recognises, finds and ends processes without being fooled by a reused pid.

A process is known by its pid together with its start time. A zombie counts as dead.
"""

import contextlib
import time
from pathlib import Path

import psutil

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def identity(pid: int) -> str | None:
    """Return what tells this process from any other that ever had its pid, or None if it is dead."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists():
            # Start time in clock ticks since boot: unlike a wall time it does not move when the clock is set.
            ticks = stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
            return f"{BOOT_ID.read_text(encoding='ascii').strip()}:{ticks}"
        return f"{process.create_time():.2f}"
    except (psutil.Error, OSError, ValueError):
        return None


def is_alive(pid: int, known_as: str) -> bool:
    """Tell whether the very process that had `known_as` as its identity still runs."""
    return identity(pid) == known_as


def uptime_s(pid: int) -> float:
    """Return seconds since the process started, 0 if it is dead."""
    try:
        return max(0.0, time.time() - psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def working_in(folder: Path, name: str) -> list[psutil.Process]:
    """Return the live processes whose name starts with `name` and whose working directory is `folder`, oldest first.

    Postgres and Redis change into their data folder, and so do their children: it survives a lost pid file.
    """
    wanted = str(folder.resolve())
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.name().startswith(name)
                and process.status() != psutil.STATUS_ZOMBIE
                and process.cwd().removesuffix(" (deleted)") == wanted
            ):
                found.append(process)
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or of another user and therefore not ours
    return sorted(found, key=lambda process: process.create_time())


def end(processes: list[psutil.Process], *, grace_s: float) -> None:
    """Terminate processes, kill what is left after `grace_s` seconds, and wait until all are gone."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    left = _wait(processes, grace_s)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _wait(left, 10.0)


def _wait(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    until = time.monotonic() + seconds
    left = processes
    while left and time.monotonic() < until:
        left = [process for process in left if _is_up(process)]
        if left:
            time.sleep(0.02)
    return left


def _is_up(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
