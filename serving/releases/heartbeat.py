"""Says in Postgres what this worker serves, when it changes and every few seconds: see `registry.promotion.workers`."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import uuid4

import structlog
from psycopg import sql

from registry.promotion.release_cache import ReleaseCache
from registry.promotion.workers import EVERY_S, FORGET, FORGOTTEN_S, LEAVE, REPORT
from serving.releases.watcher import ReleaseWatcher

Write = Callable[[sql.SQL, Mapping[str, Any] | tuple[Any, ...]], Awaitable[None]]
_SHORTEST_S = 0.2
_log = structlog.get_logger(__name__)


class Heartbeat:
    """Writes through `write`, which may raise what its database raises; then nothing is said until the next time.

    `people_read_at` says when the oldest people were read that the files of this machine hold.
    """

    def __init__(
        self,
        releases: ReleaseWatcher,
        cache: ReleaseCache,
        write: Write,
        people_read_at: Callable[[], datetime | None] = lambda: None,
    ) -> None:
        self._releases = releases
        self._cache = cache
        self._write = write
        self._people_read_at = people_read_at
        self._me = {"worker_id": uuid4(), "host": socket.gethostname(), "pid": os.getpid()}
        self._silent = False

    async def run(self) -> None:
        """Say it until cancelled, then leave."""
        try:
            await self._say(FORGET, (FORGOTTEN_S,))
            while True:
                self._releases.changed.clear()
                await self._say(REPORT, await asyncio.to_thread(self._row))
                await asyncio.sleep(_SHORTEST_S)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._releases.changed.wait(), EVERY_S)
        finally:
            await self._say(LEAVE, self._me)

    def _row(self) -> dict[str, Any]:
        releases = self._releases
        return {
            **self._me,
            "release": releases.current.release_id if releases.current else None,
            "refused": releases.refusal,
            "challenger": releases.challenger.release_id if releases.challenger else None,
            "challenger_refused": releases.challenger_refusal,
            "pin_id": releases.pin.pin_id if releases.pin else None,
            "copies": self._cache.good_names(),
            "people_read_at": self._people_read_at(),
            "mark": releases.current.mark if releases.current else None,
            "challenger_mark": releases.challenger.mark if releases.challenger else None,
        }

    async def _say(self, statement: sql.SQL, values: Mapping[str, Any] | tuple[Any, ...]) -> None:
        try:
            await self._write(statement, values)
        except Exception as error:  # noqa: BLE001 whatever the database raises: others only know less of us
            if not self._silent:
                _log.warning("presence_not_written", error=type(error).__name__)
            self._silent = True
        else:
            self._silent = False
