import asyncio
from typing import Any

import pytest

from registry.experiments.table import ExperimentState
from serving.errors import InvalidRequest, VariantForbidden
from serving.experiments.assignment import Assignment, Variant
from serving.experiments.override import chosen_variant
from serving.experiments.table import Experiments


class Table:
    """The rows of a database that may be down; counts what it was told."""

    def __init__(self, *rows: tuple[Any, ...]) -> None:
        self.rows = list(rows)
        self.down = False
        self.changes = 0
        self.experiments = Experiments(self.read, 0.01, self.changed)

    async def read(self) -> list[tuple[Any, ...]]:
        if self.down:
            raise ConnectionError("postgresql://duet:hunter2@db")
        return self.rows

    def changed(self) -> None:
        self.changes += 1

    def look(self) -> Experiments:
        asyncio.run(self.experiments.refresh())
        return self.experiments


EVERYBODY = ("taste", "pepper", 1.0, "running")


def test_what_is_unknown_at_start_is_off() -> None:
    table = Table(EVERYBODY)
    table.down = True
    assert table.look().state is ExperimentState.OFF
    assert table.experiments.assign(7) == Assignment(Variant.CHAMPION)
    assert table.experiments.problem is not None
    assert "hunter2" not in table.experiments.problem


def test_an_experiment_counts_from_the_next_look_and_stops_with_it() -> None:
    table = Table(EVERYBODY)
    assert table.look().assign(7) == Assignment(Variant.CHALLENGER, "taste")
    table.rows = []
    assert table.look().assign(7) == Assignment(Variant.CHAMPION)


def test_the_last_known_experiment_goes_on_while_postgres_is_away() -> None:
    table = Table(EVERYBODY)
    table.look()
    table.down = True
    assert table.look().assign(7).variant is Variant.CHALLENGER
    table.down, table.rows = False, []
    assert table.look().assign(7).variant is Variant.CHAMPION
    assert table.experiments.problem is None


def test_a_change_is_told_once() -> None:
    table = Table(EVERYBODY)
    table.look()
    table.look()
    table.rows = [("taste", "pepper", 0.5, "running")]
    table.look()
    assert table.changes == 2


def test_in_the_shadow_everybody_gets_the_champion() -> None:
    table = Table(("taste", "pepper", 1.0, "shadow"))
    assert table.look().assign(7) == Assignment(Variant.CHAMPION, "taste")
    assert table.experiments.state is ExperimentState.SHADOW


@pytest.mark.parametrize("row", [("taste", "pepper", 7.0, "running"), ("taste", "pepper", 0.5, "haunting")])
def test_a_row_that_makes_no_sense_is_no_experiment(row: tuple[Any, ...]) -> None:
    assert Table(row).look().active is None


def test_a_tester_chooses_while_an_experiment_is_active() -> None:
    table = Table(("taste", "pepper", 0.0, "shadow"))
    assert table.look().assign(7, Variant.CHALLENGER) == Assignment(Variant.CHALLENGER, "taste")
    table.rows = []
    assert table.look().assign(7, Variant.CHALLENGER) == Assignment(Variant.CHAMPION)


def test_it_looks_again_and_again() -> None:
    table = Table()

    async def watch() -> None:
        seen = asyncio.Event()
        experiments = Experiments(table.read, 0.01, seen.set)
        task = asyncio.create_task(experiments.run())
        await asyncio.sleep(0.05)
        table.rows = [EVERYBODY]
        async with asyncio.timeout(5):
            await seen.wait()
        task.cancel()
        assert experiments.state is ExperimentState.RUNNING

    asyncio.run(watch())


def test_the_header_is_for_testers_alone() -> None:
    header = {b"x-duet-variant": b" Challenger "}
    assert chosen_variant(header, tester=True) is Variant.CHALLENGER
    assert chosen_variant({}, tester=False) is None
    with pytest.raises(VariantForbidden):
        chosen_variant(header, tester=False)


def test_an_unknown_arm_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        chosen_variant({b"x-duet-variant": b"both"}, tester=True)
