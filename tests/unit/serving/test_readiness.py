"""`/health/ready` sends no traffic to a worker that could show nobody safely, whatever its health check found last."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import httpx
import psycopg.errors
import pytest

from infra.settings import Settings
from serving.access.keys import Key
from serving.access.table import KeyTable
from serving.api.health import LiveReport
from serving.api.pages import pages
from serving.resilience.breaker import BreakerState, Dependency
from serving.resilience.health_checker import HealthChecker
from serving.runtime import Runtime
from tests.clocks import FixedClock

SAFE = "Reads of Postgres failed a moment ago and are cut off, so nobody can be shown safely."


async def up() -> None:
    pass


@pytest.fixture
def runtime(tmp_path: Path, clock: FixedClock) -> Runtime:
    """A worker that is warm, whose health check has just found Postgres up."""
    found = Runtime(Settings(data_dir=tmp_path), clock)
    found.health_checker = HealthChecker({"postgres": up}, clock, after=lambda: None)
    asyncio.run(found.health_checker.beat())
    found.releases = SimpleNamespace(current=None, challenger=None, absence=lambda: "none", pin_problem=None)  # type: ignore[assignment]
    found.snapshot = SimpleNamespace(current=None, problem=None)  # type: ignore[assignment]
    found.warm = True
    return found


class Keys:
    """The table of keys in Postgres, which may be closed to the service."""

    def __init__(self, *, readable: bool) -> None:
        self.readable = readable

    async def read(self) -> Sequence[Key]:
        if not self.readable:
            raise psycopg.errors.InsufficientPrivilege("permission denied for table api_keys")
        return []


def cut_off(runtime: Runtime, dependency: Dependency) -> None:
    """Let calls fail until the breaker opens."""
    breaker = runtime.breakers[dependency]

    async def fail() -> None:
        while breaker.state is not BreakerState.OPEN:
            with pytest.raises(OSError, match="refused"):
                await breaker.call(refused, 30.0)

    async def refused() -> None:
        raise OSError("refused")

    asyncio.run(fail())


def get(runtime: Runtime, path: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=pages(runtime))
        async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
            return await client.get(path)

    return asyncio.run(ask())


def test_a_worker_whose_reads_of_postgres_are_cut_off_is_not_ready_until_they_may_be_tried_again(
    runtime: Runtime, clock: FixedClock
) -> None:
    assert runtime.outage() is None
    cut_off(runtime, Dependency.POSTGRES)
    answer = get(runtime, "/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "not_ready", "reasons": [SAFE]})
    assert get(runtime, "/health/live").json() == LiveReport().model_dump()
    clock.advance(runtime.settings.serving.breaker.open_s)
    assert runtime.outage() is None


def test_a_worker_that_cannot_write_or_has_no_redis_still_gets_traffic(runtime: Runtime) -> None:
    for dependency in set(Dependency) - {Dependency.POSTGRES}:
        cut_off(runtime, dependency)
    assert runtime.outage() is None


def test_a_worker_whose_health_check_hangs_is_not_ready(runtime: Runtime, clock: FixedClock) -> None:
    clock.advance(15.0)
    assert runtime.outage() is None
    clock.advance(0.5)
    answer = get(runtime, "/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "not_ready")
    assert "the health checker of this worker hangs" in answer.json()["reasons"][0]


def test_a_worker_that_needs_keys_and_never_read_them_is_not_ready(runtime: Runtime) -> None:
    keys = Keys(readable=False)
    runtime.authenticator.closed = True
    assert runtime.outage() == "Every call is refused: The API keys were not read yet."
    runtime.authenticator.table = table = KeyTable(keys.read, 5.0)
    asyncio.run(table.refresh())
    reason = "The API keys could not be read: InsufficientPrivilege."
    answer = get(runtime, "/health/ready")
    assert (answer.status_code, answer.json()["reasons"]) == (503, [f"Every call is refused: {reason}"])
    keys.readable = True
    asyncio.run(table.refresh())
    assert get(runtime, "/health/ready").status_code == 200
    assert reason not in runtime.problems()


def test_a_worker_that_cannot_read_its_keys_again_stays_ready_and_says_so(runtime: Runtime) -> None:
    keys = Keys(readable=True)
    runtime.authenticator.closed = True
    runtime.authenticator.table = table = KeyTable(keys.read, 5.0)
    asyncio.run(table.refresh())
    keys.readable = False
    asyncio.run(table.refresh())
    assert runtime.outage() is None
    assert "The API keys could not be read: InsufficientPrivilege." in runtime.problems()


def test_a_worker_that_needs_no_keys_is_ready_without_them(runtime: Runtime) -> None:
    assert not runtime.authenticator.closed
    assert runtime.outage() is None
