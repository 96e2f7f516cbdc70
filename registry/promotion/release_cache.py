"""The local copy of releases: `<data_dir>/releases/<kind>/<version>-<digest>/`, and notes of which ones were good.

With it serving restarts and rolls back while MLflow is down. Everything in it was verified when it was fetched and is
verified again when it is loaded. `good/` holds a note for each release that was loaded and tried here, the newest last.
"""

import contextlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.faults import failpoint
from infra.files import write_whole
from registry.contracts import PRODUCTION, STAGING, ArtifactKind, Manifest, ReleaseIdentity, ReleaseVersions, mark_of
from registry.errors import CorruptArtifact
from registry.release import Release
from registry.store import ModelRegistry

_POINTERS: Final = {PRODUCTION: "last_good.json", STAGING: "last_good_challenger.json"}
_SHORT: Final = 12
KEPT_GOOD: Final = 4
"""Releases that served here and whose copies stay, for rollbacks: the current one and those before it."""


class _Pointer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding: int
    index: int
    ranker: int
    digests: dict[ArtifactKind, str]

    @property
    def versions(self) -> ReleaseVersions:
        return ReleaseVersions(self.embedding, self.index, self.ranker)


@dataclass(frozen=True)
class LocalRelease:
    """Where a release lies on this machine, and what its bytes must be."""

    versions: ReleaseVersions
    directories: Mapping[ArtifactKind, Path]
    digests: Mapping[ArtifactKind, str]
    manifests: Mapping[ArtifactKind, Manifest]

    @property
    def identity(self) -> ReleaseIdentity:
        """Return which release this is."""
        return ReleaseIdentity(self.versions, self.digests)


class ReleaseCache:
    """Releases below `root`, shared by all workers of a machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def fetch(self, registry: ModelRegistry, versions: ReleaseVersions) -> LocalRelease:
        """Return the local copy of a release, downloading and verifying what is missing.

        A copy that no longer verifies is thrown away and fetched once more.
        """
        digests: dict[ArtifactKind, str] = {}
        manifests: dict[ArtifactKind, Manifest] = {}
        for kind in ArtifactKind:
            digest = registry.version(kind, versions[kind]).digest
            if digest is None:
                raise CorruptArtifact(
                    f"{kind} version {versions[kind]} has no digest tag, so its bytes cannot be verified: "
                    "register it with Duet."
                )
            digests[kind] = digest
            directory = self.directory(kind, versions[kind], digest)
            try:
                manifests[kind] = registry.download(kind, versions[kind], directory)
            except CorruptArtifact:
                if not directory.exists():
                    raise
                shutil.rmtree(directory)
                manifests[kind] = registry.download(kind, versions[kind], directory)
        return LocalRelease(versions, self._directories(versions, digests), digests, manifests)

    def remember(self, release: Release, stage: str = PRODUCTION) -> None:
        """Point at a release of a stage that was loaded and tried, as the one to start with next time."""
        pointer = _Pointer(
            embedding=release.versions.embedding,
            index=release.versions.index,
            ranker=release.versions.ranker,
            digests=dict(release.identity.digests),
        )
        content = json.dumps(pointer.model_dump(mode="json"), sort_keys=True).encode()
        write_whole(self._note(release.versions, pointer.digests, stage), content)
        failpoint("swap.after_good")
        write_whole(self.root / _POINTERS[stage], content)

    def begins_with(self, release: Release, stage: str = PRODUCTION) -> bool:
        """Say whether exactly this release is the one to start with next time."""
        pointer = _read(self.root / _POINTERS[stage])
        return pointer is not None and ReleaseIdentity(pointer.versions, pointer.digests) == release.identity

    def last_good(self, stage: str = PRODUCTION) -> LocalRelease | None:
        """Return the release of a stage to start with while MLflow is down; None without one, or without its files.

        Its manifests are empty: `load_release` reads and verifies them against the digests.
        """
        pointer = _read(self.root / _POINTERS[stage])
        return None if pointer is None else self.copy_of(pointer.versions, pointer.digests)

    def copy_of(self, versions: ReleaseVersions, digests: Mapping[ArtifactKind, str]) -> LocalRelease | None:
        """Return where the copy of a release with these digests lies, None if a part of it is not here."""
        if set(digests) != set(ArtifactKind):
            return None
        directories = self._directories(versions, digests)
        if not all(directory.is_dir() for directory in directories.values()):
            return None
        return LocalRelease(versions, directories, digests, {})

    def is_good(self, local: LocalRelease) -> bool:
        """Say whether exactly these bytes were loaded, tried and remembered here before, in whichever stage."""
        notes = [_read(self._note(local.versions, local.digests, stage)) for stage in _POINTERS]
        return any(note is not None and note.digests == local.digests for note in notes)

    def good(self) -> list[LocalRelease]:
        """Return the releases that served Production here and whose copies are here, the newest first."""
        notes = sorted((self.root / "good" / PRODUCTION).glob("e*.json"), key=_modified, reverse=True)
        found = [self.copy_of(note.versions, note.digests) for note in map(_read, notes) if note is not None]
        return [local for local in found if local is not None]

    def good_names(self) -> list[str]:
        """Return the names of the good releases for a rollback, with their marks where numbers alone name several."""
        found = self.good()
        ids = [local.versions.release_id for local in found]
        return [
            name if ids.count(name) == 1 else f"{name}@{mark_of(local.digests)}"
            for name, local in zip(ids, found, strict=True)
        ]

    def prune(self, keep: Iterable[ReleaseVersions], spare: int = 1) -> list[Path]:
        """Remove copies that belong to no release in `keep`, but the `KEPT_GOOD` newest good ones; return them.

        `spare` more of each kind stay: what was fetched and does not serve yet. Workers that have mapped a removed
        file keep their pages.
        """
        kept = {(kind, versions[kind]) for versions in keep for kind in ArtifactKind}
        for last in [*filter(None, map(self.last_good, _POINTERS)), *self.good()[:KEPT_GOOD]]:
            kept |= {(kind, last.versions[kind]) for kind in ArtifactKind}
        removed: list[Path] = []
        for kind in ArtifactKind:
            found = [path for path in (self.root / kind.value).glob("[0-9]*-*") if path.is_dir()]
            found.sort(key=_version_of, reverse=True)
            for path in [path for path in found if (kind, _version_of(path)) not in kept][spare:]:
                with contextlib.suppress(FileNotFoundError):  # another worker prunes too
                    shutil.rmtree(path)
                removed.append(path)
        for path in (self.root / "good").glob("*/e*.json"):
            note = _read(path)
            if note is None or self.copy_of(note.versions, note.digests) is None:
                path.unlink(missing_ok=True)
        return removed

    def directory(self, kind: ArtifactKind, version: int, digest: str) -> Path:
        """Return where the copy of a version with this digest lies, whether it is there or not."""
        return self.root / kind.value / f"{version}-{digest[:_SHORT]}"

    def _note(self, versions: ReleaseVersions, digests: Mapping[ArtifactKind, str], stage: str) -> Path:
        return self.root / "good" / stage / f"{versions.release_id}-{mark_of(digests)}.json"

    def _directories(self, versions: ReleaseVersions, digests: Mapping[ArtifactKind, str]) -> dict[ArtifactKind, Path]:
        return {kind: self.directory(kind, versions[kind], digests[kind]) for kind in ArtifactKind}


def _version_of(path: Path) -> int:
    head = path.name.partition("-")[0]
    return int(head) if head.isdigit() else 0


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another worker prunes too
        return 0.0


def _read(path: Path) -> _Pointer | None:
    try:
        return _Pointer.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
