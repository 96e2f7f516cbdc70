"""Ends a worker without losing a request: on SIGTERM it says `not ready`, goes on for a while, and only then stops.

A server that closes at once resets what it has not accepted yet (the kernel has, in the listen queue) and what is on
its way on open connections. So before uvicorn is told: answers end their connection, probes say 503 for `drain_s`;
then, when no other worker goes on, the kernel is told to take no further connection, while those it has are accepted;
and the server stops when nobody has asked for a moment. A connection refused that late was never accepted, and its
client knows.
"""

import asyncio
import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import structlog

from infra.clock import Clock

_QUIET_S = 0.5
"""Long enough for a busy client to use its connection once more, and to be told that it ends."""
_LONGEST_S = 5.0
_QUEUE_S = 1.0
_SO_ATTACH_FILTER = 26
_TCP_INFO_QUEUE = 24
"""Where `struct tcp_info` holds the length of a listening socket's queue."""
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)
"""One BPF instruction: return 0, keep nothing of any packet."""
_LEAST_HOPS = {
    socket.AF_INET: (socket.IPPROTO_IP, 21),  # IP_MINTTL
    socket.AF_INET6: (socket.IPPROTO_IPV6, 73),  # IPV6_MINHOPCOUNT
}
_NOBODY_SENDS = 255
"""The largest time to live of a packet; operating systems begin at 64 or 128."""
_log = structlog.get_logger(__name__)
Handler = Callable[[int, FrameType | None], Any]


class Drain:
    """`active` from the signal on; `lock_path` is shared by the workers of one service."""

    def __init__(self, drain_s: float, lock_path: Path, clock: Clock) -> None:
        self._drain_s = drain_s
        self._clock = clock
        self._asked_s = 0.0
        self._lock_path = lock_path
        self._lock: int | None = None
        self._task: asyncio.Task[None] | None = None
        self.active = False

    def note_request(self) -> bool:
        """Note that somebody asks; return whether the answer should end the connection."""
        self._asked_s = self._clock.monotonic()
        return self.active

    def install(self) -> None:
        """Stand before the server's own handlers of SIGTERM and SIGINT; call it in the running loop."""
        self._lock_path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            server = signal.getsignal(number)
            if callable(server):
                signal.signal(number, self._handler(loop, server))

    def _handler(self, loop: asyncio.AbstractEventLoop, server: Handler) -> Handler:
        def handle(number: int, frame: FrameType | None) -> None:
            if self.active:
                if self._task is None or self._task.done():
                    server(number, frame)
                return  # told twice: circus tells a worker and its children, a terminal the whole group
            self.active = True
            loop.call_soon_threadsafe(self._begin, server, number)

        return handle

    def _begin(self, server: Handler, number: int) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(server, number), name="drain")

    async def _run(self, server: Handler, number: int) -> None:
        _log.info("draining", seconds=self._drain_s)
        try:
            await asyncio.sleep(self._drain_s)
            await self._empty_queue()
            _stop_accepting(server)
            self._asked_s = self._clock.monotonic()
            for _ in range(int(_LONGEST_S / _QUIET_S)):
                await asyncio.sleep(max(0.0, self._asked_s + _QUIET_S - self._clock.monotonic()))
                if self._clock.monotonic() - self._asked_s >= _QUIET_S:
                    break
        finally:
            server(number, None)

    async def _empty_queue(self) -> None:
        """Wait until the kernel holds no connection that nobody accepted, and will take no more."""
        if self._lock is None:
            return
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        await asyncio.sleep(0.05)  # the others are told in the same moment, but one after the other
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another worker goes on, or empties the queue for all: what waits is accepted by it
        if sys.platform != "linux":
            return
        for listener in _listeners():
            with listener:
                try:
                    _refuse_new(listener)
                    await _emptied(listener)
                    _hear_everybody()
                except OSError as error:
                    _log.warning("listen_queue_not_closed", error=type(error).__name__)


def _stop_accepting(handler: Handler) -> None:
    """Close the listening sockets of the server whose handler this is; its connections stay."""
    for listening in getattr(getattr(handler, "__self__", None), "servers", ()):  # of uvicorn.Server
        listening.close()


def _listeners() -> list[socket.socket]:
    """Return this process's own listening TCP sockets, as duplicates."""
    connections = psutil.Process().net_connections("tcp")
    return [
        socket.socket(fileno=os.dup(connection.fd))
        for connection in connections
        if connection.status == psutil.CONN_LISTEN and connection.fd >= 0
    ]


def _refuse_new(listener: socket.socket) -> None:
    """Have the kernel drop what asks for a new connection; those in the queue stay in it."""
    instruction = ctypes.create_string_buffer(_DROP_ALL)
    program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(instruction))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except PermissionError:  # some kernels let root filter only, and a container is not root
        _require_hops(listener, _NOBODY_SENDS)


def _require_hops(connection: socket.socket, least: int) -> None:
    """Have the kernel drop packets that come with a smaller time to live than this; 0 takes every packet."""
    level, option = _LEAST_HOPS[socket.AddressFamily(connection.family)]
    connection.setsockopt(level, option, least)


def _hear_everybody() -> None:
    """Take every packet on open connections: one that was made in the last moment has the rule of its listener."""
    for connection in psutil.Process().net_connections("tcp"):
        if connection.status == psutil.CONN_ESTABLISHED and connection.fd >= 0:
            with socket.socket(fileno=os.dup(connection.fd)) as open_one:
                _require_hops(open_one, 0)


async def _emptied(listener: socket.socket) -> None:
    for _ in range(int(_QUEUE_S / 0.01)):
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        if struct.unpack_from("I", info, _TCP_INFO_QUEUE)[0] == 0:
            return
        await asyncio.sleep(0.01)
