"""Artefact directories on disk: written aside, synced, renamed into place; read only through their manifest.

The manifest is written last, so a directory without one is an unfinished artefact. Nothing here loads a file's
contents: readers verify first, then open what the manifest names.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import JsonValue, ValidationError

from infra.faults import failpoint
from infra.files import sha256_of, sync
from registry.contracts import MANIFEST_NAME, ArtifactKind, FileEntry, Manifest
from registry.errors import ArtifactConflict, CorruptArtifact

MAX_MANIFEST_BYTES: Final = 4 * 2**20
_CHUNK: Final = 4 * 2**20
_STAGING_PREFIX: Final = ".staging-"
_ABANDONED_S: Final = 24 * 3_600

FileWriter = Callable[[Path], None]


def write_artifact(
    directory: Path,
    kind: ArtifactKind,
    files: Mapping[str, FileWriter],
    *,
    parameters: Mapping[str, JsonValue] | None = None,
    metrics: Mapping[str, float] | None = None,
    lineage: Mapping[str, str] | None = None,
) -> Manifest:
    """Write an artefact so that a reader sees all of it or nothing, and return its manifest.

    Each writer is called with the path of its file. An artefact of the same digest already at `directory` is kept;
    one of another digest raises ArtifactConflict; a directory without a manifest is an unfinished leftover and goes.
    """
    with staging_directory(directory) as staged:
        for name, write in files.items():
            write(staged / name)
            failpoint(f"{kind}.after_writing_file")
        manifest = Manifest(
            kind=kind,
            files={name: _entry(staged / name) for name in sorted(files)},
            parameters=dict(parameters or {}),
            metrics=dict(metrics or {}),
            lineage=dict(lineage or {}),
        )
        return publish(staged, directory, manifest)


@contextlib.contextmanager
def staging_directory(directory: Path) -> Iterator[Path]:
    """Yield an empty directory on the same file system as `directory`, gone afterwards unless it was renamed."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=directory.parent))
    try:
        _sweep(staged)
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _sweep(staged: Path) -> None:
    """Remove what killed processes left beside `staged` a day ago or longer, by the file system's own clock."""
    born = staged.stat().st_mtime
    for other in staged.parent.glob(f"{_STAGING_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # its owner finished meanwhile
            if other.stat().st_mtime < born - _ABANDONED_S:
                shutil.rmtree(other)


def publish(staged: Path, directory: Path, manifest: Manifest) -> Manifest:
    """Sync `staged`, write the manifest last and rename it to `directory`, unless the artefact is already there."""
    for name in manifest.files:
        sync(staged / name)
    path = staged / MANIFEST_NAME
    path.write_bytes(manifest.to_bytes())
    sync(path)
    sync(staged)
    failpoint(f"{manifest.kind}.after_manifest")
    staged.chmod(0o755)
    try:
        staged.rename(directory)
    except OSError:
        # Rename refuses a directory that is not empty: an artefact, here before or published by another process just
        # now, or what is left of an unfinished one.
        if (directory / MANIFEST_NAME).exists():
            return _keep_existing(directory, manifest)
        if not directory.is_dir():
            raise
        shutil.rmtree(directory)
        staged.rename(directory)
    sync(directory.parent)
    return manifest


def _keep_existing(directory: Path, manifest: Manifest) -> Manifest:
    existing = read_manifest(directory)
    if existing.digest != manifest.digest:
        raise ArtifactConflict(
            f"`{directory}` already holds artefact {existing.digest[:12]}, not {manifest.digest[:12]}: "
            "choose another directory or remove it."
        )
    verify_artifact(directory, manifest.digest)
    return existing


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest without looking at the files it names; raise CorruptArtifact if it is missing or unreadable."""
    path = directory / MANIFEST_NAME
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise CorruptArtifact(f"`{path}` is larger than {MAX_MANIFEST_BYTES} bytes, so it is not a manifest.")
        return Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorruptArtifact(f"`{path}` is missing: the artefact was never finished, write it again.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise CorruptArtifact(f"`{path}` is not a manifest: {where}: {first['msg']}.") from error


def verify_artifact(directory: Path, expected_digest: str | None = None) -> Manifest:
    """Check the manifest's digest, then every size, then every sha256; return the manifest.

    Reads only what the manifest names. Raises CorruptArtifact naming the file, what was expected and what was found.
    """
    manifest = read_manifest(directory)
    if expected_digest is not None and manifest.digest != expected_digest:
        raise CorruptArtifact(
            f"`{directory / MANIFEST_NAME}` has digest {manifest.digest}, expected {expected_digest}: fetch it again."
        )
    for name, entry in manifest.files.items():
        path = directory / name
        if path.is_symlink() or not path.is_file():
            raise CorruptArtifact(f"`{path}` is missing or not a plain file, though the manifest names it.")
        size = path.stat().st_size
        if size != entry.size:
            raise CorruptArtifact(f"`{path}` has {size} bytes, expected {entry.size}: fetch or build it again.")
    for name, entry in manifest.files.items():
        path = directory / name
        found = sha256_of(path)
        if found != entry.sha256:
            raise CorruptArtifact(f"`{path}` has sha256 {found}, expected {entry.sha256}: fetch or build it again.")
    return manifest


def _entry(path: Path) -> FileEntry:
    return FileEntry(sha256=sha256_of(path), size=path.stat().st_size)
