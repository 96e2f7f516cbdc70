"""Tries a release in a process of its own before this one loads it: a file that aborts a reader kills only the child.

XGBoost and FAISS read native files and trust them: a damaged one can abort, hang or take all memory, and none of that
is an exception. The child verifies every digest, loads, and answers the canary queries, under limits.
"""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from registry.contracts import ArtifactKind
from registry.errors import TrialFailed
from registry.models.artifacts import read_manifest
from registry.promotion.release_cache import LocalRelease

_ROOT: Final = Path(__file__).parents[2]
_SHOWN: Final = 300


@dataclass(frozen=True)
class TrialLimits:
    """What the child may use: seconds, and bytes of private memory beyond its libraries; files it maps do not count.

    Memory is `base_bytes` plus `per_byte` for each byte of the artefacts, because some of them are read, not mapped.
    """

    timeout_s: float = 120.0
    base_bytes: int = 512 * 2**20
    per_byte: float = 2.0


class ReleaseTrial:
    """Runs the child, one at a time; `feature_names` is the column order that the ranker will be offered."""

    def __init__(self, feature_schema: str, feature_names: Sequence[str], limits: TrialLimits | None = None) -> None:
        self._schema = feature_schema
        self._names = list(feature_names)
        self._limits = limits or TrialLimits()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def prove(self, local: LocalRelease) -> None:
        """Return when the child has loaded and tried the release; raises TrialFailed with what it died of."""
        name, limits = local.versions.release_id, self._limits
        process = self._start()
        try:
            # Twice the time: the child ends itself, and is killed only if even that does not work.
            said, noise = process.communicate(self._job(local), 2 * limits.timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise TrialFailed(_late(name, limits)) from None
        finally:
            self._process = None
        if process.returncode == -signal.SIGALRM:
            raise TrialFailed(_late(name, limits))
        if process.returncode:
            raise TrialFailed(
                f"Release {name} was tried in a process of its own, which ended by {_cause(process.returncode)}: one "
                f"of its files is damaged, build it again. {_last_line(noise)}".rstrip()
            )
        refusal = _refusal(said)
        if refusal is not None:
            raise TrialFailed(refusal)

    def give_up(self) -> None:
        """End the child, if there is one: nobody wants its verdict any more."""
        with self._lock:
            process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the child, if there is one, and start no other."""
        with self._lock:
            self._closed = True
        self.give_up()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._lock:
            if self._closed:
                raise TrialFailed("The process is ending, so no release is tried any more.")
            self._process = subprocess.Popen(
                [sys.executable, "-m", "registry.promotion.trial_child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=_ROOT,
            )
            return self._process

    def _job(self, local: LocalRelease) -> bytes:
        artefacts = sum(
            entry.size for kind in ArtifactKind for entry in read_manifest(local.directories[kind]).files.values()
        )
        job: dict[str, Any] = {
            "release": local.versions.release_id,
            "directories": {kind.value: str(path.resolve()) for kind, path in local.directories.items()},
            "digests": {kind.value: digest for kind, digest in local.digests.items()},
            "feature_schema": self._schema,
            "feature_names": self._names,
            "timeout_s": self._limits.timeout_s,
            "memory_bytes": self._limits.base_bytes + int(self._limits.per_byte * artefacts),
        }
        return json.dumps(job).encode()


def _late(name: str, limits: TrialLimits) -> str:
    return f"Release {name} did not load and answer within {limits.timeout_s:g} s in its trial: build it again."


def _cause(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"status {status}"


def _last_line(noise: bytes) -> str:
    lines = [line for line in noise.decode(errors="replace").splitlines() if line.strip()]
    return f"It said: {lines[-1].strip()[:_SHOWN]}" if lines else ""


def _refusal(said: bytes) -> str | None:
    try:
        return None if (refusal := json.loads(said)["refusal"]) is None else str(refusal)
    except (ValueError, KeyError, TypeError):
        return "The trial of the release ended without a verdict: build the release again."
