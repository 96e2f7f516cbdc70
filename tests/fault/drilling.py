"""How a drill of the runbook goes: its cause is there and its alerts fire; the cause is undone and they are quiet."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import httpx
import psutil
import psycopg

from infra.db.postgres import connect
from tests.prometheus import Prometheus
from tests.waiting import until

WITHIN_S = 90.0
Cause = AbstractContextManager[object]


def drill(prometheus: Prometheus, alerts: set[str], cause: Cause, *, but_of: str = "") -> None:
    """Bring a cause about until every alert has fired; what is said of the dependency `but_of` does not count."""
    until_quiet(prometheus, alerts, but_of=but_of)
    with cause:
        until_fired(prometheus, alerts, but_of=but_of)
    until_quiet(prometheus, alerts, but_of=but_of)


def until_fired(prometheus: Prometheus, alerts: set[str], *, but_of: str = "") -> None:
    """Wait until each of the alerts has fired, at the same time or not."""
    seen: set[str] = set()

    def all_fired() -> bool:
        seen.update(prometheus.firing(but_of=but_of))
        return alerts <= seen

    until(all_fired, WITHIN_S, lambda: f"fired: {seen}")


def until_quiet(prometheus: Prometheus, alerts: set[str], *, but_of: str = "") -> None:
    """Wait until none of the alerts fires."""
    until(
        lambda: not alerts & prometheus.firing(but_of=but_of),
        WITHIN_S,
        lambda: f"still: {prometheus.firing(but_of=but_of)}",
    )


@contextmanager
def locked(database_url: str, table: str) -> Iterator[None]:
    """Lock a table of the schema `duet`, so that every statement on it waits."""
    with connect(database_url) as connection:
        connection.execute(psycopg.sql.SQL("lock table {} in access exclusive mode").format(
            psycopg.sql.Identifier("duet", table)
        ))  # fmt: skip
        yield
        connection.rollback()


@contextmanager
def held(workers: Sequence[psutil.Process]) -> Iterator[None]:
    """Hold processes, so that none answers and none ends."""
    for worker in workers:
        worker.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGCONT)


@contextmanager
def calling(url: str, body: dict[str, Any], *, callers: int = 8, key: str | None = None) -> Iterator[None]:
    """Have callers post the same body again and again, whatever is answered."""
    headers = {} if key is None else {"x-api-key": key}

    def call(ended: threading.Event) -> None:
        with httpx.Client(headers=headers, timeout=20, trust_env=False) as client:
            while not ended.is_set():
                client.post(url, json=body)

    with ExitStack() as stack:
        for _ in range(callers):
            stack.enter_context(beside(call))
        yield


@contextmanager
def beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Let a thread work until the event that it is given is set, which the end of the block does."""
    ended = threading.Event()
    thread = threading.Thread(target=work, args=[ended], daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(30)
