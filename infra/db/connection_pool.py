"""A pool of connections to Postgres: it bounds the waiting for one in time and number, and never gives up reconnecting.

It is not psycopg_pool, which keeps callers whose time is over in its queue, counts them against the bound on waiting,
and refuses before it opens a connection. It also stops to reconnect after a limit, or doubles its pauses for ever.
Under load, an outage of half a minute therefore left a pool without connections and with a full queue for good.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import psycopg
import structlog
from psycopg.pq import ConnStatus, TransactionStatus

from infra.db.pooled import PooledConnection
from infra.errors import NoConnection

PING_AFTER_S: Final = 1.0
"""Idle time from which on a connection is asked for an answer before it is lent."""
PING_S: Final = 1.0
"""Longest wait for that answer; a caller with less time leaves before."""
OPENERS: Final = 4
"""Connections that are opened at once; while the server is away, one tries for all."""
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0
"""Pauses between attempts to connect: the longest bounds how late the return of the server is noticed."""
MAX_IDLE_S: Final = 600.0
MAX_LIFETIME_S: Final = 3600.0
_log = structlog.get_logger(__name__)
Connect = Callable[[], Awaitable[PooledConnection]]


@dataclass(frozen=True)
class PoolStats:
    """The numbers of a pool; `refused` counts calls that got no connection, since the pool was made.

    `problem` is why the last attempt to connect failed, None after one that did not.
    """

    size: int
    idle: int
    waiting: int
    most: int
    refused: int
    problem: str | None


class ConnectionPool:
    """Lends connections that `connect` opens: `size` are kept, up to `most` are opened while calls wait.

    Calls get connections in the order in which they came. Every method but `close` must run in the loop of `open`.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        name: str,
        size: int,
        most: int,
        max_waiting: int,
        checkout_timeout_s: float,
        connect_timeout_s: float,
    ) -> None:
        self.name = name
        self._connect = connect
        self._size = size
        self._most = most
        self._max_waiting = max_waiting
        self._checkout_timeout_s = checkout_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._idle: deque[PooledConnection] = deque()  # the one used last is at the right end, and lent first
        self._waiting: deque[asyncio.Future[PooledConnection]] = deque()
        self._openers: set[asyncio.Task[None]] = set()
        self._opening = 0
        self._lent = 0
        self._refused = 0
        self._open = False
        self._problem: str | None = None

    async def __aenter__(self) -> Self:
        """Open the pool."""
        self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pool."""
        await self.close()

    def open(self) -> None:
        """Begin to connect, in the background: whether the server is there or not."""
        self._open = True
        self._grow()

    async def close(self) -> None:
        """Close every connection; those that are lent are closed when they come back."""
        self._open = False
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(NoConnection(f"The pool `{self.name}` is closed."))
        self._waiting.clear()
        while self._idle:
            _end(self._idle.pop())
        openers = list(self._openers)
        for opener in openers:
            opener.cancel()
        await asyncio.gather(*openers, return_exceptions=True)

    def stats(self) -> PoolStats:
        """Return the numbers of this moment."""
        size, idle = len(self._idle) + self._lent, len(self._idle)
        return PoolStats(size, idle, len(self._waiting), self._most, self._refused, self._problem)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[PooledConnection]:
        """Lend a connection for the block; raises NoConnection."""
        connection = await self.getconn()
        try:
            yield connection
        finally:
            self.putconn(connection)

    async def getconn(self) -> PooledConnection:
        """Lend a connection until `putconn`; raises NoConnection."""
        if not self._open:
            raise NoConnection(f"The pool `{self.name}` is not open.")
        connection = None if self._waiting else self._take_idle()
        if connection is not None and await self._answers(connection):
            return connection
        try:
            async with asyncio.timeout(self._checkout_timeout_s):
                return await self._in_turn()
        except TimeoutError:
            self._refused += 1
            away = f": {self._problem}" if self._problem else ""
            raise NoConnection(
                f"No connection of the pool `{self.name}` came free within {self._checkout_timeout_s} s{away}."
            ) from None

    def putconn(self, connection: PooledConnection) -> None:
        """Take a connection back: it goes to the call that waits longest, or is kept, or is replaced if it ended."""
        now = time.monotonic()
        usable = connection.pgconn.transaction_status == TransactionStatus.IDLE
        if not (self._open and usable and now - connection.opened_s < MAX_LIFETIME_S):
            self._discard(connection)
            return
        connection.used_s = now
        self._lent -= 1
        self._hand_over(connection)
        if len(self._idle) + self._lent > self._size and self._idle and now - self._idle[0].used_s > MAX_IDLE_S:
            _end(self._idle.popleft())

    def _take_idle(self) -> PooledConnection | None:
        """Lend the connection that was used last among those that the server has not ended."""
        while self._idle:
            connection = self._idle.pop()
            if not _has_ended(connection):
                self._lent += 1
                return connection
            _end(connection)
        return None

    async def _answers(self, connection: PooledConnection) -> bool:
        """Ask a lent connection for an answer if it idled; without one it is closed, with all that idled for longer."""
        asked_s = time.monotonic()
        if asked_s - connection.used_s <= PING_AFTER_S:
            return True
        try:
            async with asyncio.timeout(PING_S):
                await connection.execute(b"")
        except (psycopg.Error, OSError, TimeoutError):
            self._discard(connection, and_idle=True)
            return False
        except BaseException:
            self._discard(connection, and_idle=time.monotonic() - asked_s > self._checkout_timeout_s)
            raise
        return True

    async def _in_turn(self) -> PooledConnection:
        if len(self._waiting) >= self._max_waiting:
            self._refused += 1
            raise NoConnection(f"{len(self._waiting)} calls wait for a connection of the pool `{self.name}` already.")
        turn: asyncio.Future[PooledConnection] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._grow()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.putconn(turn.result())  # it was handed over just when the call gave up
            else:
                with suppress(ValueError):
                    self._waiting.remove(turn)
            raise

    def _hand_over(self, connection: PooledConnection) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._lent += 1
                turn.set_result(connection)
                return
        self._idle.append(connection)

    def _discard(self, lent: PooledConnection, *, and_idle: bool = False) -> None:
        while and_idle and self._idle:
            _end(self._idle.pop())
        _end(lent)
        self._lent -= 1
        self._grow()

    def _grow(self) -> None:
        """Begin to open what is missing: up to `size` in any case, up to `most` for calls that wait."""
        while self._open and self._opening < (OPENERS if self._problem is None else 1):
            n = len(self._idle) + self._lent + self._opening
            if n >= self._most or (n >= self._size and self._opening >= len(self._waiting)):
                return
            self._opening += 1
            opener = asyncio.get_running_loop().create_task(self._open_one(), name=f"{self.name}-opener")
            self._openers.add(opener)
            opener.add_done_callback(self._openers.discard)

    async def _open_one(self) -> None:
        try:
            connection = await self._connected()
        finally:
            self._opening -= 1
        if connection is not None:
            connection.opened_s = connection.used_s = time.monotonic()
            if not self._open:
                _end(connection)
                return
            self._hand_over(connection)
        self._grow()

    async def _connected(self) -> PooledConnection | None:
        """Return a new connection, however long the server is away; None when another opener tries already."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                async with asyncio.timeout(self._connect_timeout_s):
                    connection = await self._connect()
            except Exception as error:  # noqa: BLE001 whatever stands in the way: the server may be back any time
                self._note(error)
            else:
                self._note(None)
                return connection
            if self._opening > 1:
                return None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _note(self, error: Exception | None) -> None:
        if error is None:
            if self._problem is not None:
                _log.info("pool_connected_again", pool=self.name)
            self._problem = None
            return
        lines = str(error).strip().splitlines()
        said = lines[0] if lines else type(error).__name__
        if self._problem is None:
            _log.warning("pool_cannot_connect", pool=self.name, error=said)
        self._problem = said


def _end(connection: PooledConnection) -> None:
    """Close a connection without waiting; it is an argument, for psycopg complains of one that is deleted open."""
    connection.pgconn.finish()


def _has_ended(connection: PooledConnection) -> bool:
    """Say whether the server is known to have ended a connection, without asking it."""
    try:
        connection.pgconn.consume_input()
    except psycopg.Error:
        return True
    return connection.pgconn.status == ConnStatus.BAD
