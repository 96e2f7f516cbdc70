"""What a backup holds: written last, so that a folder without it is no backup."""

from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from infra.backup.errors import BackupDamaged
from infra.db.migrate import HEAD
from infra.files import sha256_of, write_whole

FORMAT: Final = 1
NAME: Final = "manifest.json"
DUMP_FILE: Final = "postgres.dump"
SALT_FILE: Final = "log_salt"
FOLDERS: Final = ("mlflow", "pipeline")
"""Folders below the data folder that cannot be made anew: artefacts of MLflow, and results of the pipelines."""


class BackedUpFile(BaseModel):
    """One file of a backup."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=0)
    sha256: str


class BackupManifest(BaseModel):
    """When a backup was taken, of which revision and server, and every file of it.

    `taken_at` is the database's time of the snapshot that the dump shows. `elsewhere` names what the backup does not
    hold, because it lies in a store of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    taken_at: AwareDatetime
    revision: str
    server_version: int
    elsewhere: list[str]
    files: dict[str, BackedUpFile]


def write_manifest(
    folder: Path, *, taken_at: datetime, revision: str, server_version: int, elsewhere: list[str]
) -> BackupManifest:
    """Describe every file of a folder, and make it a backup by that."""
    files = {
        path.relative_to(folder).as_posix(): BackedUpFile(size=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = BackupManifest(
        format=FORMAT,
        taken_at=taken_at,
        revision=revision,
        server_version=server_version,
        elsewhere=elsewhere,
        files=files,
    )
    write_whole(folder / NAME, manifest.model_dump_json(indent=1).encode())
    return manifest


def read_manifest(folder: Path) -> BackupManifest:
    """Read a backup and hold every file of it against its digest; raises BackupDamaged."""
    try:
        manifest = BackupManifest.model_validate_json((folder / NAME).read_bytes())
    except (OSError, ValidationError) as error:
        raise BackupDamaged(f"`{folder}` is no finished backup: its `{NAME}` cannot be read.") from error
    if manifest.format != FORMAT or manifest.revision > HEAD:
        raise BackupDamaged(
            f"`{folder}` was taken by another version of Duet (format {manifest.format}, revision {manifest.revision}; "
            f"this one knows {FORMAT} and {HEAD}): restore it with that version, or a newer one."
        )
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != expected.size or sha256_of(path) != expected.sha256:
            raise BackupDamaged(f"`{path}` is not what was backed up: take another backup.")
    return manifest
