"""Hand-written fakes of our protocols, held to the same contract tests as the real ones."""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from registry.contracts import (
    ARCHIVED,
    MANIFEST_NAME,
    MODEL_NAMES,
    NO_STAGE,
    PRODUCTION,
    STAGING,
    TAG_DIGEST,
    TAG_EMBEDDING_DIGEST,
    TAG_FEATURE_SCHEMA,
    TAG_RELEASE_CANDIDATE,
    ArtifactKind,
    Manifest,
    ModelVersion,
)
from registry.errors import CorruptArtifact, PromotionConflict, RegistryUnavailable, UnknownVersion
from registry.models.artifacts import publish, staging_directory, verify_artifact
from registry.promotion.audit import Pin, Promotion
from registry.store import ModelRegistry

_BEGIN = datetime(2026, 6, 1, tzinfo=UTC)


class MemoryRegistry(ModelRegistry):
    """A model registry in memory; artefacts stay where they were written.

    `down` makes every call fail; `fail_after(n)` lets n more writes succeed, then fails once; `before_write` is
    called before every write and may raise whatever a test wants to happen at that instant.
    """

    def __init__(self) -> None:
        self._versions: dict[ArtifactKind, list[ModelVersion]] = {kind: [] for kind in ArtifactKind}
        self._sources: dict[tuple[ArtifactKind, int], Path] = {}
        self._aliases: dict[ArtifactKind, dict[str, int]] = {kind: {} for kind in ArtifactKind}
        self._writes_left: int | None = None
        self._moves = 0
        self.down = False
        self._forgotten: set[tuple[ArtifactKind, int]] = set()
        self.before_write: Callable[[], None] = lambda: None
        self.downloads = 0

    def register(
        self,
        kind: ArtifactKind,
        directory: Path,
        *,
        release_candidate: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> int:
        """Register an artefact directory; the same digest again returns its version."""
        manifest = verify_artifact(directory)
        for version in self._versions[kind]:
            if version.digest == manifest.digest:
                if release_candidate:
                    present = version.tags.get(TAG_RELEASE_CANDIDATE)
                    joined = f"{present},{release_candidate}" if present else release_candidate
                    self.set_tag(kind, version.version, TAG_RELEASE_CANDIDATE, joined)
                return version.version
        number = len(self._versions[kind]) + 1
        own = {
            TAG_DIGEST: manifest.digest,
            **{
                key: manifest.lineage[key]
                for key in (TAG_EMBEDDING_DIGEST, TAG_FEATURE_SCHEMA)
                if key in manifest.lineage
            },
            **({TAG_RELEASE_CANDIDATE: release_candidate} if release_candidate else {}),
            **(tags or {}),
        }
        self._versions[kind].append(ModelVersion(kind, number, tags=own, created_at=_BEGIN + timedelta(minutes=number)))
        self._sources[kind, number] = directory
        return number

    def forget(self, kind: ArtifactKind, version: int) -> None:
        """Delete a version, as somebody does who cleans up in MLflow."""
        self._forgotten.add((kind, version))

    def start_anew(self) -> None:
        """Delete all three models, as somebody does who cleans up in MLflow: numbers begin at one again."""
        for versions in self._versions.values():
            versions.clear()
        for aliases in self._aliases.values():
            aliases.clear()
        self._sources.clear()
        self._forgotten.clear()

    def fail_after(self, n_writes: int) -> None:
        """Let so many writes succeed and fail the next one."""
        self._writes_left = n_writes

    def _read(self) -> None:
        if self.down:
            raise RegistryUnavailable("The registry does not answer.")

    def _write(self) -> None:
        self._read()
        self.before_write()
        if self._writes_left is not None:
            self._writes_left -= 1
            if self._writes_left < 0:
                self._writes_left = None
                raise RegistryUnavailable("The registry went away in the middle.")

    def versions(self, kind: ArtifactKind) -> list[ModelVersion]:
        self._read()
        return [found for found in reversed(self._versions[kind]) if (kind, found.version) not in self._forgotten]

    def version(self, kind: ArtifactKind, version: int) -> ModelVersion:
        self._read()
        if not 1 <= version <= len(self._versions[kind]) or (kind, version) in self._forgotten:
            raise UnknownVersion(f"{MODEL_NAMES[kind]} has no version {version}.")
        return self._versions[kind][version - 1]

    def _replace(self, version: ModelVersion, **changes: object) -> ModelVersion:
        changed = dataclasses.replace(version, **changes)  # type: ignore[arg-type]
        self._versions[version.kind][version.version - 1] = changed
        return changed

    def transition_stage(
        self, kind: ArtifactKind, version: int, stage: str, *, archive_existing: bool = True
    ) -> ModelVersion:
        moved = self.version(kind, version)
        if stage not in {PRODUCTION, STAGING, ARCHIVED, NO_STAGE}:
            raise RegistryUnavailable(f"The registry knows no stage `{stage}`.")
        self._write()
        if archive_existing:
            for other in self.versions_in_stage(kind, stage):
                if other.version != version:
                    self._replace(other, stage=ARCHIVED)
        self._moves += 1
        return self._replace(moved, stage=stage, updated_at=_BEGIN + timedelta(seconds=self._moves))

    def set_alias(self, kind: ArtifactKind, alias: str, version: int) -> None:
        self.version(kind, version)
        self._write()
        self._aliases[kind][alias] = version

    def delete_alias(self, kind: ArtifactKind, alias: str) -> None:
        self._write()
        self._aliases[kind].pop(alias, None)

    def aliases(self, kind: ArtifactKind) -> dict[str, int]:
        self._read()
        return dict(self._aliases[kind])

    def set_tag(self, kind: ArtifactKind, version: int, key: str, value: str) -> None:
        found = self.version(kind, version)
        self._write()
        self._replace(found, tags={**found.tags, key: value})

    def describe(self, kind: ArtifactKind, version: int, description: str) -> None:
        found = self.version(kind, version)
        self._write()
        self._replace(found, description=description)

    def download(self, kind: ArtifactKind, version: int, directory: Path) -> Manifest:
        found = self.version(kind, version)
        if not found.digest:
            raise CorruptArtifact(f"{MODEL_NAMES[kind]} version {version} has no digest tag.")
        if (directory / MANIFEST_NAME).exists():
            return verify_artifact(directory, found.digest)
        source = self._sources[kind, version]
        manifest = verify_artifact(source, found.digest)
        self.downloads += 1
        with staging_directory(directory) as staged:
            for name in manifest.files:
                shutil.copy(source / name, staged / name)
            return publish(staged, directory, manifest)


class MemoryPromotionLog:
    """The audit in memory: what is recorded in a block that fails is not kept."""

    def __init__(self) -> None:
        self.promotions: list[Promotion] = []
        self.pins: list[Pin] = []
        self.closed_by: str | None = None
        self._held: set[str] = set()

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        with self._holding("orders"), self._holding("stages"):
            yield

    def ordering(self) -> contextlib.AbstractContextManager[None]:
        return self._holding("orders")

    def observing(self, *, patiently: bool = False) -> contextlib.AbstractContextManager[None]:
        del patiently  # in one thread nobody else could let go meanwhile
        return self._holding("stages")

    @property
    def locked(self) -> bool:
        return bool(self._held)

    @contextlib.contextmanager
    def _holding(self, lock: str) -> Iterator[None]:
        if lock in self._held:
            raise PromotionConflict("Another promotion is under way.")
        self._held.add(lock)
        kept = list(self.promotions), list(self.pins)
        try:
            yield
        except BaseException:
            self.promotions, self.pins = kept
            raise
        finally:
            self._held.discard(lock)

    def record(self, promotion: Promotion) -> None:
        at = _BEGIN + timedelta(minutes=len(self.promotions))
        self.promotions.append(dataclasses.replace(promotion, at=at))

    def history(self, stage: str = PRODUCTION, limit: int = 1_000, until: datetime | None = None) -> list[Promotion]:
        return [
            entry
            for entry in self.promotions
            if (entry.stage == stage or (entry.is_departure and stage in entry.from_stages.values()))
            and (until is None or entry.at is None or entry.at <= until)
        ][-limit:]

    def pin(self, pin: Pin) -> None:
        self.pins = [dataclasses.replace(pin, pin_id=len(self.promotions))]

    def close_pin(self, by: str, pin: Pin | None = None) -> None:
        if self.pins and (pin is None or pin.pin_id == self.pins[-1].pin_id):
            self.closed_by = by
            self.pins = []

    def open_pin(self) -> Pin | None:
        return self.pins[-1] if self.pins else None
