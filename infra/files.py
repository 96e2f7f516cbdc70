"""Files that survive a power cut: written whole or not at all, and known to the disk before anybody counts on them.

They are this account's only.
"""

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o077
"""The umask of every process of ours: what is taken from the mode of each file that it makes."""
_CHUNK: Final = 2**20


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace the file at `path` durably, creating its folder; readers see the old or the new file, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the sha256 (hex) of a file's bytes, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
