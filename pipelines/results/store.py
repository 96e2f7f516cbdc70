"""What steps make and how later ones find it: a folder per result, and one small pointer per asset, written last.

A pointer names a finished result by its digest, the run that made it and the time windows that bound it, so that a job
of the later steps alone works on the last good result of the earlier ones. A killed step leaves its pointer as it was.
Results are on this disk; with `DUET_RESULTS_URI` they and the pointers are also where every other machine finds them.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PrivateAttr

from infra.files import write_whole
from infra.settings import Settings
from pipelines.errors import MissingUpstream
from pipelines.results.shared_folder import SharedFolder, folder_name
from registry.models.artifacts import staging_directory

POINTER: Final = "current.json"
KEEP: Final = 5


class StepResult(BaseModel):
    """The last good result of one asset; its files are fetched when `path` is first asked for."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    asset: str
    digest: str
    run_id: str
    as_of: AwareDatetime
    t0: AwareDatetime | None = None
    t1: AwareDatetime | None = None
    version: int | None = Field(default=None, description="version in the model registry")
    inputs: dict[str, str] = Field(default_factory=dict, description="digest of each upstream asset")
    parts: dict[str, str] = Field(default_factory=dict, description="digest of each result that was kept with this one")
    facts: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    has_files: bool = True
    place: Path | None = Field(default=None, exclude=True, description="its files, where they are in no store")
    _store: "ResultStore | None" = PrivateAttr(default=None)

    @property
    def path(self) -> Path:
        """Return the folder of its files on this disk; raises MissingUpstream where they are gone."""
        if self.place is not None:
            return self.place
        if self._store is None:
            raise MissingUpstream(f"the result `{self.asset}` was not published, so its files are nowhere")
        return self._store.path(self.asset, self.digest)

    def within(self, store: "ResultStore") -> "StepResult":
        """Return the result, whose files are found in a store."""
        found = self.model_copy()
        found._store = store  # noqa: SLF001 - a copy of its own
        return found


@dataclass(frozen=True)
class ResultStore:
    """The results on this disk, and the shared folder that they are copied to and fetched from where there is one."""

    root: Path
    shared: SharedFolder | None = None

    @classmethod
    def of(cls, settings: Settings) -> "ResultStore":
        """Return the store that the settings name."""
        uri = settings.results_uri
        return cls(Path(settings.data_dir).absolute() / "pipeline", None if uri is None else SharedFolder(uri))

    def directory(self, asset: str, digest: str) -> Path:
        """Return where the result of `asset` with `digest` lives on this disk."""
        return self.root / asset / folder_name(digest)

    def has(self, asset: str, digest: str) -> bool:
        """Tell whether the files of a result are on this disk or in the shared folder."""
        if self.directory(asset, digest).exists():
            return True
        return self.shared is not None and self.shared.has(asset, digest)

    def path(self, asset: str, digest: str) -> Path:
        """Return the files of a result, fetched from the shared folder if they are not on this disk.

        Raises:
            MissingUpstream: they are in neither.
        """
        directory = self.directory(asset, digest)
        if directory.exists():
            return directory
        if self.shared is None or not self.shared.has(asset, digest):
            raise MissingUpstream(
                f"the files of `{asset}` {digest[:12]} are not in `{self._where}` any more; run the job that makes it"
            )
        with self.staging(asset) as scratch:
            fetched = scratch / "files"
            self.shared.fetch(asset, digest, fetched)
            directory = self.adopt(fetched, asset, digest)
        self._prune([asset])
        return directory

    def find(self, asset: str) -> StepResult | None:
        """Return the last good result of `asset`, or None when there is none."""
        found = self.pointer(asset)
        return found if found is None or not found.has_files or self.has(found.asset, found.digest) else None

    def pointer(self, asset: str) -> StepResult | None:
        """Return what the pointer of `asset` names, whether or not its files are still there; None without one."""
        content = self._read(f"{asset}/{POINTER}")
        return None if content is None else StepResult.model_validate_json(content).within(self)

    def remove_before(self, until: datetime, within: Callable[[Path], bool], *, spared: Collection[str]) -> list[str]:
        """Remove what was made by `until`: here each folder that is `within`, in the shared folder all; return which.

        Results of `spared` assets stay. A pointer to a result that is gone stays, too: whoever asks for it is told to
        make it anew.
        """
        removed = []
        for folder in self.folders(until, spared=spared):
            if within(folder):
                shutil.rmtree(folder)
                removed.append(f"{folder.parent.name}/{folder.name}")
        if self.shared is not None:
            for asset in self._assets():
                there = {} if asset in spared else self.shared.ages(asset)
                for name in sorted(name for name, put_at in there.items() if put_at <= until.timestamp()):
                    self.shared.remove(asset, name)
                    removed.append(f"{asset}/{name}")
        return removed

    def folders(self, until: datetime, *, spared: Collection[str]) -> list[Path]:
        """Return the folders of the results on this disk that were made by `until`, those of `spared` assets aside."""
        return [
            self.root / asset.name / name
            for asset in sorted(self.root.glob("*"))
            if asset.is_dir() and asset.name not in spared
            for name, made_at in sorted(self._ages(asset.name).items())
            if made_at <= until.timestamp()
        ]

    def require(self, asset: str, job: str = "train_all") -> StepResult:
        """Return the last good result of `asset`.

        Raises:
            MissingUpstream: it was never made, or its files are gone.
        """
        found = self.find(asset)
        if found is None:
            raise MissingUpstream(f"no `{asset}` was made under `{self._where}` yet; run the job `{job}` first")
        return found

    def publish(self, result: StepResult) -> StepResult:
        """Make `result` the last good one of its asset, then drop results that nothing points to any more."""
        kept = {**result.parts, **({result.asset: result.digest} if result.has_files else {})}
        new = [asset for asset, digest in kept.items() if self._share(asset, digest)]
        self._write(f"{result.asset}/{POINTER}", result.model_dump_json(indent=2).encode())
        self._prune(new)
        return result.within(self)

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

    def note(self, name: str) -> bytes | None:
        """Return what is remembered between runs under a name, None where nothing is."""
        return self._read(name)

    def keep_note(self, name: str, content: bytes) -> None:
        """Remember something small between runs, in place of what was there."""
        self._write(name, content)

    @property
    def _where(self) -> str:
        return str(self.root if self.shared is None else self.shared.uri)

    def _read(self, name: str) -> bytes | None:
        if self.shared is not None:
            return self.shared.read(name)
        path = self.root / name
        return path.read_bytes() if path.is_file() else None

    def _write(self, name: str, content: bytes) -> None:
        if self.shared is not None:
            self.shared.write(name, content)
            return
        write_whole(self.root / name, content)

    def _share(self, asset: str, digest: str) -> bool:
        """Copy a result to the shared folder, and tell whether it is new there; without one every result counts."""
        if self.shared is None:
            return True
        directory = self.directory(asset, digest)
        return directory.exists() and self.shared.put(directory, asset, digest)

    def _pointed(self) -> set[tuple[str, str]]:
        """Return asset and folder of every result that a pointer names."""
        if self.shared is not None:
            contents = self.shared.read_all(f"*/{POINTER}")
        else:
            contents = [path.read_bytes() for path in self.root.glob(f"*/{POINTER}")]
        pointers = [StepResult.model_validate_json(content) for content in contents]
        return {
            (asset, folder_name(digest))
            for pointer in pointers
            for named in ({pointer.asset: pointer.digest}, pointer.inputs, pointer.parts)
            for asset, digest in named.items()
        }

    def _assets(self) -> list[str]:
        """Return the assets of all results that pointers name."""
        return sorted({asset for asset, _ in self._pointed()})

    def _prune(self, assets: Sequence[str]) -> None:
        """Keep the newest few results of each asset; what a pointer names stays whatever its age."""
        here = [(asset, name) for asset in assets for name in _older(self._ages(asset))]
        shared = self.shared
        there = [] if shared is None else [(asset, name) for asset in assets for name in _older(shared.ages(asset))]
        pointed = self._pointed() if here or there else set()
        for asset, name in here:
            if (asset, name) not in pointed:
                shutil.rmtree(self.root / asset / name, ignore_errors=True)
        for asset, name in there:
            if shared is not None and (asset, name) not in pointed:
                shared.remove(asset, name)

    def _ages(self, asset: str) -> dict[str, float]:
        results = [path for path in (self.root / asset).glob("*") if path.is_dir() and not path.name.startswith(".")]
        return {path.name: path.stat().st_mtime for path in results}


def _older(ages: Mapping[str, float]) -> list[str]:
    return sorted(ages, key=lambda name: ages[name])[:-KEEP]


def iso(at: datetime) -> str:
    """Write an instant the way digests and tags hold it."""
    return at.isoformat(timespec="microseconds")


def canonical(value: Mapping[str, object]) -> bytes:
    """Write `value` as JSON that is equal for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()


def combined_digest(parts: Mapping[str, object]) -> str:
    """Return the sha256 (hex) of what a result was made from."""
    return hashlib.sha256(canonical(parts)).hexdigest()
