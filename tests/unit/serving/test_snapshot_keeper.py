import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from infra.metrics import serving_metrics
from infra.settings import ServingSettings
from serving.errors import BuildFailed, FeaturesLost, FeaturesUnavailable, SnapshotError, TooManyChanges
from serving.snapshots import snapshot
from serving.snapshots.generations import Generations
from serving.snapshots.population_source import PopulationSnapshot
from serving.snapshots.snapshot import BUILD_PAUSE_S, FILLED_EVERY_S, LARGE_TAIL, SnapshotKeeper
from tests.clocks import FixedClock
from tests.serving_fakes import people_of, person
from tests.snapshots import AT, generations_in, snapshot_of


class Source:
    """A database and an online store in memory that count what is asked of them, and fail when told to."""

    def __init__(self) -> None:
        self.refreshed: list[bool] = []
        self.filled: datetime | None = None
        self.lost = False
        self.failure: Exception | None = None
        self.came: list[int] = []
        self.evicted: set[int] = set()
        self.required: list[list[int]] = []

    def refresh(self, snapshot: PopulationSnapshot, *, thorough: bool) -> PopulationSnapshot:
        self.refreshed.append(thorough)
        if self.failure is not None:
            raise self.failure
        return replace(snapshot, population=snapshot.population.upsert(people_of([person(i) for i in self.came])))

    def filled_at(self) -> datetime | None:
        if self.lost:
            raise FeaturesLost("The store was emptied.")
        if self.failure is not None:
            raise FeaturesUnavailable("No store.")
        return self.filled

    def require(self, user_ids: NDArray[np.int64]) -> None:
        self.required.append(user_ids.tolist())
        if lost := self.evicted.intersection(self.required[-1]):
            raise FeaturesLost(f"{len(lost)} of {len(user_ids)} were lost.")


class Builds:
    """Writes a generation of people 1 and 2 when started, or fails, or finds somebody else at it."""

    def __init__(self, generations: Generations, clock: FixedClock) -> None:
        self.generations = generations
        self.clock = clock
        self.started = 0
        self.busy_elsewhere = self.failing = self.failed = self.closed = False
        self.problem: str | None = None
        self.source: Source | None = None

    def start(self) -> bool:
        if self.busy_elsewhere:  # the other one is done by the next time
            self.busy_elsewhere = False
            self.write()
            return False
        self.started += 1
        self.failed = self.failing
        if not self.failing:
            self.write()
        return True

    def write(self) -> None:
        filled = self.source.filled if self.source is not None else None
        self.generations.write(snapshot_of(1, 2, filled_at=filled), at=self.clock.now(), problem=self.problem)

    def running(self) -> bool:
        if self.failed:
            self.failed = False
            raise BuildFailed("it ended with status 1.")
        return False

    def close(self) -> None:
        self.closed = True


class World:
    """A keeper with everything around it."""

    def __init__(self, root: Path, clock: FixedClock) -> None:
        self.clock = clock
        self.source = Source()
        self.generations = generations_in(root)
        self.builds = Builds(self.generations, clock)
        self.builds.source = self.source
        self.keeper = self.another()

    def another(self) -> SnapshotKeeper:
        return SnapshotKeeper(
            generations=self.generations,
            builds=self.builds,
            refresh=self.source.refresh,
            filled_at=self.source.filled_at,
            require=self.source.require,
            settings=ServingSettings(),
            clock=self.clock,
            metrics=serving_metrics(),
        )

    def step(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        asyncio.run(self.keeper.step())

    @property
    def people(self) -> list[int]:
        current = self.keeper.current
        return [] if current is None else [*current.population.base.user_ids, *current.population.tail.user_ids]


@pytest.fixture
def world(tmp_path: Path, clock: FixedClock) -> World:
    return World(tmp_path, clock)


def test_without_a_generation_one_is_written_and_then_refreshed(world: World) -> None:
    assert world.keeper.age_s() is None
    world.step()
    assert world.people == [1, 2]
    world.step(5)
    world.clock.advance(5)
    assert world.keeper.age_s() == 5
    assert (world.builds.started, world.source.refreshed) == (1, [True, False])
    world.step(60)
    assert world.source.refreshed == [True, False, True]  # now and then it looks further back


def test_a_generation_of_an_earlier_run_is_mapped_and_caught_up_with_before_it_counts_as_tried(world: World) -> None:
    world.builds.write()
    world.source.came = [7]
    world.step()
    assert world.people == [1, 2, 7]
    assert world.keeper.tried.is_set()
    assert world.builds.started == 0


def test_a_generation_of_an_earlier_run_serves_even_while_the_database_is_away(world: World) -> None:
    world.builds.write()
    world.source.failure = ConnectionError("postgresql://duet:hunter2@db")
    world.step(90)
    assert world.people == [1, 2]
    assert world.keeper.tried.is_set()
    assert world.keeper.problem == "The population could not be refreshed: ConnectionError."
    assert world.keeper.age_s() == (world.clock.now() - AT).total_seconds()
    world.source.failure = None
    world.step()
    assert world.keeper.problem is None
    assert world.keeper.age_s() == 0


def test_while_another_process_writes_the_first_generation_it_is_waited_for(world: World) -> None:
    world.builds.busy_elsewhere = True
    world.step()
    assert world.people == [1, 2]
    assert world.builds.started == 0


def test_two_keepers_share_one_generation(world: World) -> None:
    world.step()
    other = world.another()
    asyncio.run(other.step())
    assert world.builds.started == 1
    assert other.current is not None
    assert other.current.population.base.user_ids.tolist() == world.people


def test_a_failed_build_is_said_and_tried_again(world: World) -> None:
    world.builds.failing = True
    world.step()
    assert world.keeper.current is None
    assert world.keeper.tried.is_set()
    assert world.keeper.problem is not None
    assert "status 1" in world.keeper.problem
    world.builds.failing = False
    world.step()
    assert world.people == [1, 2]
    assert world.keeper.problem is None


def test_a_failed_rebuild_keeps_what_is_there(world: World) -> None:
    assert issubclass(BuildFailed, SnapshotError)  # so its sentence is shown, and not only its name
    world.step()
    world.builds.failing = True
    world.step(601)
    world.step()
    assert world.keeper.problem == "The population could not be written anew: it ended with status 1."
    assert world.people == [1, 2]


def test_a_refilled_online_store_leads_to_a_new_generation_that_is_mapped(world: World) -> None:
    world.step()
    world.source.filled = AT
    world.step(max(FILLED_EVERY_S, BUILD_PAUSE_S))
    assert world.builds.started == 2
    world.step(5)
    assert world.keeper.current is not None
    assert world.keeper.current.filled_at == AT
    world.step(max(FILLED_EVERY_S, BUILD_PAUSE_S))
    assert world.builds.started == 2


def test_a_large_tail_is_sorted_into_a_new_generation(world: World) -> None:
    world.step()
    world.source.came = list(range(3, LARGE_TAIL + 5))
    world.step(BUILD_PAUSE_S)
    assert world.builds.started == 2
    world.source.came = []
    world.step(5)
    assert world.people == [1, 2]  # as the fake one writes it


def test_now_and_then_everything_is_written_anew(world: World) -> None:
    world.step()
    world.step(599)
    assert world.builds.started == 1
    world.step(2)
    assert world.builds.started == 2


def test_too_many_changes_are_left_to_a_new_generation_and_said_until_then(world: World) -> None:
    world.step()
    world.source.failure = TooManyChanges("More than 9 people changed at once.")
    world.step(BUILD_PAUSE_S)
    assert world.keeper.problem is not None
    assert "More than 9 people changed" in world.keeper.problem
    assert world.builds.started == 2
    world.source.failure = None
    world.step(5)
    assert world.keeper.problem is None


def test_a_damaged_generation_is_not_served_and_another_is_written(world: World) -> None:
    world.builds.write()
    next(world.generations.root.glob("*/user_ids.npy")).write_bytes(b"\x93NUMPY")
    world.step()
    assert world.people == [1, 2]
    assert world.builds.started == 1


def test_what_was_written_without_the_online_store_says_so_and_is_written_again(world: World) -> None:
    world.builds.problem = "The online feature store cannot be read."
    world.step()
    assert world.keeper.problem == "The online feature store cannot be read."
    world.builds.problem = None
    world.step(61)
    world.step(5)
    assert world.builds.started == 2
    assert world.keeper.problem is None


def test_people_who_cannot_be_refreshed_for_long_are_called_stale(world: World) -> None:
    world.step()
    world.clock.advance(timedelta(minutes=2).total_seconds())
    assert world.keeper.problem == "The people in memory are as they were 120 s ago."
    world.keeper.close()
    assert world.builds.closed


def test_a_store_that_was_emptied_is_told_until_it_is_filled_again_and_read_anew(world: World) -> None:
    world.source.filled = world.clock.now()
    world.step()
    assert not world.keeper.features_lost
    world.source.lost = True
    world.step(60)
    assert world.keeper.features_lost
    assert world.keeper.problem == "The store was emptied."
    assert world.people == [1, 2]
    world.source.lost, world.source.filled = False, world.clock.now()
    started = world.builds.started
    world.step(60)
    assert not world.keeper.features_lost
    assert world.keeper.problem is None
    assert world.builds.started == started + 1


def test_people_whom_the_store_has_lost_are_told_once_and_until_it_is_filled_again(world: World) -> None:
    world.source.filled = world.clock.now()
    world.step()
    world.source.evicted = {2}
    with capture_logs() as logged:
        world.step(60)
        world.source.lost = True  # the mark went with the finding
        world.step(60)
        world.step(60)
    assert [entry["why"] for entry in logged if entry["event"] == "online_features_lost"] == ["1 of 2 were lost."]
    assert world.keeper.features_lost
    assert world.keeper.problem == "1 of 2 were lost."
    assert serving_metrics().features_lost._value.get() == 1
    world.source.evicted, world.source.lost, world.source.filled = set(), False, world.clock.now()
    world.step(60)
    assert not world.keeper.features_lost
    assert world.keeper.problem is None
    assert serving_metrics().features_lost._value.get() == 0


def test_a_few_people_are_looked_for_online_once_a_minute_and_others_each_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "SAMPLE_PEOPLE", 1)
    world.step()
    for _ in range(10):
        world.step(FILLED_EVERY_S)
    assert world.source.required == [[1], [2], [1]]


def test_people_who_were_read_without_their_features_are_told_as_such(world: World) -> None:
    world.builds.problem = "The online feature store was emptied."
    world.step()
    assert world.keeper.features_lost
