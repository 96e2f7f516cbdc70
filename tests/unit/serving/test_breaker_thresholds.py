import asyncio
import contextlib
from collections.abc import Awaitable
from datetime import UTC, datetime

import pytest

from infra.db import connection_pool
from infra.metrics import serving_metrics
from infra.settings import BreakerSettings, ServingSettings
from serving.resilience import health_checker
from serving.resilience.breaker import Breaker, BreakerState
from tests.clocks import FixedClock

LIMITS = BreakerSettings(
    window_s=10, min_calls=4, failure_rate=0.5, slow_rate=0.75, slow_share=0.8, open_s=2, fair_timeout_ms=50
)
PATIENT_S = 30.0


class Watched:
    """A breaker, and the calls that a word stands for: good, fails, slow."""

    def __init__(self) -> None:
        self.clock = FixedClock(datetime(2026, 6, 1, 12, tzinfo=UTC))
        self.metrics = serving_metrics()
        self.breaker = Breaker("redis", LIMITS, self.clock, self.metrics)

    def calls(self, words: str, limit_s: float = PATIENT_S) -> BreakerState:
        async def operation(word: str) -> None:
            if word == "slow":
                self.clock.advance(0.8 * limit_s)
            if word == "fails":
                raise OSError
            if word == "gives_up":
                raise TimeoutError

        async def go(call: Awaitable[None]) -> None:
            with contextlib.suppress(OSError):
                await call

        for word in words.split():
            asyncio.run(go(self.breaker.call(lambda word=word: operation(word), limit_s)))
        return self.breaker.state

    def shown(self) -> float:
        return float(self.metrics.breaker_state.labels("redis")._value.get())


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ("good good good fails", BreakerState.CLOSED),
        ("good good fails fails", BreakerState.OPEN),
        ("fails fails fails", BreakerState.CLOSED),
        ("fails good good good fails fails", BreakerState.OPEN),
        ("fails good good good good fails", BreakerState.CLOSED),
    ],
)
def test_it_opens_at_the_share_of_failures_and_not_below(words: str, state: BreakerState) -> None:
    assert Watched().calls(words) is state


@pytest.mark.parametrize(
    ("words", "state"), [("good slow slow slow", BreakerState.OPEN), ("good good slow slow slow", BreakerState.CLOSED)]
)
def test_it_opens_at_the_share_of_slow_calls_and_not_below(words: str, state: BreakerState) -> None:
    assert Watched().calls(words, limit_s=1.0) is state


def test_a_call_whose_limit_was_too_short_to_be_fair_is_not_slow() -> None:
    assert Watched().calls("slow slow slow slow slow", limit_s=0.04) is BreakerState.CLOSED


def test_a_dependency_that_gives_up_by_itself_failed_however_short_the_limit() -> None:
    assert Watched().calls("gives_up gives_up gives_up gives_up", limit_s=0.04) is BreakerState.OPEN


def test_what_is_older_than_the_window_no_longer_counts() -> None:
    watched = Watched()
    assert watched.calls("fails fails fails") is BreakerState.CLOSED
    watched.clock.advance(LIMITS.window_s + 2)
    assert watched.calls("fails good good") is BreakerState.CLOSED


def test_its_state_is_shown_as_a_number() -> None:
    watched = Watched()
    assert watched.shown() == 0
    watched.calls("fails fails fails fails")
    assert watched.shown() == 2
    watched.clock.advance(LIMITS.open_s)
    seen: list[float] = []

    async def probe() -> None:
        seen.append(watched.shown())

    asyncio.run(watched.breaker.call(probe, PATIENT_S))
    assert seen == [1]
    assert watched.shown() == 0


def test_with_the_settings_as_they_come_calls_pass_within_5_s_after_a_server_that_refused_them_is_back() -> None:
    reconnected_s = connection_pool.LONGEST_PAUSE_S
    tried_again_s = ServingSettings().breaker.open_s  # the call that may try can come just before the connection
    found_up_s = health_checker.EVERY_S + health_checker.WITHIN_S
    assert reconnected_s + tried_again_s + found_up_s < 5.0
