"""The proxy does to connections what its modes say, to those that are open and to new ones, and lets them heal."""

import contextlib
import gc
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.fault.proxy import Fault, Mode, TcpProxy

PATIENCE_S = 10.0


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                self.request.sendall(data)


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    with EchoServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with TcpProxy("127.0.0.1", server.server_address[1]) as proxy:
                yield proxy
        finally:
            server.shutdown()


@contextlib.contextmanager
def client(proxy: TcpProxy, timeout_s: float = PATIENCE_S) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout_s) as connection:
        yield connection


def echoed(connection: socket.socket, data: bytes = b"hello") -> bytes:
    connection.sendall(data)
    return received(connection, len(data))


def received(connection: socket.socket, n: int) -> bytes:
    """Return up to `n` bytes: fewer when the connection ends before."""
    data = b""
    while len(data) < n and (more := connection.recv(n - len(data))):
        data += more
    return data


def test_what_passes_arrives_unchanged_in_both_directions(proxy: TcpProxy) -> None:
    data = bytes(range(256)) * 4096
    with client(proxy) as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        assert received(connection, len(data)) == data
        sender.join()


def test_down_refuses_new_connections_ends_open_ones_and_comes_back_on_the_same_port(proxy: TcpProxy) -> None:
    port = proxy.port
    with client(proxy) as connection:
        assert echoed(connection) == b"hello"
        proxy.set(Mode.DOWN)
        with contextlib.suppress(ConnectionError):
            assert connection.recv(1) == b""
    with pytest.raises(ConnectionRefusedError), client(proxy):
        pass
    proxy.heal()
    assert proxy.port == port
    with client(proxy) as connection:
        assert echoed(connection) == b"hello"


def test_refuse_resets_open_connections_and_new_ones_after_accepting_them(proxy: TcpProxy) -> None:
    with client(proxy) as connection:
        assert echoed(connection) == b"hello"
        proxy.set(Mode.REFUSE)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(ConnectionResetError), client(proxy) as connection:
        connection.recv(1)


def test_a_black_hole_swallows_what_is_open_and_what_is_new_until_it_heals(proxy: TcpProxy) -> None:
    with client(proxy) as connection:
        assert echoed(connection) == b"hello"
        proxy.set(Mode.BLACK_HOLE)
        with client(proxy, 0.2) as other:
            other.sendall(b"other")
            with pytest.raises(TimeoutError):
                other.recv(1)
            other.settimeout(PATIENCE_S)
            connection.sendall(b"again")
            connection.settimeout(0.2)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.settimeout(PATIENCE_S)
            proxy.heal()
            assert received(connection, 5) == b"again"
            assert received(other, 5) == b"other"


def test_a_delay_is_felt_by_replies_and_lifted_at_once(proxy: TcpProxy) -> None:
    with client(proxy) as connection:
        assert echoed(connection) == b"hello"
        proxy.set(Mode.DELAY, 0.3)
        began = time.monotonic()
        assert echoed(connection) == b"hello"
        assert time.monotonic() - began >= 0.3
        proxy.set(Mode.DELAY, 60)
        connection.sendall(b"late")
        time.sleep(0.1)
        proxy.heal()
        assert received(connection, 4) == b"late"


def test_a_slow_drip_keeps_to_its_rate(proxy: TcpProxy) -> None:
    proxy.set(Mode.DRIP, 1000)
    with client(proxy) as connection:
        began = time.monotonic()
        assert echoed(connection, b"x" * 300) == b"x" * 300
        assert time.monotonic() - began >= 0.25


def test_a_reply_is_cut_after_so_many_bytes(proxy: TcpProxy) -> None:
    with client(proxy) as connection:
        assert echoed(connection, b"x" * 50) == b"x" * 50
        proxy.set(Mode.CUT, 7)
        assert echoed(connection, b"y" * 50) == b"y" * 7
    with client(proxy) as connection:
        assert echoed(connection, b"z" * 7) == b"z" * 7
        assert echoed(connection, b"z" * 7) == b""


def test_a_reply_is_reset_in_the_middle(proxy: TcpProxy) -> None:
    proxy.set(Mode.RESET, 4)
    with client(proxy) as connection:
        connection.sendall(b"y" * 50)
        with pytest.raises(ConnectionResetError):
            received(connection, 50)


def test_connections_that_end_are_let_go_of(proxy: TcpProxy) -> None:
    for _ in range(5):
        with client(proxy) as connection:
            assert echoed(connection) == b"hello"
    until = time.monotonic() + PATIENCE_S
    while proxy.links:
        assert time.monotonic() < until, f"{proxy.links} connections are still open"
        time.sleep(0.01)
    assert proxy.accepted == 5


@pytest.mark.parametrize("mode", [Mode.DOWN, Mode.REFUSE])
def test_a_connection_that_comes_together_with_a_fault_is_ended_and_not_left_behind(
    proxy: TcpProxy, mode: Mode
) -> None:
    with contextlib.ExitStack() as stack:
        with proxy.held_up():
            connections = [stack.enter_context(client(proxy)) for _ in range(3)]
            switching = threading.Thread(target=proxy.set, args=(mode,))
            switching.start()
            time.sleep(0.1)
        switching.join()
        for connection in connections:
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
    gc.collect()  # a transport that was left behind warns when it is collected
    assert proxy.links == 0


def test_a_fault_names_itself() -> None:
    assert str(Fault(Mode.DELAY, 0.3)) == "delay 0.3"
    assert str(Fault()) == "pass"
