"""Chooses the port of an embedded server.

A port asked for by number is used or refused; port 0 means one that is free, remembered for the next start so that
bookmarks and open clients survive, and replaced when somebody else has taken it.
"""

import atexit
import contextlib
import secrets
import socket
from collections import deque
from pathlib import Path
from typing import Final

import psutil

from infra.embedded.files import write_text
from infra.errors import PortTaken

_FOR_SERVERS: Final = range(20_000, 32_000)
"""Below what Linux (from 32,768 on) and others (from 49,152 on) give to outgoing connections."""
_TRIES: Final = 50
_AT_ONCE: Final = 64
"""As many servers of one process may be on their way to their ports at once."""
_reserved: Final[deque[socket.socket]] = deque()


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether this process could listen on the port now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)  # two sockets may bind one port with SO_REUSEADDR; only one may listen
        except OSError:
            return False
        return True


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is free now, and not one of those that outgoing connections are given.

    On Linux no other process is given it by this function before a server listens on it.
    """
    for port in secrets.SystemRandom().sample(_FOR_SERVERS, _TRIES):
        if _reserve(port, host):
            return port
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _reserve(port: int, host: str) -> bool:
    """Bind the port without listening, or tell that somebody has bound it.

    Linux lets a server with SO_REUSEADDR listen beside such a socket. Where a system does not, the port is a guess.
    """
    reservation = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        reservation.bind((host, port))  # without the option: fails beside every other socket
    except OSError:
        reservation.close()
        return False
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if not is_free(port, host):
        reservation.close()
        return is_free(port, host)
    _reserved.append(reservation)
    _keep(_AT_ONCE)
    return True


def _keep(most: int) -> None:
    while len(_reserved) > most:
        _reserved.popleft().close()


atexit.register(_keep, 0)


def choose(asked: int, memory: Path, variable: str, host: str = "127.0.0.1") -> int:
    """Return the port to listen on; raises PortTaken if `asked` is a number and not free.

    `memory` is the file that remembers a chosen port, `variable` the setting to name in the message.
    """
    if asked:
        refuse_taken(asked, variable, host)
        return asked
    with contextlib.suppress(OSError, ValueError):
        remembered = int(memory.read_text(encoding="ascii"))
        if 0 < remembered < 65536 and is_free(remembered, host):
            return remembered
    port = free_port(host)
    write_text(memory, str(port))
    return port


def refuse_taken(port: int, variable: str, host: str = "127.0.0.1") -> None:
    """Raise PortTaken, naming who listens if that can be known, unless the port is free."""
    if not is_free(port, host):
        raise PortTaken(
            f"Port {port} on {host} is taken{_owner(port)}: free it, or set `{variable}` to another port"
            " or to 0 to have a free one chosen."
        )


def _owner(port: int) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.pid and connection.laddr[1:] == (port,):
                return f" by `{psutil.Process(connection.pid).name()}` (pid {connection.pid})"
    return ""
