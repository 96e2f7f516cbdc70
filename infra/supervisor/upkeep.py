"""What grows beside a running platform and is kept small: its logs, Data Docs, and what runs left in folders.

Logs are copied and cut to nothing instead of being renamed: the processes that write them, some of them not ours, go on
with the file they have open, at its end.
"""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from infra.settings import Settings
from infra.supervisor.state import logs_dir

LOOK_EVERY_S = 30.0
PRUNE_EVERY_S = 3600.0
COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_MIB = 2**20


class Upkeep:
    """Keeps one platform's folders small; `look` does what is due."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._looked_at = self._pruned_at = float("-inf")

    def look(self) -> None:
        """Rotate and prune what is due; what cannot be done now is tried again next time."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        logs, data_dir = self._settings.logging, self._settings.data_dir.resolve()
        for path in logs_dir(data_dir).glob("*.log"):
            with suppress(OSError):
                rotate(path, logs.file_mb * _MIB, logs.files)
        if now - self._pruned_at >= PRUNE_EVERY_S:
            self._pruned_at = now
            kept = self._settings.upkeep
            for folder in ("data_docs", "dagster/storage", "dagster/logs"):
                with suppress(OSError):
                    prune(data_dir / folder, kept.days * 86_400, kept.mb * _MIB)


def rotate(path: Path, max_bytes: int, files: int) -> bool:
    """Move a log beyond `max_bytes` to `NAME.1`, those before it one further, and keep `files` of them."""
    if path.stat().st_size <= max_bytes:
        return False
    for number in range(files - 1, 0, -1):
        with suppress(FileNotFoundError):
            _numbered(path, number).replace(_numbered(path, number + 1))
    if files:
        shutil.copyfile(path, _numbered(path, 1))
        _numbered(path, 1).chmod(0o600)
    with path.open("r+b") as log:
        log.truncate()
    return True


def prune(folder: Path, max_age_s: float, max_bytes: int) -> list[str]:
    """Remove entries of a folder that are older than `max_age_s`, then the oldest beyond `max_bytes`; return names."""
    left = max_bytes
    removed = []
    # The newest first: they have the space, and one that a run is writing now is among them.
    for changed_at, size, entry in sorted(_entries(folder), reverse=True):
        left -= size
        if time.time() - changed_at > max_age_s or left < 0:
            with suppress(OSError):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)
                removed.append(entry.name)
    return removed


def tail_lines(path: Path, lines: int) -> tuple[list[str], int]:
    """Return the last lines of a log without colours, and where it ends now."""
    with path.open("rb") as log:
        size = log.seek(0, 2)
        log.seek(max(0, size - lines * 1000))
        text = log.read().decode(errors="replace")
        return COLOURS.sub("", text).splitlines()[-lines:], log.tell()


def followed(path: Path, position: int, every_s: float = 0.3) -> Iterator[str]:
    """Yield what is written to a log from `position` on, for ever; a log that was cut begins anew."""
    while True:
        with suppress(FileNotFoundError), path.open("rb") as log:
            position = 0 if log.seek(0, 2) < position else position
            log.seek(position)
            text = log.read()
            position = log.tell()
            if text:
                yield COLOURS.sub("", text.decode(errors="replace"))
        time.sleep(every_s)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _entries(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield every entry with the time of the last change in it and its size in bytes."""
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        with suppress(OSError):
            found = [entry.lstat(), *(path.lstat() for path in entry.rglob("*") if not entry.is_symlink())]
            yield max(each.st_mtime for each in found), sum(each.st_size for each in found), entry
