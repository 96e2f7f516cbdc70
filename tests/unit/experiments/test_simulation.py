"""Equal arms are told apart in at most 5 % of made-up experiments, also by rare, clustered outcomes in small arms."""

from pathlib import Path

import pytest

from infra.cli.app import run
from pipelines.experiments import simulation
from pipelines.experiments.clustered import ENOUGH_EVENTS, Pair, Sums
from pipelines.experiments.simulation import (
    GRID,
    HELD,
    JUDGES,
    SMALL_CHAMPION,
    WORST,
    Case,
    SimulationOutcome,
    guard_of_errors,
    row_of,
    simulate,
)

MOST = 0.05


@pytest.mark.parametrize("case", WORST, ids=str)
def test_equal_arms_are_rarely_told_apart_where_variances_alone_were_wrong(case: Case) -> None:
    found = simulate(case, worlds=100)
    assert max(found.share(judge) for judge in HELD) <= MOST, row_of(found)


def test_errors_of_a_few_people_that_a_small_champion_was_spared_end_no_experiment() -> None:
    found = simulate(SMALL_CHAMPION, worlds=200, judges={"guard": guard_of_errors})
    assert found.share("guard") <= MOST, row_of(found)


def test_the_published_table_is_of_the_cases_and_the_judges_of_the_code() -> None:
    lines = (Path(simulation.__file__).with_suffix(".md")).read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert rows[0] == ["people", "share", "rate", "spread", *JUDGES]
    assert [row[:4] for row in rows[1:]] == [row_of(SimulationOutcome(case, 1, {})) for case in GRID]
    held = [float(cell.rstrip("%")) / 100 for row in rows[1:] for cell in row[4 : 4 + len(HELD)]]
    assert max(held) <= MOST


@pytest.mark.long
@pytest.mark.timeout(3_000)
def test_equal_arms_are_rarely_told_apart_in_every_case_of_the_published_grid() -> None:
    for case in GRID:
        found = simulate(case, worlds=400)
        assert max(found.share(judge) for judge in HELD) <= MOST, row_of(found)


def test_the_command_prints_a_row_per_case(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert run(["experiment", "simulate", "--worlds", "10", "--worst"]) == 0
    said = capsys.readouterr().out
    assert "decided wrongly, of 10 experiments without a difference" in said
    assert said.count("10,000") == sum(case.people == 10_000 for case in WORST)


def test_a_small_side_without_a_success_is_no_surer_than_everybody_together() -> None:
    # A hundred people with ten showings; of the large side one in ten likes all ten, of the small one nobody does.
    large, small = Sums(1_000, 10_000, 1_000, 100_000, 10_000, 10_000), Sums(100, 1_000, 0, 10_000, 0, 0)
    pair = Pair(small, large)
    rate = 1_000 / 11_000
    person = (10_000 - 2 * rate * 10_000 + rate**2 * 110_000) / 1_100
    assert pair.variance(small) == pytest.approx(100 * person / 1_000**2)
    assert pair.variance(small) > 5 * small.variance
    # At that rate 91 likes of the small side can be expected, but all ten of a person are one.
    assert pair.effective_events == pytest.approx(9.09, abs=0.01)
    assert pair.effective_events < ENOUGH_EVENTS


def test_sides_without_any_success_have_no_events() -> None:
    nothing = Sums(100, 1_000, 0, 10_000, 0, 0)
    assert Pair(nothing, nothing).effective_events == 0
