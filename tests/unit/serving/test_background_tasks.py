import asyncio
from collections.abc import Callable

import pytest

from infra.clock import SystemClock
from infra.metrics import serving_metrics
from serving.resilience import background
from serving.resilience.background import STEADY_S, BackgroundTasks, Closing
from tests.clocks import FixedClock


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(background, "LONGEST_PAUSE_S", 0.002)
    monkeypatch.setattr(background, "LAST_S", 0.2)


def tasks(ended: list[str] | None = None, clock: FixedClock | SystemClock | None = None) -> BackgroundTasks:
    said: list[str] = [] if ended is None else ended
    return BackgroundTasks(clock or SystemClock(), serving_metrics(), lambda: said.append("ended"))


async def until(wanted: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not wanted():  # noqa: ASYNC110 nothing tells when a task is begun again
            await asyncio.sleep(0.001)


def counted(name: str) -> float:
    value: float = serving_metrics().task_ends.labels(name)._value.get()
    return value


async def raises() -> None:
    raise ValueError("broken")


async def returns() -> None:
    return


async def awaits_what_is_cancelled() -> None:
    waits = asyncio.get_running_loop().create_future()
    waits.cancel()
    await waits


@pytest.mark.parametrize("run", [raises, returns, awaits_what_is_cancelled])
def test_a_task_that_ends_in_any_way_is_counted_told_and_begun_again(run: background.Run, clock: FixedClock) -> None:
    begun: list[int] = []
    before = counted("it")

    async def ends_twice() -> None:
        begun.append(1)
        if len(begun) < 3:
            await run()
        else:
            await asyncio.Event().wait()

    async def go() -> None:
        watched = tasks(clock=clock)
        watched.start("it", ends_twice)
        assert watched.report() == {"it": "running"}
        await until(lambda: len(begun) == 3)
        assert watched.report() == {"it": "failing"}
        assert len(watched.problems()) == 1
        clock.advance(STEADY_S)
        assert watched.report() == {"it": "running"}
        assert watched.problems() == []
        await watched.stop()

    asyncio.run(go())
    assert counted("it") == before + 2


def test_a_task_with_an_end_is_done_once() -> None:
    begun: list[int] = []

    async def ends() -> None:
        begun.append(1)

    async def go() -> None:
        watched = tasks()
        watched.start("once", ends, once=True)
        await until(lambda: watched.report() == {"once": "done"})
        await watched.stop()

    asyncio.run(go())
    assert begun == [1]


@pytest.mark.parametrize("vital", [True, False])
def test_the_process_ends_when_only_a_vital_task_cannot_be_kept_alive(vital: bool) -> None:  # noqa: FBT001
    ended: list[str] = []
    before = counted("it")

    async def go() -> None:
        watched = tasks(ended)
        watched.start("it", raises, vital=vital)
        await until(lambda: counted("it") >= before + background.MOST_ENDS + 2)
        await watched.stop()

    asyncio.run(go())
    assert bool(ended) == vital


def test_stopping_waits_for_what_finishes_by_itself_and_for_nothing_that_never_ends() -> None:
    finished: list[str] = []
    told = asyncio.Event()

    async def finishes() -> None:
        await told.wait()
        finished.append("written")

    async def never() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if finished.append("stubborn") or len(finished) > 3:
                    raise

    async def go() -> None:
        watched = tasks()
        watched.start("logs", finishes)
        watched.start("never", never)
        await asyncio.sleep(0)
        told.set()
        await watched.stop(finishing={"logs"})
        assert watched.report()["logs"] == "done"

    asyncio.run(go())
    assert finished[:2] == ["stubborn", "written"] or finished[:2] == ["written", "stubborn"]


def test_everything_is_closed_the_newest_first_whatever_fails_or_hangs() -> None:
    closed: list[str] = []

    def close(name: str) -> Callable[[], None]:
        return lambda: closed.append(name)

    def broken() -> None:
        closed.append("broken")
        raise OSError("gone")

    async def hangs() -> None:
        closed.append("hangs")
        await asyncio.Event().wait()

    async def go() -> None:
        closing = Closing()
        for name, step in [("first", close("first")), ("hangs", hangs), ("broken", broken), ("last", close("last"))]:
            closing.add(name, step)
        await closing.close()
        await closing.close()

    asyncio.run(go())
    assert closed == ["last", "broken", "hangs", "first"]
