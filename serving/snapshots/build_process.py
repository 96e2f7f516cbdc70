"""A worker's side of the process that writes the snapshot: at most one runs on a machine, whoever started it."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from infra.endpoints import Endpoints
from infra.settings import Settings
from infra.variables import variables
from serving.errors import BuildFailed
from serving.snapshots.generations import Generations

_ROOT = Path(__file__).parents[2]
_GRACE_S = 2.0


class BuildProcess:
    """Starts `python -m serving.snapshots.build` and hears of its end."""

    def __init__(self, settings: Settings, endpoints: Endpoints, generations: Generations) -> None:
        self._told = _told(settings, endpoints)
        self._generations = generations
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> bool:
        """Start to write the next generation; False when another process does so already."""
        lock = self._generations.lock()
        if lock is None:
            return False
        with lock:  # the child keeps its copy, and with it the right to write
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serving.snapshots.build"],
                stdin=subprocess.PIPE,
                cwd=_ROOT,
                pass_fds=(lock.fileno(),),
            )
        if self._process.stdin is not None:
            self._process.stdin.write(self._told)
            self._process.stdin.flush()  # and left open: its end tells the child that we are gone
        return True

    def running(self) -> bool:
        """Say whether the process that was started still works; raises BuildFailed once if it failed."""
        process = self._process
        if process is None:
            return False
        status = process.poll()
        if status is None:
            return True
        self._process = None
        _let_go(process)
        if status:
            raise BuildFailed(f"the process that writes it ended with status {status}.")
        return False

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _let_go(process)


def _let_go(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def _told(settings: Settings, endpoints: Endpoints) -> bytes:
    """Render settings as one line of JSON, without secrets but for the two URLs that the child needs."""
    # A secret would be masked in it, and a mask is no URL and no token.
    told = settings.model_dump(mode="json", exclude=_secrets())
    told |= {
        "data_dir": str(settings.data_dir.resolve()),
        "database_url": endpoints.database_url,
        "redis_url": endpoints.redis_url,
    }
    return json.dumps(told).encode() + b"\n"


def _secrets() -> dict[str, Any]:
    """Return the tree of what is secret in the settings, for pydantic's `exclude`."""
    tree: dict[str, Any] = {}
    for variable in variables(Settings):
        if variable.is_secret:
            branch = tree
            for part in variable.path[:-1]:
                branch = branch.setdefault(part, {})
            branch[variable.path[-1]] = True
    return tree
