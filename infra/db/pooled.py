"""The connections of a pool: cheap to wait on, given up when a caller leaves, and int8 arrays as numpy.

psycopg's own connection answers a cancelled wait by asking the server to cancel and then waiting for that, without end
when the server is silent. Here the connection is closed instead: the caller is free at once, and no reply that is
still on its way can become somebody else's.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.abc import Buffer, PQGen
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format
from psycopg.pq.abc import PGconn
from psycopg.waiting import Ready, Wait, wait_async

if TYPE_CHECKING:
    from infra.db.connection_pool import ConnectionPool

T = TypeVar("T")
_ENDED: Final = ("57P", "08")
"""What Postgres says last on a connection that it ends."""
_INT8: Final = 20
_INT8_ARRAY: Final = 1016
_HEAD: Final = np.dtype(">i4")
_ELEMENT: Final = np.dtype([("size", ">i4"), ("value", ">i8")])
_HEAD_WORDS: Final = 5  # dimensions, whether there are nulls, type of the elements, length, first index


class PooledConnection(psycopg.AsyncConnection[Any]):
    """A connection that remembers when it was opened and used, and closes itself when a wait is interrupted."""

    opened_s = 0.0
    used_s = 0.0

    def __init__(self, pgconn: PGconn) -> None:
        super().__init__(pgconn)
        self._cursors: dict[bytes, psycopg.AsyncRawCursor[tuple[Any, ...]]] = {}

    async def rows(self, statement: bytes, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run one statement with `$1` parameters and return its rows, read as binary.

        There must be few different statements: what psycopg knows of each is kept, which halves the cost of a call.
        """
        cursor = self._cursors.get(statement)
        if cursor is None:
            cursor = self._cursors[statement] = psycopg.AsyncRawCursor(self)
        await cursor.execute(statement, parameters, binary=True)
        return await cursor.fetchall()

    async def wait(
        self,
        gen: PQGen[T],
        interval: float = 0.0,
        timeout: float | None = None,  # noqa: ASYNC109 as psycopg has it
    ) -> T:
        """Run the generator on the socket; whatever interrupts it closes the connection."""
        del interval  # it lets psycopg notice Ctrl-C, which asyncio does by itself
        try:
            if timeout is not None:  # only psycopg itself sets one, and knows the error that it expects
                return await wait_async(gen, self.pgconn.socket, timeout=timeout)
            return await _run(gen, self.pgconn.socket)
        except (asyncio.CancelledError, KeyboardInterrupt):
            self.pgconn.finish()
            raise


class Int64ArrayDumper(Dumper):
    """int64[n] as a binary int8[], without a Python object per element."""

    format = Format.BINARY
    oid = _INT8_ARRAY

    def dump(self, obj: NDArray[np.int64]) -> Buffer:
        """Return the bytes that Postgres takes."""
        head = np.array([1, 0, _INT8, obj.size, 1] if obj.size else [0, 0, _INT8], dtype=_HEAD)
        body = np.empty(obj.size, dtype=_ELEMENT)
        body["size"] = 8
        body["value"] = obj
        return head.tobytes() + body.tobytes()


class Int64ArrayLoader(Loader):
    """A binary int8[] without nulls as int64[n]."""

    format = Format.BINARY

    def load(self, data: Buffer) -> NDArray[np.int64]:
        """Return the array; ValueError when there are nulls or several dimensions."""
        raw = bytes(data)
        dimensions, nulls = np.frombuffer(raw, _HEAD, 2)
        if not dimensions:
            return np.empty(0, dtype=np.int64)
        if dimensions != 1 or nulls:
            raise ValueError(f"An int8[] of {dimensions} dimensions, nulls {bool(nulls)}, is not a list of ids.")
        elements = np.frombuffer(raw, _ELEMENT, offset=_HEAD_WORDS * _HEAD.itemsize)
        return elements["value"].astype(np.int64)


def prepare(connection: PooledConnection) -> None:
    """Teach a new connection of the pool about arrays."""
    connection.adapters.register_dumper(np.ndarray, Int64ArrayDumper)
    connection.adapters.register_loader(_INT8_ARRAY, Int64ArrayLoader)


async def fetch_all(pool: "ConnectionPool", statement: bytes, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Run one statement with `$1` parameters on a connection of the pool and return its rows, read as binary.

    A connection that turns out to have ended is replaced once: the statement must be harmless to repeat.
    """
    try:
        return await _fetch_all(pool, statement, parameters)
    except psycopg.OperationalError as error:
        if error.sqlstate is not None and not error.sqlstate.startswith(_ENDED):
            raise  # the server answered: asking again gives the same
        return await _fetch_all(pool, statement, parameters)


async def _fetch_all(pool: "ConnectionPool", statement: bytes, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    connection = await pool.getconn()
    try:
        return await connection.rows(statement, parameters)
    finally:
        pool.putconn(connection)


async def _run(gen: PQGen[T], socket: int) -> T:
    try:
        wanted = next(gen)
        if wanted & Wait.W:
            wanted = gen.send(Ready.W)  # a statement nearly always fits into the socket's buffer
        while True:
            wanted = gen.send(await _ready(socket, wanted))
    except StopIteration as end:
        answer: T = end.value
        return answer


async def _ready(socket: int, wanted: Wait) -> Ready:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[Ready] = loop.create_future()

    def wake(what: Ready) -> None:
        if not ready.done():
            ready.set_result(what)

    try:
        if wanted & Wait.R:
            loop.add_reader(socket, wake, Ready.R)
        if wanted & Wait.W:
            loop.add_writer(socket, wake, Ready.W)
        return await ready
    finally:
        if wanted & Wait.R:
            loop.remove_reader(socket)
        if wanted & Wait.W:
            loop.remove_writer(socket)
