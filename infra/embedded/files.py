"""Small files of the embedded servers: written whole or not at all, secrets readable by their owner only."""

import secrets
from pathlib import Path

from infra.files import write_whole


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file atomically and durably, creating its folder."""
    write_whole(path, text.encode(), mode)


def secret(path: Path) -> str:
    """Return the password kept in a file of mode 600, making one the first time.

    Call it under the server's lock: two first callers must not make two passwords.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        write_text(path, secrets.token_urlsafe(24), mode=0o600)
    return path.read_text(encoding="utf-8").strip()
