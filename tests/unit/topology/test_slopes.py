"""The arithmetic of `make soak`: what grows, what is too much, and how it reads."""

import pytest

from tests.topology.slopes import BOUNDS, Trend, failed, slope, tables, trends


def test_a_slope_is_the_rise_of_an_hour() -> None:
    assert slope([(0, 5), (1800, 6), (3600, 7)]) == pytest.approx(2)


def test_a_saw_that_comes_back_has_hardly_a_slope() -> None:
    saw = [(30.0 * number, 100.0 + 10 * (number % 2)) for number in range(61)]
    assert abs(slope(saw)) < 1


@pytest.mark.parametrize("points", [[], [(30.0, 5.0)], [(30.0, 5.0), (30.0, 9.0)]])
def test_a_single_moment_has_no_slope(points: list[tuple[float, float]]) -> None:
    assert slope(points) == 0


def test_only_the_second_half_counts_because_caches_fill_first() -> None:
    samples = [(60.0 * minute, {"serving-1, worker": {"memory, MB": min(minute, 30) * 10.0}}) for minute in range(61)]
    assert trends(samples) == [Trend("serving-1, worker", "memory, MB", 0, 300, pytest.approx(0, abs=1e-9))]


def test_what_grows_faster_than_it_may_is_told_with_its_bound() -> None:
    samples = [(60.0 * minute, {"daemon": {"descriptors": 50.0 + minute / 5}}) for minute in range(61)]
    (trend,) = trends(samples)
    assert trend.is_beyond
    assert trend.sentence() == "daemon: descriptors grows by 12.0 an hour; 5 are allowed"


def test_what_shrinks_or_grows_slowly_is_no_fault() -> None:
    assert not Trend("daemon", "threads", 20, 2, -18).is_beyond
    assert not Trend("daemon", "memory, MB", 300, 319, BOUNDS["memory, MB"]).is_beyond


def test_what_came_late_counts_from_then_and_what_ended_no_more() -> None:
    early, late = {"a run": {"threads": 9.0}}, {"a child": {"threads": 1.0}}
    assert trends([(0.0, early), (60.0, late), (120.0, late)]) == [Trend("a child", "threads", 1, 1, 0)]


def test_the_tables_show_each_process_each_volume_and_each_call_once() -> None:
    found = [
        Trend("daemon", "memory, MB", 300.4, 340.2, 42.25),
        Trend("daemon", "threads", 20, 20, 0),
        Trend("volume redis", "disk, MB", 3, 4, 0.96),
    ]
    answers = {("recommend", "200 level 1"): 9000, ("recommend", "503 overloaded"): 2, ("matches", "200"): 7}
    assert tables(found, answers).splitlines() == [
        "| process | processes | memory, MB | descriptors | threads |",
        "|---|---|---|---|---|",
        "| daemon |  | 300, 340, +42.2 **too much** |  | 20, 20, +0.0 |",
        "",
        "| what | first, last, slope an hour |",
        "|---|---|",
        "| volume redis: disk, MB | 3, 4, +1.0 |",
        "",
        "| call | answers by status |",
        "|---|---|",
        "| matches | 200: 7 |",
        "| recommend | 200 level 1: 9,000, 503 overloaded: 2 |",
    ]


def test_an_error_of_the_platform_or_no_answer_is_a_failure_and_a_refusal_is_none() -> None:
    answers = {("x", "200"): 5, ("x", "404 unknown_user"): 1, ("x", "503 overloaded"): 2, ("y", "0 ReadTimeout"): 3}
    assert failed(answers) == ["x: 2 times 503 overloaded", "y: 3 times 0 ReadTimeout"]


def test_without_a_look_there_is_no_trend() -> None:
    assert trends([]) == []


def test_what_was_nothing_at_every_moment_is_not_told() -> None:
    nothing: dict[str, dict[str, float]] = {"proxy, younger than 10 minutes": {"processes": 0.0}}
    assert trends([(0.0, nothing), (60.0, nothing)]) == []
