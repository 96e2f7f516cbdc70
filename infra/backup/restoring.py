"""Restores a backup onto an empty installation, or over one that is given up."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
import redis
from psycopg import sql

from infra.backup.erased import JOURNAL, erase_again, journaled, recorded
from infra.backup.errors import BackupInTheWay
from infra.backup.manifest import DUMP_FILE, FOLDERS, SALT_FILE, BackupManifest, read_manifest
from infra.backup.taking import copy_private
from infra.backup.tools import RESTORE, run_tool
from infra.db.migrate import SCHEMAS, upgrade
from infra.db.postgres import connect
from infra.endpoints import Endpoints
from infra.errors import ServerUnavailable
from infra.person_names import PersonNames
from infra.redis import connect as connect_redis
from infra.settings import Settings

_KEPT: Final = ("users", "interactions", "promotions", "answers", "imports")
"""Tables of which one row is enough to say that an installation is in use."""
_LOCK_WAIT: Final = "10s"
_SCANNED: Final = 1_000


@dataclass(frozen=True)
class Restored:
    """What was restored, how many people were erased again, and whether nobody was found of those erased since."""

    manifest: BackupManifest
    erased_again: int
    nobody_found: bool


def restore_backup(
    settings: Settings,
    endpoints: Endpoints,
    folder: Path,
    *,
    actor: str,
    overwrite: bool = False,
    journals: Sequence[Path] = (),
) -> Restored:
    """Put a backup in the place of what is there, migrate it, and erase again whoever was erased since it was taken.

    Nothing may be using the database meanwhile. One that is killed is begun again with `overwrite`.

    Raises:
        BackupDamaged: the backup is not whole; nothing was touched.
        BackupInTheWay: the installation holds something, and is not to be overwritten; nothing was touched.
        ToolMissing, ToolFailed: the database cannot be restored.
    """
    manifest = read_manifest(folder)
    root = settings.data_dir.absolute()
    with connect(endpoints.database_url, autocommit=True) as connection:
        if not overwrite:
            _refuse_use(connection, root)
        hashed = recorded(connection, manifest.taken_at)
        hashed |= journaled([root / JOURNAL, *journals], manifest.taken_at)
        _drop(connection)
        version = connection.info.server_version
    arguments = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction")
    run_tool(RESTORE, endpoints.database_url, version, *arguments, str(folder / DUMP_FILE))
    upgrade(endpoints.database_url)
    _put_files(folder, root)
    _forget_derived(settings, endpoints, root)
    with connect(endpoints.database_url, autocommit=True) as connection:
        again = erase_again(connection, hashed, PersonNames.of(settings), actor) if hashed else 0
        connection.execute("analyze")
    return Restored(manifest, again, nobody_found=bool(hashed) and not again)


def _refuse_use(connection: psycopg.Connection[Any], root: Path) -> None:
    used = [
        name
        for name in _KEPT
        if connection.execute(
            sql.SQL("select exists (select from {})").format(sql.Identifier("duet", name))
        ).fetchone() == (True,)
    ]  # fmt: skip
    used += [name for name in FOLDERS if (root / name).is_dir() and any((root / name).iterdir())]
    if used:
        raise BackupInTheWay(
            f"This installation is in use: there is something in {', '.join(f'`{name}`' for name in used)}. Restore "
            "onto an empty one, or add `--overwrite`, which deletes what is here."
        )


def _drop(connection: psycopg.Connection[Any]) -> None:
    """Drop every schema of ours in one transaction, or none."""
    try:
        with connection.transaction():
            connection.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(_LOCK_WAIT)))
            for schema in SCHEMAS:
                connection.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(schema)))
    except psycopg.errors.LockNotAvailable as error:
        raise BackupInTheWay("Somebody is using the database: stop the platform and every service.") from error


def _put_files(folder: Path, root: Path) -> None:
    for name in FOLDERS:
        if (folder / name).is_dir():
            staged = root / f".{name}.restored"
            shutil.rmtree(staged, ignore_errors=True)
            copy_private(folder / name, staged)
            shutil.rmtree(root / name, ignore_errors=True)
            staged.rename(root / name)
    salt = root / "secrets" / SALT_FILE
    if (folder / SALT_FILE).is_file() and not salt.exists():
        salt.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        copy_private(folder / SALT_FILE, salt)


def _forget_derived(settings: Settings, endpoints: Endpoints, root: Path) -> None:
    """Delete what is made from the rest: features online, kept answers, the population files of this machine."""
    shutil.rmtree(root / "snapshot", ignore_errors=True)
    try:
        with connect_redis(endpoints.redis_url, settings.redis, socket_timeout_s=30.0) as client:
            keys: list[Any] = list(client.scan_iter(f"*{settings.features.project}*", _SCANNED))
            for start in range(0, len(keys), _SCANNED):
                client.delete(*keys[start : start + _SCANNED])
    except redis.RedisError as error:
        raise ServerUnavailable(f"Redis does not answer, and may hold features of others: {error}.") from error
