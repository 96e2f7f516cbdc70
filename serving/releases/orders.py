"""What Postgres says of releases, asked every second: that the audit grew, and the open pin of a rollback.

A promotion or rollback from anywhere is therefore felt by every worker within `poll_s`, without LISTEN, which a
transaction-pooling PgBouncer breaks. What was last known goes on while Postgres is away.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from registry.promotion.audit import Pin, read_orders

_log = structlog.get_logger(__name__)


class ReleaseOrders:
    """The open pin; `read` fetches the row of `ORDERS` and may raise whatever its database raises.

    `changed` is called when there is something new to look at, with whether it cannot wait for what is being done:
    a pin was opened or closed.
    """

    def __init__(
        self, read: Callable[[], Awaitable[Sequence[Any]]], poll_s: float, changed: Callable[[bool], None]
    ) -> None:
        self._read = read
        self._poll_s = poll_s
        self._changed = changed
        self._newest: int | None = None
        self.pin: Pin | None = None
        self.problem: str | None = None
        self.tried = asyncio.Event()

    async def refresh(self) -> None:
        """Look once; on failure what was known stays."""
        try:
            newest, pin = read_orders(await self._read())
        except Exception as error:  # noqa: BLE001 whatever the database raises: what was known goes on
            if self.problem is None:
                _log.warning("release_orders_not_read", error=type(error).__name__)
            self.problem = f"The orders for releases could not be read again: {type(error).__name__}."
            return
        finally:
            self.tried.set()
        self.problem = None
        before = self._newest, self.pin
        self._newest, self.pin = newest, pin
        if before != (newest, pin):
            _log.info("release_ordered", newest=newest, pinned=None if pin is None else pin.versions.release_id)
            self._changed(pin != before[1])

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._poll_s)
