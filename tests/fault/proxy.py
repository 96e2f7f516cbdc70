"""A TCP proxy that breaks the network on demand: between a client and one real server, in a thread of its own.

A fault can be set and lifted at any time; it is felt by the connections that are open as well as by new ones. The
port stays the same for as long as the proxy lives, through `down` as well.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest

_CHUNK = 65536
_TICK_S = 0.05
_RST_ON_CLOSE = struct.pack("ii", 1, 0)
T = TypeVar("T")


class Mode(StrEnum):
    PASS = "pass"
    DOWN = "down"  # nobody listens, and what was open is closed
    REFUSE = "refuse"  # accepted, then reset; what was open is reset
    BLACK_HOLE = "black hole"  # accepted, and not a byte arrives on either side
    DELAY = "delay"  # every piece of a reply comes `amount` seconds late
    DRIP = "drip"  # replies come at `amount` bytes a second
    CUT = "cut"  # the connection ends after `amount` bytes of replies
    RESET = "reset"  # the connection is reset after `amount` bytes of replies


@dataclass(frozen=True)
class Fault:
    """What the network does; `amount` is in the unit that the mode says."""

    mode: Mode = Mode.PASS
    amount: float = 0.0

    def __str__(self) -> str:
        return f"{self.mode} {self.amount:g}" if self.amount else str(self.mode)


HARD = {
    fault.mode: fault
    for fault in (
        Fault(Mode.DOWN),
        Fault(Mode.REFUSE),
        Fault(Mode.BLACK_HOLE),
        Fault(Mode.DELAY, 2.0),
        Fault(Mode.DRIP, 200),
        Fault(Mode.CUT, 30),
        Fault(Mode.RESET, 30),
    )
}
"""Nothing useful arrives in time."""
TRIED = {
    "postgres": {Mode.DOWN, Mode.BLACK_HOLE, Mode.DRIP},
    "redis": {Mode.REFUSE, Mode.BLACK_HOLE, Mode.DELAY, Mode.CUT},
    "mlflow": {Mode.DOWN, Mode.RESET},
}
"""What `make test` breaks how: each server and each mode; the rest of the product is for `make test-long`."""


def each_hard(dependency: str) -> pytest.MarkDecorator:
    """Run a test with every fault of a dependency; those that `TRIED` leaves out are long."""
    kept = TRIED[dependency]
    return pytest.mark.parametrize(
        "fault",
        [pytest.param(fault, marks=[] if mode in kept else [pytest.mark.long]) for mode, fault in HARD.items()],
        ids=str,
    )


class _Broken(Exception):
    def __init__(self, *, by_reset: bool) -> None:
        self.by_reset = by_reset


class _Link:
    """One connection of a client and, once there is one, the connection to the server behind it."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.writers = [client]
        self.replied = 0

    def close(self, *, by_reset: bool) -> None:
        for writer in self.writers:
            if by_reset:
                own: socket.socket = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
            writer.transport.abort()  # now: a close would wait for what a client in a hole does not read


class TcpProxy:
    """Listens on `port` and passes to `host`:`server_port`; a context manager."""

    def __init__(self, host: str, server_port: int) -> None:
        self._server_address = (host, server_port)
        self._fault = Fault()
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.port = 0
        self.accepted = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def links(self) -> int:
        """How many connections are open."""
        return len(self._links)

    def set(self, mode: Mode, amount: float = 0.0) -> None:
        """Break the network in this way from now on; returns when it is so."""
        self._do(self._switch(Fault(mode, amount)))

    def heal(self) -> None:
        """Let everything pass again."""
        self.set(Mode.PASS)

    @contextlib.contextmanager
    def held_up(self) -> Iterator[None]:
        """Keep the proxy's thread waiting, so that it finds all that happens meanwhile at once."""
        waits, may_go_on = threading.Event(), threading.Event()

        def wait() -> None:
            waits.set()
            may_go_on.wait(15)

        self._loop.call_soon_threadsafe(wait)
        waits.wait(15)
        try:
            yield
        finally:
            may_go_on.set()

    def _do(self, step: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(15)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            # A server that is closed between an accept and its transport leaves the connection open, and nobody's.
            self._loop.remove_reader(self._server.sockets[0])
            await asyncio.sleep(0)
            self._server.close()
            self._server = None

    async def _close(self) -> None:
        await self._stop_listening()
        for _ in range(5):  # one that was accepted just now has its task in the next turn
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)

    async def _switch(self, fault: Fault) -> None:
        self._fault = fault
        for link in list(self._links):
            link.replied = 0
            if fault.mode in {Mode.DOWN, Mode.REFUSE}:
                link.close(by_reset=fault.mode is Mode.REFUSE)
        if fault.mode is Mode.DOWN:
            await self._stop_listening()
        elif self._server is None:
            await self._listen()
        self._changed.set()
        self._changed = asyncio.Event()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(writer)
        if self._fault.mode in {Mode.REFUSE, Mode.DOWN}:
            link.close(by_reset=True)
            return
        self._links.add(link)
        task = asyncio.get_running_loop().create_task(self._serve(link, reader))
        # A task that is cancelled before its first step never comes to its own `finally`.
        task.add_done_callback(lambda _: self._forget(link))

    def _forget(self, link: _Link) -> None:
        self._links.discard(link)
        link.close(by_reset=False)

    async def _serve(self, link: _Link, reader: asyncio.StreamReader) -> None:
        by_reset = False
        try:
            await self._pass(link, reader)
        except _Broken as broken:
            by_reset = broken.by_reset
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            link.close(by_reset=by_reset)

    async def _pass(self, link: _Link, client: asyncio.StreamReader) -> None:
        while self._fault.mode is Mode.BLACK_HOLE:
            await self._changed.wait()
        server, to_server = await asyncio.open_connection(*self._server_address)
        link.writers.append(to_server)
        ways = [
            asyncio.create_task(self._pump(link, client, to_server, replies=False)),
            asyncio.create_task(self._pump(link, server, link.writers[0], replies=True)),
        ]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in done:
                way.result()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(
        self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        while data := await source.read(_CHUNK):
            if replies:
                await self._reply(link, data, sink)
            else:
                while self._fault.mode is Mode.BLACK_HOLE:
                    await self._changed.wait()
                sink.write(data)
            await sink.drain()

    async def _reply(self, link: _Link, data: bytes, sink: asyncio.StreamWriter) -> None:
        """Send `data` as the fault of this moment wants it, and look again whenever the fault changes."""
        late = False
        while data:
            fault = self._fault
            if fault.mode is Mode.BLACK_HOLE:
                await self._changed.wait()
            elif fault.mode is Mode.DELAY and not late:
                late = await self._unchanged_for(fault.amount)
            elif fault.mode is Mode.DRIP:
                n = max(1, int(fault.amount * _TICK_S))
                sink.write(data[:n])
                data = data[n:]
                await self._unchanged_for(_TICK_S)
            elif fault.mode in {Mode.CUT, Mode.RESET} and link.replied + len(data) > fault.amount:
                sink.write(data[: int(fault.amount) - link.replied])
                with contextlib.suppress(TimeoutError):  # a client that does not read gets less, which is as good
                    await asyncio.wait_for(sink.drain(), _TICK_S)
                raise _Broken(by_reset=fault.mode is Mode.RESET)
            else:
                link.replied += len(data)
                sink.write(data)
                return

    async def _unchanged_for(self, seconds: float) -> bool:
        """Wait; returns early, and False, when the fault changes."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return True
        return False
