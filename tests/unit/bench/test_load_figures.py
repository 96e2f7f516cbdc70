import numpy as np
import pytest

from pipelines.bench.errors import NothingMeasured
from pipelines.bench.figures import exponent, goodput, log_linear, rate, recovery_s, spread


def test_a_percentile_is_a_value_that_was_seen() -> None:
    found = spread([float(value) for value in range(1, 101)])
    assert (found.n, found.p50, found.p95, found.p99, found.longest) == (100, 51.0, 96.0, 100.0, 100.0)


def test_one_slow_answer_in_a_hundred_is_the_ninety_ninth_percentile() -> None:
    assert spread([1.0] * 99 + [500.0]).p99 == 500.0


def test_a_load_without_answers_is_refused() -> None:
    with pytest.raises(NothingMeasured, match="without a single answer"):
        spread([])


def test_goodput_counts_only_good_answers_in_time() -> None:
    assert goodput([10.0, 10.0, 300.0, 10.0], [True, False, True, True], seconds=2.0, within_ms=250.0) == 1.0


def test_nothing_in_no_time_is_no_rate() -> None:
    assert rate(5, 0.0) == 0.0


def test_recovery_ends_with_the_last_window_that_was_not_calm() -> None:
    due = np.arange(0.0, 3.0, 0.05)
    slow = np.where(due < 0.6, 400.0, 5.0)
    assert recovery_s(due, slow, [True] * len(due), since_s=0.0, calm_ms=100.0) == 0.75


def test_a_refused_request_after_the_overload_is_not_calm_either() -> None:
    due = np.arange(0.0, 2.0, 0.1)
    good = [bool(at > 0.4) for at in due]
    assert recovery_s(due, np.full(len(due), 5.0), good, since_s=0.0, calm_ms=100.0) == 0.5


def test_a_service_that_stays_slow_never_recovers() -> None:
    due = np.arange(0.0, 1.0, 0.1)
    assert recovery_s(due, np.full(len(due), 900.0), [True] * len(due), 0.0, 100.0) == float("inf")


def test_what_came_before_the_overload_ended_is_no_part_of_the_recovery() -> None:
    due = np.array([0.0, 0.1, 1.0, 1.1])
    assert recovery_s(due, [900.0, 900.0, 5.0, 5.0], [True] * 4, since_s=1.0, calm_ms=100.0) == 0.0


def test_growth_is_the_power_of_the_size() -> None:
    assert exponent((100, 2.0), (10_000, 200.0)) == 1.0
    assert exponent((100, 2.0), (10_000, 2.0)) == 0.0
    assert exponent((100, 2.0), (100, 3.0)) == 0.0


def test_log_linear_growth_is_more_than_linear() -> None:
    assert log_linear(10_000, 1.0, 1_000_000) == pytest.approx(150.0)
