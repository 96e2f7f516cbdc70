"""Takes a backup: the database in one snapshot, then the files that it names, which never change."""

import os
import shutil
from pathlib import Path

from infra.backup.errors import BackupInTheWay
from infra.backup.manifest import DUMP_FILE, FOLDERS, SALT_FILE, BackupManifest, write_manifest
from infra.backup.tools import DUMP, run_tool
from infra.db.migrate import HEAD, SCHEMAS
from infra.db.postgres import connect
from infra.endpoints import Endpoints
from infra.files import sync
from infra.settings import Settings


def take_backup(settings: Settings, endpoints: Endpoints, folder: Path, *, overwrite: bool = False) -> BackupManifest:
    """Write a backup to `folder`, which appears when it is whole; only this account may read it.

    Raises:
        BackupInTheWay: there is something, and it is not to be overwritten.
        ToolMissing, ToolFailed: the database cannot be dumped.
    """
    folder = folder.absolute()
    if folder.exists() and not overwrite and (not folder.is_dir() or any(folder.iterdir())):
        raise BackupInTheWay(f"`{folder}` is not empty: name another folder, or add `--overwrite`.")
    staged = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    staged.mkdir(mode=0o700, parents=True)
    try:
        with connect(endpoints.database_url, autocommit=True) as connection:
            # Before the dump: whoever is erased from then on is erased again after a restore.
            [taken_at] = connection.execute("select clock_timestamp()").fetchone() or [None]
            server_version = connection.info.server_version
        chosen = [f"--schema={schema}" for schema in SCHEMAS]
        target = f"--file={staged / DUMP_FILE}"
        run_tool(
            DUMP, endpoints.database_url, server_version, "--format=custom", "--no-owner", "--no-privileges", target,
            *chosen,
        )  # fmt: skip
        elsewhere = _copy_files(settings, staged)
        manifest = write_manifest(
            staged, taken_at=taken_at, revision=HEAD, server_version=server_version, elsewhere=elsewhere
        )
        sync(staged)
        if folder.exists():
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
        staged.rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return manifest


def _copy_files(settings: Settings, staged: Path) -> list[str]:
    """Copy what lies below the data folder, and return what lies elsewhere."""
    root = settings.data_dir.absolute()
    elsewhere = []
    if settings.mlflow.url is not None:
        elsewhere.append("artefacts of MLflow: they are in the store of its server")
    if settings.results_uri is not None:
        elsewhere.append("results of the pipelines: they are at `DUET_RESULTS_URI`")
    for name in FOLDERS:
        if (root / name).is_dir():
            copy_private(root / name, staged / name)
    salt = root / "secrets" / SALT_FILE
    if settings.logging.person_salt is None and salt.is_file():
        copy_private(salt, staged / SALT_FILE)
    return elsewhere


def copy_private(source: Path, target: Path) -> None:
    """Copy a file or a folder so that only this account may read it; what vanishes meanwhile is left out."""
    if source.is_dir():
        target.mkdir(mode=0o700)
        for path in sorted(source.iterdir()):
            if not path.is_symlink():
                copy_private(path, target / path.name)
        return
    try:
        with source.open("rb") as content:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                shutil.copyfileobj(content, file, 2**20)
                file.flush()
                os.fsync(file.fileno())
    except FileNotFoundError:
        target.unlink(missing_ok=True)
