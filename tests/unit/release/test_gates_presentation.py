import pytest

from pipelines.release.presentation import headroom, headroom_plot, rows, shown_number, threshold_text
from registry.contracts import ReleaseVersions
from registry.promotion.gates import Direction, GateResult, Threshold, Tolerance
from tests.releases import gate_report


def result(direction: Direction = "higher", threshold: Threshold | None = None, **fields: object) -> GateResult:
    base = {"name": "g", "metric": "m", "passed": True, "why": "Because.", "value": 0.9}
    return GateResult.model_validate({**base, "direction": direction, "threshold": threshold, **fields})


@pytest.mark.parametrize(
    ("judged", "room"),
    [
        (result(threshold=0.6), 0.5),
        (result("lower", threshold=1.8), 0.5),
        (result("lower", threshold=0.6, passed=False), -0.5),
        (result("within", threshold=(0.8, 1.2)), 0.125),
        (result(threshold=0.1, production=1.0, tolerance=Tolerance(relative=0.2)), 0.125),
        (result("lower", threshold=0.0, value=0.0), 0.0),
        (result(threshold=0.0), 1.0),
        (result(threshold=0.6, skipped=True), None),
        (result(threshold=0.6, value=None, passed=False), None),
    ],
)
def test_headroom_is_the_distance_to_the_tightest_bound(judged: GateResult, room: float | None) -> None:
    assert headroom(judged) == (None if room is None else pytest.approx(room))


def test_failures_come_first_and_the_plot_is_a_small_png() -> None:
    report = gate_report(ReleaseVersions(1, 1, 1), passed=False)
    more = report.model_copy(update={"results": (result(threshold=0.6), *report.results, result(skipped=True))})
    assert [row["verdict"] for row in rows(more)] == ["failed", "passed", "skipped"]
    png = headroom_plot(more)
    assert png.startswith(b"\x89PNG")
    assert len(png) < 100_000


def test_bounds_and_numbers_are_written_briefly() -> None:
    assert threshold_text(result(threshold=0.6)) == ">= 0.6"
    assert threshold_text(result("lower", threshold=0.6)) == "<= 0.6"
    assert threshold_text(result("within", threshold=(1, 2))) == "1 to 2"
    assert threshold_text(result()) == ""
    assert (str(Tolerance(relative=0.05)), str(Tolerance(absolute=0.05))) == ("5%", "0.05")
    assert [shown_number(value) for value in (0.123456, 34_359_738_368, None)] == ["0.1235", "34,359,738,368", ""]
