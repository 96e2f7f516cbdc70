"""The breaker as a state machine: calls begin, end, hang and are cancelled in any order while time moves."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from infra.metrics import serving_metrics
from infra.settings import BreakerSettings
from serving.errors import BreakerOpen
from serving.resilience.breaker import Breaker, BreakerState, Dependency
from tests.clocks import FixedClock

LIMITS = BreakerSettings(window_s=10, min_calls=4, failure_rate=0.5, slow_rate=0.9, slow_share=0.8, open_s=2)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
PATIENT_S = 30.0


class JumpingClock(FixedClock):
    """A clock whose wall time jumps, while the monotonic one only moves when told to."""

    jump = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.jump


class Call:
    """One call under way that ends when told to."""

    def __init__(self, breaker: Breaker, timeout_s: float = PATIENT_S) -> None:
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.task = asyncio.ensure_future(breaker.call(self._operation, timeout_s))

    async def _operation(self) -> str:
        return await self.end


class BreakerMachine(RuleBasedStateMachine):
    """What must hold whatever happens: one probe at most, no stampede, and no call that changes an old verdict."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = JumpingClock(NOON)
        self.breaker = Breaker(Dependency.REDIS, LIMITS, self.clock, serving_metrics())
        self.calls: list[Call] = []
        self.probes: list[Call] = []

    def teardown(self) -> None:
        for call in self.calls:
            call.task.cancel()
        self.run(asyncio.sleep(0))
        self.run(asyncio.sleep(0))
        self.loop.close()

    def run(self, step: Awaitable[object]) -> object:
        async def go() -> object:
            return await step

        return self.loop.run_until_complete(go())

    def settle(self) -> None:
        for _ in range(4):
            self.run(asyncio.sleep(0))
        for call in [call for call in self.calls if call.task.done()]:
            self.calls.remove(call)
            if call in self.probes:
                self.probes.remove(call)
            if not call.task.cancelled():
                call.task.exception()

    @rule(n=st.integers(1, 5))
    def calls_begin_at_once(self, n: int) -> None:
        before, probing = self.breaker.state, len(self.probes)

        async def begin() -> list[Call]:
            return [Call(self.breaker) for _ in range(n)]

        begun: list[Call] = self.run(begin())  # type: ignore[assignment]
        self.run(asyncio.sleep(0))
        refused = [call for call in begun if call.task.done() and isinstance(call.task.exception(), BreakerOpen)]
        passed = [call for call in begun if call not in refused]
        if before is BreakerState.OPEN:
            assert not passed
        elif before is BreakerState.HALF_OPEN:
            assert len(passed) == (0 if probing else 1)
            self.probes += passed
        else:
            assert not refused
        self.calls += passed

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), how=st.sampled_from(["answer", "fail", "cancel"]))
    def a_call_ends(self, data: st.DataObject, how: str) -> None:
        call = data.draw(st.sampled_from(self.calls))
        before, probe = self.breaker.state, call in self.probes
        if how == "cancel":
            call.task.cancel()
        elif how == "fail":
            call.end.set_exception(OSError("down"))
        else:
            call.end.set_result("here")
        self.settle()
        after = self.breaker.state
        if how == "cancel":
            assert after is before
        elif probe:
            assert after in ((BreakerState.OPEN,) if how == "fail" else (BreakerState.CLOSED, BreakerState.OPEN))
        elif before is not BreakerState.CLOSED:
            assert after is before, "a call from before the breaker opened changed its state"

    @rule(seconds=st.floats(0.01, 6.0))
    def time_passes(self, seconds: float) -> None:
        before = self.breaker.state
        self.clock.advance(seconds)
        if before is not BreakerState.OPEN:
            assert self.breaker.state is before
        elif seconds >= LIMITS.open_s:
            assert self.breaker.state is BreakerState.HALF_OPEN

    @rule(days=st.integers(-400, 400))
    def the_wall_clock_jumps(self, days: int) -> None:
        before = self.breaker.state
        self.clock.jump = timedelta(days=days)
        assert self.breaker.state is before

    @invariant()
    def at_most_one_call_probes(self) -> None:
        assert len(self.probes) <= 1


BreakerMachine.TestCase.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBreakerMachine = BreakerMachine.TestCase


async def fails() -> None:
    raise OSError("down")


async def hangs() -> None:
    await asyncio.sleep(60)


async def answers() -> int:
    return 7


def breaker(clock: FixedClock, blames: Callable[[Exception], bool] = lambda _: True) -> Breaker:
    return Breaker(Dependency.REDIS, LIMITS, clock, serving_metrics(), blames)


def state_of(guard: Breaker) -> BreakerState:
    return guard.state


async def tried(guard: Breaker, operation: Callable[[], Awaitable[object]], n: int, timeout_s: float = 1.0) -> None:
    for _ in range(n):
        with pytest.raises((OSError, TimeoutError, BreakerOpen)):
            await guard.call(operation, timeout_s)


def test_timeouts_open_it_and_one_good_probe_closes_it(clock: FixedClock) -> None:
    async def go() -> None:
        guard = breaker(clock)
        await tried(guard, hangs, 4, timeout_s=0.011)
        assert state_of(guard) is BreakerState.OPEN
        with pytest.raises(BreakerOpen) as refused:
            await guard.call(answers, 1.0)
        assert refused.value.retry_after_s == LIMITS.open_s
        clock.advance(LIMITS.open_s)
        assert state_of(guard) is BreakerState.HALF_OPEN
        assert await guard.call(answers, 1.0) == 7
        assert state_of(guard) is BreakerState.CLOSED

    asyncio.run(go())


def test_limits_too_short_to_be_fair_never_open_it(clock: FixedClock) -> None:
    async def go() -> None:
        guard = breaker(clock)
        await tried(guard, hangs, 30, timeout_s=0.001)
        assert state_of(guard) is BreakerState.CLOSED

    asyncio.run(go())


def test_cancelled_calls_never_open_it_and_a_cancelled_probe_frees_its_place(clock: FixedClock) -> None:
    async def cancelled(guard: Breaker) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await guard.call(hangs, 60)

    async def go() -> None:
        guard = breaker(clock)
        for _ in range(30):
            await cancelled(guard)
        assert state_of(guard) is BreakerState.CLOSED
        await tried(guard, fails, 4)
        clock.advance(LIMITS.open_s)
        await cancelled(guard)
        assert state_of(guard) is BreakerState.HALF_OPEN
        assert await guard.call(answers, 1.0) == 7

    asyncio.run(go())


def test_calls_that_are_slow_open_it_although_they_succeed(clock: FixedClock) -> None:
    async def slow() -> None:
        clock.advance(0.9)

    async def go() -> None:
        guard = breaker(clock)
        for _ in range(4):
            await guard.call(slow, 1.0)
        assert state_of(guard) is BreakerState.OPEN

    asyncio.run(go())


def test_failures_outside_the_window_are_forgotten(clock: FixedClock) -> None:
    async def go() -> None:
        guard = breaker(clock)
        await tried(guard, fails, 3)
        clock.advance(LIMITS.window_s * 1.1)
        await tried(guard, fails, 3)
        assert state_of(guard) is BreakerState.CLOSED

    asyncio.run(go())


def test_an_error_that_is_not_the_dependency_s_fault_never_opens_it(clock: FixedClock) -> None:
    async def go() -> None:
        guard = breaker(clock, blames=lambda error: not isinstance(error, OSError))
        await tried(guard, fails, 30)
        assert state_of(guard) is BreakerState.CLOSED

    asyncio.run(go())
