"""How a step finds what earlier steps made: one small `current.json` per asset, replaced in one rename, written last.

The pointer names a finished directory, its digest, the run that made it and the time windows that bound it, so that
a job of the later steps alone works on the last good result of the earlier ones. A killed step leaves its pointer
as it was. Nothing here knows what the directories hold.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from pipelines.errors import MissingUpstream
from registry.artifacts import staging_directory

POINTER = "current.json"
KEEP = 5


class Current(BaseModel):
    """The last good result of one asset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asset: str
    path: Path
    digest: str
    run_id: str
    as_of: AwareDatetime
    t0: AwareDatetime | None = None
    t1: AwareDatetime | None = None
    version: int | None = Field(default=None, description="version in the model registry")
    inputs: dict[str, str] = Field(default_factory=dict, description="digest of each upstream asset")
    facts: dict[str, str | int | float | bool | None] = Field(default_factory=dict)


class PipelineState:
    """The directory below the data directory in which the pipeline keeps its results."""

    def __init__(self, data_dir: Path) -> None:
        self.root = Path(data_dir).absolute() / "pipeline"

    def directory(self, asset: str, digest: str) -> Path:
        """Return where the result of `asset` with `digest` lives."""
        return self.root / asset / digest[:16]

    def find(self, asset: str) -> Current | None:
        """Return the last good result of `asset`, or None when there is none on this disk."""
        pointer = self.root / asset / POINTER
        if not pointer.is_file():
            return None
        current = Current.model_validate_json(pointer.read_bytes())
        return current if current.path.exists() else None

    def require(self, asset: str, job: str = "train_all") -> Current:
        """Return the last good result of `asset`.

        Raises:
            MissingUpstream: it was never made, or its files are gone.
        """
        found = self.find(asset)
        if found is None:
            raise MissingUpstream(f"no `{asset}` was made under `{self.root}` yet; run the job `{job}` first")
        return found

    def publish(self, current: Current) -> Current:
        """Make `current` the last good result of its asset, then drop results that nothing points to any more."""
        pointer = self.root / current.asset / POINTER
        pointer.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(pointer, current.model_dump_json(indent=2).encode())
        self._prune(current.asset, keep={current.path} | self._referenced(current.asset))
        return current

    @contextmanager
    def staging(self, asset: str) -> Iterator[Path]:
        """Give a scratch directory on the same disk as the results; what is left in it at the end is deleted.

        What a killed run left there is deleted by the next one that begins a day later.
        """
        with staging_directory(self.root / asset / POINTER) as scratch:
            yield scratch

    def adopt(self, staged: Path, asset: str, digest: str) -> Path:
        """Move the finished directory `staged` to its place; an equal earlier result is kept instead."""
        target = self.directory(asset, digest)
        if target.exists():
            shutil.rmtree(staged)
        else:
            staged.rename(target)
        return target

    def _referenced(self, asset: str) -> set[Path]:
        paths: set[Path] = set()
        for pointer in self.root.glob(f"*/{POINTER}"):
            upstream = Current.model_validate_json(pointer.read_bytes()).inputs.get(asset)
            if upstream is not None:
                paths.add(self.directory(asset, upstream))
        return paths

    def _prune(self, asset: str, keep: set[Path]) -> None:
        """Keep the newest few results; what a pointer names stays whatever its age."""
        results = [path for path in (self.root / asset).iterdir() if path.is_dir() and not path.name.startswith(".")]
        newest = sorted(results, key=lambda path: path.stat().st_mtime, reverse=True)
        for path in newest[KEEP:]:
            if path not in keep:
                shutil.rmtree(path, ignore_errors=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at `path` with `content`; readers see the old or the new file, never a part."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def iso(at: datetime) -> str:
    """Write an instant the way digests and tags hold it."""
    return at.isoformat(timespec="microseconds")


def canonical(value: Mapping[str, object]) -> bytes:
    """Write `value` as JSON that is equal for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()


def combined_digest(parts: Mapping[str, object]) -> str:
    """Return the sha256 (hex) of what a result was made from."""
    return hashlib.sha256(canonical(parts)).hexdigest()
