import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from infra.clock import SystemClock
from tests.clocks import FixedClock


def test_the_system_clock_tells_aware_utc_time() -> None:
    assert SystemClock().now().utcoffset() == timedelta(0)
    before = time.monotonic()
    assert before <= SystemClock().monotonic() <= time.monotonic()


def test_a_fixed_clock_moves_only_when_told() -> None:
    clock = FixedClock(datetime(2026, 6, 1, 12, tzinfo=timezone(timedelta(hours=2))))
    assert clock.now() == clock.now() == datetime(2026, 6, 1, 10, tzinfo=UTC)
    clock.advance(1.5)
    assert clock.now() == datetime(2026, 6, 1, 10, 0, 1, 500000, tzinfo=UTC)
    assert clock.monotonic() == 1.5


def test_a_fixed_clock_refuses_a_naive_time_and_going_back() -> None:
    with pytest.raises(ValueError, match="time zone"):
        FixedClock(datetime(2026, 6, 1))  # noqa: DTZ001 - the point of the test
    with pytest.raises(ValueError, match="back"):
        FixedClock(datetime(2026, 6, 1, tzinfo=UTC)).advance(-1)
