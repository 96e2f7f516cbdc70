"""The local copy of releases: `<data_dir>/releases/<kind>/<version>-<digest>/`, and pointers to the last good ones.

With it serving restarts while MLflow is down, and a rollback needs no download. Everything in it was verified when it
was fetched and is verified again when it is loaded.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from registry.contracts import PRODUCTION, STAGING, ArtifactKind, Manifest, ReleaseVersions
from registry.errors import CorruptArtifact
from registry.release import Release
from registry.store import ModelRegistry

_POINTERS: Final = {PRODUCTION: "last_good.json", STAGING: "last_good_challenger.json"}
_SHORT: Final = 12


class _Pointer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding: int
    index: int
    ranker: int
    digests: dict[ArtifactKind, str]


@dataclass(frozen=True)
class LocalRelease:
    """Where a release lies on this machine, and what its bytes must be."""

    versions: ReleaseVersions
    directories: Mapping[ArtifactKind, Path]
    digests: Mapping[ArtifactKind, str]
    manifests: Mapping[ArtifactKind, Manifest]


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
            digests={kind: manifest.digest for kind, manifest in release.manifests.items()},
        )
        self.root.mkdir(parents=True, exist_ok=True)
        target = self.root / _POINTERS[stage]
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=self.root)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(json.dumps(pointer.model_dump(mode="json"), sort_keys=True).encode())
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def last_good(self, stage: str = PRODUCTION) -> LocalRelease | None:
        """Return the release of a stage to start with while MLflow is down; None without one, or without its files.

        Its manifests are empty: `load_release` reads and verifies them against the digests.
        """
        try:
            pointer = _Pointer.model_validate_json((self.root / _POINTERS[stage]).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        versions = ReleaseVersions(pointer.embedding, pointer.index, pointer.ranker)
        if set(pointer.digests) != set(ArtifactKind):
            return None
        directories = self._directories(versions, pointer.digests)
        if not all(directory.is_dir() for directory in directories.values()):
            return None
        return LocalRelease(versions, directories, pointer.digests, {})

    def is_good(self, local: LocalRelease, stage: str = PRODUCTION) -> bool:
        """Say whether exactly these bytes were the last to be loaded, tried and remembered for a stage."""
        last = self.last_good(stage)
        return last is not None and (last.versions, last.digests) == (local.versions, local.digests)

    def prune(self, keep: Iterable[ReleaseVersions], spare: int = 3) -> list[Path]:
        """Remove copies that belong to no release in `keep`, except the `spare` newest of each kind; return them.

        Workers that have mapped a removed file keep their pages.
        """
        kept = {(kind, versions[kind]) for versions in keep for kind in ArtifactKind}
        for last in filter(None, map(self.last_good, _POINTERS)):
            kept |= {(kind, last.versions[kind]) for kind in ArtifactKind}
        removed: list[Path] = []
        for kind in ArtifactKind:
            found = [path for path in (self.root / kind.value).glob("[0-9]*-*") if path.is_dir()]
            found.sort(key=_version_of, reverse=True)
            for path in [path for path in found if (kind, _version_of(path)) not in kept][spare:]:
                with contextlib.suppress(FileNotFoundError):  # another worker prunes too
                    shutil.rmtree(path)
                removed.append(path)
        return removed

    def directory(self, kind: ArtifactKind, version: int, digest: str) -> Path:
        """Return where the copy of a version with this digest lies, whether it is there or not."""
        return self.root / kind.value / f"{version}-{digest[:_SHORT]}"

    def _directories(self, versions: ReleaseVersions, digests: Mapping[ArtifactKind, str]) -> dict[ArtifactKind, Path]:
        return {kind: self.directory(kind, versions[kind], digests[kind]) for kind in ArtifactKind}


def _version_of(path: Path) -> int:
    head = path.name.partition("-")[0]
    return int(head) if head.isdigit() else 0
