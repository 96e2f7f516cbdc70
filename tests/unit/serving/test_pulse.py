import asyncio
import threading
import time

import psycopg
import pytest

from infra.clock import SystemClock
from serving import pulse
from serving.pulse import OneConnection, OneThread, Pulse
from tests.waiting import slowness


async def fine() -> None:
    pass


async def broken() -> None:
    raise ConnectionError("postgresql://duet:hunter2@db/duet")


async def black_hole() -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(0.3)  # as a database client that asks the server to cancel, in vain
        raise


def test_each_component_is_reported_and_none_waits_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "WITHIN_S", 0.1)

    async def go() -> tuple[Pulse, float]:
        beats: list[None] = []
        checks = {"fine": fine, "broken": broken, "hole": black_hole, "other_hole": black_hole, "none": None}
        watched = Pulse(checks, SystemClock(), after=lambda: beats.append(None))
        assert watched.report("fine").status == "down"  # nobody knows yet
        began = time.monotonic()
        await watched.beat()
        await watched.beat()
        assert len(beats) == 2
        return watched, time.monotonic() - began

    watched, took_s = asyncio.run(go())
    assert took_s < 0.3 * slowness()
    said = {name: watched.report(name) for name in ("fine", "broken", "hole", "none")}
    assert [report.status for report in said.values()] == ["up", "down", "down", "not_configured"]
    assert said["fine"].latency_ms is not None
    assert said["broken"].message == "ConnectionError"
    assert "No answer" in str(said["hole"].message)


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
