"""Clients that ask a service without a pause while it is stopped, and what became of each of their requests."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

BODY = b'{"user_id": 1, "limit": 5}'
ENOUGH = 100
REQUEST = (
    b"POST /v1/recommendations HTTP/1.1\r\nHost: duet\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


@dataclass
class Load:
    """Clients that ask as fast as they are answered, and what became of each request."""

    port: int
    outcomes: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)

    def note(self, outcome: str) -> None:
        with self.lock:
            self.outcomes[outcome] += 1

    def connect(self) -> socket.socket | None:
        """Return a connection, or None once nobody takes any: such a request was never accepted."""
        try:
            return socket.create_connection(("127.0.0.1", self.port), timeout=60)
        except OSError:
            self.ended.wait(0.02)
            return None

    def keep_alive(self) -> None:
        """Use a connection until an answer says that it ends."""
        while not self.ended.is_set():
            connection = self.connect()
            if connection is not None:
                with connection:
                    while not self.ended.is_set() and self.ask(connection):
                        pass

    def one_by_one(self) -> None:
        """Use a new connection for each request."""
        while not self.ended.is_set():
            connection = self.connect()
            if connection is not None:
                with connection:
                    self.ask(connection)

    def ask(self, connection: socket.socket) -> bool:
        """Send one request; return whether the connection may be used again."""
        try:
            connection.sendall(REQUEST)
            answer = read_answer(connection)
        except OSError as error:
            self.note(type(error).__name__)
            return False
        if not answer:
            self.note("closed without an answer")
            return False
        self.note(answer[9:12].decode())
        return b"connection: close" not in answer.partition(b"\r\n\r\n")[0].lower()


def read_answer(connection: socket.socket) -> bytes:
    """Return one answer, whole; nothing when the connection ends first."""
    data = b""
    while True:
        head, found, body = data.partition(b"\r\n\r\n")
        if found:
            [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if len(body) >= int(length.partition(b":")[2]):
                return data
        part = connection.recv(65536)
        if not part:
            return b""
        data += part


def stopped_under_load(port: int, stop: Callable[[], object]) -> Counter[str]:
    """Ask from twelve clients, `stop` the service in the middle, and return what became of the requests.

    `stop` returns when the service has ended.
    """
    load = Load(port)
    clients = [threading.Thread(target=load.keep_alive) for _ in range(6)]
    clients += [threading.Thread(target=load.one_by_one) for _ in range(6)]
    for client in clients:
        client.start()
    until = time.monotonic() + 30
    while load.outcomes["200"] < ENOUGH and time.monotonic() < until:
        time.sleep(0.01)
    stop()
    load.ended.set()
    for client in clients:
        client.join(10)
    return load.outcomes
