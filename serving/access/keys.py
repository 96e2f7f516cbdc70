"""What an API key is: `duet_<key id>_<secret>`, shown once, of which only a digest of the secret is kept.

A plain SHA-256 is enough, and a slow hash would be wrong: the secret is 256 random bits, so there is no list of likely
ones to try, and a slow hash would let anybody who sends keys at random use up the processor.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass

_SHAPE = re.compile(r"duet_([a-z0-9]{8,32})_([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True)
class Key:
    """A key as the service knows it; `requests_per_minute` None takes the limit of the settings."""

    key_id: str
    name: str
    secret_sha256: bytes
    requests_per_minute: int | None
    tester: bool


def new_key() -> tuple[str, str, bytes]:
    """Make a key; return its id, the whole key to show once, and the digest to keep."""
    key_id, secret = secrets.token_hex(6), secrets.token_hex(32)
    return key_id, f"duet_{key_id}_{secret}", digest(secret)


def digest(secret: str) -> bytes:
    """Return what is kept of a secret: 32 bytes."""
    return hashlib.sha256(secret.encode()).digest()


def split(presented: str) -> tuple[str, str] | None:
    """Return id and secret of a presented key, or None when it cannot be one."""
    found = _SHAPE.fullmatch(presented)
    return None if found is None else (found[1], found[2])
