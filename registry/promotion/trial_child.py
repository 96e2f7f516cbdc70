"""The process in which a release is tried: `python -m registry.promotion.trial_child`.

It reads a job from standard input and writes a verdict to standard output.

It limits itself before it opens anything: seconds by an alarm, whose default action ends even a hung reader in native
code, and private memory by RLIMIT_DATA. RLIMIT_AS would count the mapped files too, which cost nothing.
"""

import json
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from infra.errors import DuetError
from registry.contracts import ArtifactKind, ReleaseVersions
from registry.release import load_release

# XGBoost imports scikit-learn where it finds it, though a booster needs none of it: two thirds of this process' time.
sys.modules["sklearn"] = None  # type: ignore[assignment]
_NICE = 10


def main() -> None:
    """Read a job, try its release, write the verdict; whatever is no exception ends the process."""
    # What libraries print must not become the verdict.
    verdict = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    job = json.load(sys.stdin)
    _limit(float(job["timeout_s"]), int(job["memory_bytes"]))
    with verdict:
        verdict.write(json.dumps({"refusal": _try(job)}).encode())


def _limit(timeout_s: float, memory_bytes: int) -> None:
    with suppress(OSError):
        os.nice(_NICE)  # the requests of the parent come first
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    used = getattr(psutil.Process().memory_info(), "data", None)
    if used is not None:  # Linux alone tells it
        resource.setrlimit(resource.RLIMIT_DATA, (used + memory_bytes, used + memory_bytes))


def _try(job: dict[str, Any]) -> str | None:
    try:
        load_release(
            {ArtifactKind(kind): Path(path) for kind, path in job["directories"].items()},
            ReleaseVersions.parse(job["release"]),
            feature_schema=job["feature_schema"],
            feature_names=job["feature_names"],
            expected_digests={ArtifactKind(kind): digest for kind, digest in job["digests"].items()},
        )
    except DuetError as error:
        return str(error)
    except MemoryError:
        return f"Release {job['release']} needs more memory than its size explains: build it again."
    except Exception as error:  # noqa: BLE001 whatever a library raises on a damaged file is a refusal, and no defect
        return f"Release {job['release']} cannot be loaded: {type(error).__name__}: {str(error)[:200]}"
    return None


if __name__ == "__main__":
    main()
