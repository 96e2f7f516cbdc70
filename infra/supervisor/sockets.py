"""Where a server of a platform listens that no other account may reach: a Unix socket in a folder of mode 0700."""

import hashlib
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import Final

from infra.errors import ConfigurationError

LONGEST_BYTES: Final = 107
"""Linux keeps 108 bytes for the path of a socket, its closing zero among them."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9/._-]+")
"""gRPC reads the address as a URI, in which `%` and `?` mean something."""


def private_socket(data_dir: Path, name: str, *, run: Path = Path("/run/user")) -> Path:
    """Return the path of a socket in a private folder: in `data_dir`, or outside where that path is no good for one.

    Outside is this account's folder in `run` where there is one, else the folder for temporary files; the same data
    folder gets the same path again.

    Raises:
        ConfigurationError: somebody else has the folder, or there is no place with a path that is short enough.
    """
    data_dir = data_dir.resolve()
    inside = data_dir / "sockets" / name
    if _is_usable(inside):
        inside.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        inside.parent.chmod(0o700)
        return inside
    own = run / str(os.geteuid())
    base = own if os.access(own, os.W_OK | os.X_OK) else Path(tempfile.gettempdir()).resolve()
    outside = base / f"duet-{os.geteuid()}-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]}" / name
    if not _is_usable(outside):
        raise ConfigurationError(
            f"`{inside}` and `{outside}` are too long or too unusual for a socket: set `TMPDIR` to a folder with a "
            "path of at most 60 plain characters"
        )
    _have_private(outside.parent)
    return outside


def _is_usable(path: Path) -> bool:
    return len(os.fsencode(path)) <= LONGEST_BYTES and _PLAIN.fullmatch(str(path)) is not None


def _have_private(folder: Path) -> None:
    folder.mkdir(exist_ok=True, mode=0o700)
    found = folder.lstat()  # others may write where it lies: a link or a folder of theirs is not ours
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigurationError(f"`{folder}` is not a folder that only this account may enter: remove it")
