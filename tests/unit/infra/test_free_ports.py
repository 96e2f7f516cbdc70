import gc
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from infra.embedded import ports
from infra.embedded.ports import free_port, is_free

OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_a_port_for_a_server_is_free_and_none_that_an_outgoing_connection_may_take() -> None:
    if not OUTGOING.is_file():
        pytest.skip("only Linux says which ports outgoing connections get")
    lowest, highest = map(int, OUTGOING.read_text().split())
    ports = [free_port() for _ in range(20)]
    assert all(map(is_free, ports))
    assert not [port for port in ports if lowest <= port <= highest]


ONE_PORT = """
import sys
from infra.embedded import ports
ports._FOR_SERVERS = range(int(sys.argv[1]), int(sys.argv[1]) + 1)
ports._TRIES = 1
print(ports.free_port())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems let no server listen beside a bound socket")
def test_a_port_is_given_to_nobody_else_and_its_server_may_listen_and_come_back() -> None:
    port = free_port()
    other = subprocess.run(
        [sys.executable, "-c", ONE_PORT, str(port)], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(other.stdout) != port
    assert is_free(port)
    for _ in range(2):
        with socket.create_server(("127.0.0.1", port)) as server, socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()


def test_only_the_last_ports_are_kept_from_others_and_no_socket_is_left_open() -> None:
    kept = [free_port() for _ in range(100)][-ports._AT_ONCE :]
    gc.collect()  # an unclosed socket would warn here
    assert [reservation.getsockname()[1] for reservation in ports._reserved] == kept
