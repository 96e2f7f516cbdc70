"""Asks every dependency once a second whether it answers, so that probes need not.

A probe that asks itself is slow when it matters, and in an overload it waits for a connection behind the calls that it
should tell about. Here each dependency is asked on its own, at the same time as the others, within a bound.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import psycopg
from redis.asyncio import Redis

from infra.clock import Clock
from infra.db import postgres
from infra.db.connection_pool import ConnectionPool
from registry.mlflow.rest import MlflowRest
from serving.api.health import ComponentReport
from serving.resilience.background import Closing

EVERY_S = 1.0
WITHIN_S = 0.5
Check = Callable[[], Coroutine[Any, Any, object]]


class HealthChecker:
    """The last report of each component; `checks` raise when theirs is down, None is one that is not configured."""

    def __init__(self, checks: Mapping[str, Check | None], clock: Clock, after: Callable[[], None]) -> None:
        self._checks = checks
        self._clock = clock
        self._after = after
        self._reports: dict[str, ComponentReport] = {}
        self._asking: dict[str, asyncio.Task[object]] = {}
        self._asked_s = clock.monotonic()

    @property
    def silent_s(self) -> float:
        """Return how long ago the last round ended, s."""
        return self._clock.monotonic() - self._asked_s

    def report(self, name: str) -> ComponentReport:
        """Return what is known of a component."""
        return self._reports.get(name) or ComponentReport(status="down", message="It was not asked yet.")

    async def beat(self) -> None:
        """Ask all of them once."""
        await asyncio.gather(*(self._ask(name, check) for name, check in self._checks.items()))
        self._asked_s = self._clock.monotonic()
        self._after()

    async def run(self) -> None:
        """Ask for ever; `after` is called after each round."""
        try:
            while True:
                await self.beat()
                await asyncio.sleep(EVERY_S)
        finally:
            for question in self._asking.values():
                question.cancel()

    async def _ask(self, name: str, check: Check | None) -> None:
        if check is None:
            self._reports[name] = ComponentReport(status="not_configured")
            return
        if name in self._asking and not self._asking[name].done():
            return  # still held by the last question: down it is
        began = self._clock.monotonic()
        question = self._asking[name] = asyncio.create_task(check())
        # Not asyncio.timeout: clients of databases take seconds to give up a statement that was cancelled.
        await asyncio.wait({question}, timeout=WITHIN_S)
        if not question.done():
            question.cancel()
            question.add_done_callback(_forget)
            report = ComponentReport(status="down", message=f"No answer within {WITHIN_S} s.")
        elif (error := question.exception()) is not None:
            report = ComponentReport(status="down", message=type(error).__name__)
        else:
            report = ComponentReport(status="up", latency_ms=round((self._clock.monotonic() - began) * 1000, 3))
        self._reports[name] = report


def _forget(question: "asyncio.Future[object]") -> None:
    """Look at what a late answer was, so that asyncio does not complain that nobody did."""
    if not question.cancelled():
        question.exception()


class OneConnection:
    """Asks Postgres on a connection of its own: those of the pool belong to the calls."""

    def __init__(self, connect: Callable[[], Coroutine[Any, Any, psycopg.AsyncConnection[Any]]]) -> None:
        self._connect = connect
        self._connection: psycopg.AsyncConnection[Any] | None = None

    @classmethod
    def to(cls, database_url: str, *, within_s: float, application_name: str) -> Self:
        """Return one whose statements the server ends after `within_s`."""
        return cls(
            lambda: postgres.connect_async(
                database_url,
                connect_timeout_s=within_s,
                statement_timeout_s=within_s,
                application_name=application_name,
            )
        )

    async def __call__(self) -> None:
        """Run one statement; raises what psycopg raises, and connects anew the next time."""
        await self._execute(b"select 1")

    async def row(self, statement: bytes) -> tuple[Any, ...]:
        """Return the only row of a statement; raises as a call does."""
        cursor = await self._execute(statement)
        row: tuple[Any, ...] | None = await cursor.fetchone()
        return row or ()

    async def _execute(self, statement: bytes) -> psycopg.AsyncCursor[Any]:
        try:
            if self._connection is None:
                self._connection = await self._connect()
            return await self._connection.execute(statement)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


class OneThread:
    """Runs a blocking check on a thread of its own, never twice at once: a black hole holds one thread, not all."""

    def __init__(self, check: Callable[[], object]) -> None:
        self._check = check
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="health")
        self._running: Future[object] | None = None

    async def __call__(self) -> None:
        """Run the check; raises TimeoutError while the last one still runs."""
        if self._running is not None and not self._running.done():
            raise TimeoutError
        self._running = self._executor.submit(self._check)
        await asyncio.wrap_future(self._running)

    def close(self) -> None:
        """Let go of the thread."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def health_checker_of(
    *,
    pool: ConnectionPool,
    redis: Redis,
    registry: MlflowRest | None,
    clock: Clock,
    after: Callable[[], None],
    closing: Closing,
) -> HealthChecker:
    """Watch the servers of a serving process; what this opens is closed by `closing`.

    Postgres is asked through the pool, as requests ask it: a server that is up helps nobody who gets no connection.
    """

    async def ask() -> None:
        async with pool.connection() as connection:
            await connection.execute(b"select 1")

    async def ping() -> None:
        await redis.execute_command("PING")  # type: ignore[no-untyped-call]

    checks: dict[str, Check | None] = {"postgres": ask, "redis": ping, "mlflow": None}
    if registry is not None:
        checks["mlflow"] = thread = OneThread(registry.check)
        closing.add("health of mlflow", thread.close)
    return HealthChecker(checks, clock, after)
