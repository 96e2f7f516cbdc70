import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from infra.clock import Clock, SystemClock
from infra.metrics import serving_metrics
from serving.errors import Overloaded
from serving.resilience.limiter import Limiter
from tests.clocks import FixedClock, LeapingLoop


def limiter(places: int = 2, queued: int = 2, wait_s: float = 0.2, clock: FixedClock | None = None) -> Limiter:
    return Limiter(
        max_concurrency=places,
        max_queued=queued,
        queue_timeout_s=wait_s,
        clock=clock or SystemClock(),
        metrics=serving_metrics(),
    )


async def hold(limit: Limiter, until: asyncio.Event) -> str:
    try:
        async with limit.place():
            await until.wait()
    except Overloaded as refusal:
        return "refused" if refusal.retry_after_s else "refused without a hint"
    return "done"


def test_no_more_than_the_places_are_worked_on_the_next_wait_and_the_rest_are_refused_at_once() -> None:
    async def go() -> list[str]:
        limit, end = limiter(wait_s=5), asyncio.Event()
        calls = [asyncio.create_task(hold(limit, end)) for _ in range(7)]
        await asyncio.sleep(0.01)
        assert (limit.in_flight, limit.queued) == (2, 2)
        assert [call.done() for call in calls] == [False] * 4 + [True] * 3
        end.set()
        outcome = await asyncio.gather(*calls)
        assert (limit.in_flight, limit.queued) == (0, 0)
        return outcome

    assert asyncio.run(go()) == ["done"] * 4 + ["refused"] * 3


def test_a_call_does_not_wait_longer_than_it_may() -> None:
    async def go() -> None:
        limit, end = limiter(places=1, wait_s=0.02), asyncio.Event()
        first = asyncio.create_task(hold(limit, end))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            async with limit.place():
                pass
        assert (limit.in_flight, limit.queued) == (1, 0)
        end.set()
        assert await first == "done"
        assert (limit.in_flight, limit.queued) == (0, 0)

    asyncio.run(go())


def test_a_call_that_would_wait_in_vain_is_refused_without_waiting(clock: FixedClock) -> None:
    async def go() -> None:
        limit = limiter(places=1, queued=10, wait_s=0.05, clock=clock)
        for _ in range(100):  # calls lately held their place for a second
            async with limit.place():
                clock.advance(1.0)
        async with limit.place():
            with pytest.raises(Overloaded) as refused:
                limit.refuse_in_vain()
        assert refused.value.retry_after_s == 1
        limit.refuse_in_vain()  # a place is free: whatever the past was

    asyncio.run(go())


@pytest.mark.parametrize(("held_s", "refused"), [(0.035, False), (0.04, True)])
def test_a_call_is_refused_that_expects_to_wait_for_most_of_what_it_may(
    clock: FixedClock, *, held_s: float, refused: bool
) -> None:
    async def go() -> bool:
        limit = limiter(places=1, queued=10, wait_s=0.05, clock=clock)
        for _ in range(200):
            async with limit.place():
                clock.advance(held_s)
        async with limit.place():
            return limit.in_vain() is not None

    assert asyncio.run(go()) is refused


def test_a_cancelled_call_gives_its_place_on() -> None:
    async def go() -> None:
        limit, end = limiter(places=1, wait_s=5), asyncio.Event()
        first, second, third = (asyncio.create_task(hold(limit, end)) for _ in range(3))
        await asyncio.sleep(0.01)
        second.cancel()
        first.cancel()
        await asyncio.sleep(0.01)
        assert (limit.in_flight, limit.queued) == (1, 0)
        end.set()
        assert await third == "done"
        assert limit.in_flight == 0

    asyncio.run(go())


def test_a_place_handed_over_to_a_call_that_gives_up_in_the_same_moment_is_not_lost() -> None:
    async def go() -> None:
        limit = limiter(places=1, wait_s=5)
        async with AsyncExitStack() as held:
            await held.enter_async_context(limit.place())
            waiting = asyncio.create_task(hold(limit, asyncio.Event()))
            await asyncio.sleep(0.01)
        waiting.cancel()  # after the place went over, before the call ran on
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (limit.in_flight, limit.queued) == (0, 0)

    asyncio.run(go())


def adaptive(clock: Clock, longest_s: float) -> Limiter:
    return Limiter(
        max_concurrency=8,
        max_queued=2,
        queue_timeout_s=5,
        clock=clock,
        metrics=serving_metrics(),
        longest_s=longest_s,
    )


def quick_limiter(clock: Clock | None = None) -> Limiter:
    return adaptive(clock or SystemClock(), longest_s=0.01)


def test_while_calls_take_too_long_because_of_each_others_computing_there_is_room_for_fewer_and_later_for_all() -> None:
    async def go() -> None:
        limit = quick_limiter()

        async def compute() -> None:
            time.sleep(0.02)  # noqa: ASYNC251 it holds the loop, as computing does

        while limit.places > 2:
            neighbour = asyncio.create_task(compute())
            async with limit.place():
                await neighbour
        while limit.places < 8:
            async with limit.place():
                await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(go(), 10))


async def computed(limit: Limiter, clock: FixedClock, held_s: float) -> None:
    """Hold a place for so long, half of it for a neighbour's computing."""

    async def compute() -> None:
        clock.advance(held_s / 2)

    neighbour = asyncio.create_task(compute())
    async with limit.place():
        clock.advance(held_s / 2)
    await neighbour


@pytest.mark.parametrize(
    ("held_s", "places"),
    [
        (0.125, [8, 8]),  # as long as it may
        (0.1265625, [7, 6]),  # a little longer takes a tenth of the room
        (0.1875, [5, 3]),  # so many of them would be in time
        (1.0, [4, 2]),  # much longer takes half of it
    ],
)
def test_there_is_room_for_as_many_as_would_be_in_time_and_it_shrinks_neither_by_little_nor_by_much(
    clock: FixedClock, held_s: float, places: list[int]
) -> None:
    async def go() -> list[int]:
        limit, seen = adaptive(clock, longest_s=0.125), list[int]()
        for _ in places:
            await computed(limit, clock, held_s)
            seen.append(limit.places)
        return seen

    assert asyncio.run(go()) == places


def test_how_long_all_calls_of_a_period_took_says_how_many_would_be_in_time(clock: FixedClock) -> None:
    async def go() -> int:
        limit = adaptive(clock, longest_s=0.04)
        for held_s in (0.05, 0.0625):
            await computed(limit, clock, held_s)
        return limit.places

    assert asyncio.run(go()) == 5


@pytest.mark.parametrize(("late", "places"), [(1, 8), (2, 4)])
def test_one_late_call_of_ten_takes_no_room_and_two_do(clock: FixedClock, late: int, places: int) -> None:
    async def go() -> int:
        limit = adaptive(clock, longest_s=0.001)
        for number in range(10):  # all end within the period but the last, which is long over it
            await computed(limit, clock, 0.01 if number < late - 1 else 1.0 if number == 9 else 0.0005)
        return limit.places

    assert asyncio.run(go()) == places


def test_calls_that_take_long_because_of_something_slow_elsewhere_leave_the_room_as_it_is(clock: FixedClock) -> None:
    async def go() -> None:
        limit = quick_limiter(clock)

        async def wait() -> None:
            async with limit.place():
                await asyncio.sleep(0.03)

        for _ in range(10):
            await asyncio.gather(*(wait() for _ in range(8)))
            assert limit.places == 8

    with asyncio.Runner(loop_factory=lambda: LeapingLoop(clock)) as runner:
        runner.run(go())


def test_calls_wait_while_more_are_worked_on_than_there_is_room_for_now() -> None:
    async def go() -> None:
        limit, end = limiter(places=3, wait_s=5), asyncio.Event()
        calls = [asyncio.create_task(hold(limit, end)) for _ in range(5)]
        await asyncio.sleep(0.01)
        limit._room = 2.0
        calls[0].cancel()
        await asyncio.sleep(0.01)
        assert (limit.in_flight, limit.queued) == (2, 2)
        limit._room = 3.0
        end.set()
        assert await asyncio.gather(*calls[1:]) == ["done"] * 4
        assert (limit.in_flight, limit.queued) == (0, 0)

    asyncio.run(go())


def test_room_that_is_made_goes_to_the_calls_that_wait_before_any_that_come_later() -> None:
    async def go() -> None:
        limit, end = limiter(places=4, queued=10, wait_s=5), asyncio.Event()
        limit._room = 1.0
        calls = [asyncio.create_task(hold(limit, end)) for _ in range(5)]
        await asyncio.sleep(0.01)
        assert (limit.in_flight, limit.queued) == (1, 4)
        limit._room = 4.0
        late = asyncio.create_task(hold(limit, end))
        await asyncio.sleep(0.01)
        assert (limit.in_flight, limit.queued) == (1, 5)
        calls[0].cancel()
        await asyncio.sleep(0.01)
        assert (limit.in_flight, limit.queued) == (4, 1)
        assert not late.done()
        end.set()
        assert await asyncio.gather(*calls[1:], late) == ["done"] * 5

    asyncio.run(go())


def test_the_order_of_calls_is_that_in_which_they_came() -> None:
    async def go() -> list[int]:
        limit, order = limiter(places=1, queued=20, wait_s=5), list[int]()

        async def call(number: int) -> None:
            async with limit.place():
                order.append(number)

        first = [asyncio.create_task(call(number)) for number in range(8)]
        await asyncio.sleep(0)
        await first[3]
        await asyncio.gather(*first, *(call(number) for number in range(8, 12)))
        return order

    assert asyncio.run(go()) == list(range(12))
