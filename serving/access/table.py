"""The keys that count, in memory: read from Postgres every few seconds, the last good ones kept while it is away.

So a new key works, and a revoked one stops working, on every worker within `refresh_s`, and a request never waits for
Postgres to be let in.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Sequence

import structlog

from serving.access.keys import Key, digest, split
from serving.errors import KeysUnavailable, Unauthorized

_NOBODY = Key("", "", bytes(32), None, tester=False)
_log = structlog.get_logger(__name__)


class KeyTable:
    """Keys by id; `read` fetches those that count now, and may raise whatever its database raises."""

    def __init__(self, read: Callable[[], Awaitable[Sequence[Key]]], refresh_s: float) -> None:
        self._read = read
        self._refresh_s = refresh_s
        self._keys: dict[str, Key] | None = None
        self.problem: str | None = None

    @property
    def known(self) -> bool:
        """Tell whether the keys were read at least once."""
        return self._keys is not None

    def authenticate(self, presented: str) -> Key:
        """Return the key that `presented` is; raises Unauthorized, and KeysUnavailable before the first read."""
        if self._keys is None:
            raise KeysUnavailable("API keys cannot be checked yet: try again in a moment.", retry_after_s=1)
        parts = split(presented)
        if parts is None:
            raise Unauthorized("The API key is not one: send `Authorization: Bearer duet_…` as it was shown.")
        key = self._keys.get(parts[0], _NOBODY)
        # An id that nobody has costs the same hash and the same comparison, so time does not tell which ids exist.
        right = hmac.compare_digest(digest(parts[1]), key.secret_sha256)
        if not right or key is _NOBODY:
            raise Unauthorized("The API key is unknown or revoked.")
        return key

    async def refresh(self) -> None:
        """Read the keys once; on failure the last good ones stay."""
        try:
            keys = await self._read()
        except Exception as error:  # noqa: BLE001 whatever the database raises: nobody is let in or out by it
            if self.problem is None:
                _log.warning("keys_not_read", error=type(error).__name__, kept=len(self._keys or ()))
            self.problem = f"The API keys could not be read: {type(error).__name__}."
        else:
            self._keys = {key.key_id: key for key in keys}
            self.problem = None

    async def run(self) -> None:
        """Refresh for ever; before the first success more often."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._refresh_s if self.known else min(self._refresh_s, 0.5))
