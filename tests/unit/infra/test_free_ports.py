from pathlib import Path

import pytest

from infra.embedded.ports import free_port, is_free

OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_a_port_for_a_server_is_free_and_none_that_an_outgoing_connection_may_take() -> None:
    if not OUTGOING.is_file():
        pytest.skip("only Linux says which ports outgoing connections get")
    lowest, highest = map(int, OUTGOING.read_text().split())
    ports = [free_port() for _ in range(20)]
    assert all(map(is_free, ports))
    assert not [port for port in ports if lowest <= port <= highest]
