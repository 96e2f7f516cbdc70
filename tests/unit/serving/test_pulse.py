import asyncio
import threading

import psycopg
import pytest

from infra.clock import SystemClock
from serving.resilience import health_checker
from serving.resilience.health_checker import HealthChecker, OneConnection, OneThread
from tests.clocks import FixedClock
from tests.waiting import PATIENCE_S


async def fine() -> None:
    pass


async def broken() -> None:
    raise ConnectionError("postgresql://duet:hunter2@db/duet")


def test_each_component_is_reported_and_none_waits_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_checker, "WITHIN_S", 0.1)
    told: list[str] = []

    async def go() -> HealthChecker:
        let_go = asyncio.Event()

        async def black_hole() -> None:
            told.append("asked")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told.append("given up")
                await let_go.wait()  # as a database client that asks the server to cancel, in vain
                raise

        checks = {"fine": fine, "broken": broken, "hole": black_hole, "other_hole": black_hole, "none": None}
        watched = HealthChecker(checks, SystemClock(), after=lambda: told.append("round"))
        assert watched.report("fine").status == "down"  # nobody knows yet
        async with asyncio.timeout(PATIENCE_S):
            await watched.beat()
            await watched.beat()
        let_go.set()
        return watched

    watched = asyncio.run(go())
    assert told[:2] == ["asked", "asked"]
    assert sorted(told) == [*["asked"] * 2, *["given up"] * 2, *["round"] * 2]
    said = {name: watched.report(name) for name in ("fine", "broken", "hole", "none")}
    assert [report.status for report in said.values()] == ["up", "down", "down", "not_configured"]
    assert said["broken"].message == "ConnectionError"
    assert "No answer" in str(said["hole"].message)


def test_the_latency_of_an_answer_is_told_in_milliseconds(clock: FixedClock) -> None:
    async def slow() -> None:
        clock.advance(0.25)

    watched = HealthChecker({"slow": slow}, clock, after=lambda: None)
    asyncio.run(watched.beat())
    assert watched.report("slow").latency_ms == 250.0


def test_a_blocking_check_holds_one_thread_however_long_it_takes() -> None:
    release = threading.Event()
    runs: list[int] = []

    def check() -> None:
        runs.append(1)
        release.wait(10)

    async def go() -> None:
        thread = OneThread(check)
        first = asyncio.create_task(thread())
        await asyncio.sleep(0.05)
        with pytest.raises(TimeoutError):
            await thread()
        release.set()
        await first
        await thread()
        thread.close()

    asyncio.run(go())
    assert len(runs) == 2


def test_the_connection_of_the_pulse_is_made_anew_after_a_failure() -> None:
    made: list[str] = []

    class Connection:
        def __init__(self) -> None:
            made.append("open")

        async def execute(self, _: bytes) -> None:
            if len(made) == 1:
                raise psycopg.OperationalError("gone")

        async def close(self) -> None:
            made.append("close")

    async def connect() -> psycopg.AsyncConnection[object]:
        return Connection()  # type: ignore[return-value]

    async def go() -> None:
        asked = OneConnection(connect)
        with pytest.raises(psycopg.OperationalError):
            await asked()
        await asked()
        await asked()
        await asked.close()

    asyncio.run(go())
    assert made == ["open", "close", "open", "close"]
