import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
import psycopg
import pytest

from infra.clock import SystemClock
from infra.metrics import serving_metrics
from infra.settings import Settings
from registry.release import Release
from serving.api.recommendation_models import RecommendationRequest
from serving.errors import EligibilityUnknown, UnknownUser
from serving.people.people_store import RequesterRow
from serving.people.replica import SHARE, ReplicatedPeople
from serving.people.replica_lag import Replayed, ReplicaLag, Written
from serving.reasons import Level, Reason
from serving.recommend.answer_run import Run
from serving.recommend.answers import Answer
from serving.recommend.pool import KnownRequester, Ranked
from tests.cached_towns import with_cache
from tests.clocks import FixedClock, LeapingLoop
from tests.serving_fakes import MemoryPeople, Town, make_town, person
from tests.serving_world import load_town, write_artifacts

T = TypeVar("T")
REQUEST_ID = UUID("00000000-0000-4000-8000-000000000001")
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def answers(timeouts: list[float] | None = None, **state: Any) -> MemoryPeople:
    """People 1 to 4 in memory; `timeouts` gathers what each read of a requester was given."""

    class Noting(MemoryPeople):
        async def requester(self, user_id: int, timeout_s: float, **how: Any) -> RequesterRow | None:
            if timeouts is not None:
                timeouts.append(timeout_s)
            return await super().requester(user_id, timeout_s, **how)

    return Noting({user_id: person(user_id) for user_id in range(1, 5)}, **state)


def both(primary: MemoryPeople, replica: MemoryPeople, *, usable: bool = True) -> ReplicatedPeople:
    return ReplicatedPeople(primary, replica, lambda: usable, SystemClock())


async def standing(people: ReplicatedPeople) -> None:
    await people.standing(1, np.array([2]), since=None, interests=None, timeout_s=1.0)


def test_reads_that_may_be_a_moment_old_go_to_the_replica_and_the_last_check_never_does() -> None:
    primary, replica = answers(), answers()

    async def go() -> RequesterRow | None:
        people = both(primary, replica)
        await people.some_visible(0.5, 3, 1.0)
        await standing(people)
        return await people.requester(1, 1.0)

    row = asyncio.run(go())
    assert row is not None
    assert row.replicated
    assert (primary.asked, replica.asked) == (["standing"], ["some_visible", "requester"])


def test_a_fresh_read_and_every_read_past_the_lag_go_to_the_primary() -> None:
    primary, replica = answers(), answers()

    async def go() -> None:
        assert (await both(primary, replica).requester(1, 1.0, fresh=True)).replicated is False  # type: ignore[union-attr]
        behind = both(primary, replica, usable=False)
        assert (await behind.requester(1, 1.0)).replicated is False  # type: ignore[union-attr]
        await behind.some_visible(0.5, 3, 1.0)

    asyncio.run(go())
    assert replica.asked == []
    assert primary.asked == ["requester", "requester", "some_visible"]


def test_a_person_whom_the_replica_does_not_know_yet_is_looked_for_on_the_primary() -> None:
    primary, replica = answers(), answers()
    replica.rows.pop(1)
    row = asyncio.run(both(primary, replica).requester(1, 1.0))
    assert row is not None
    assert not row.replicated
    assert asyncio.run(both(primary, replica).requester(99, 1.0)) is None


def test_a_dead_replica_is_stepped_over() -> None:
    primary, replica = answers(), answers(down=True)
    people = both(primary, replica)
    assert asyncio.run(people.requester(1, 1.0)) is not None
    assert len(asyncio.run(people.some_visible(0.5, 3, 1.0))) == 3


def test_a_slow_replica_takes_a_small_share_and_leaves_the_rest_to_the_primary() -> None:
    given: list[float] = []
    primary, replica = answers(given), answers(given, slow={"requester"})
    assert asyncio.run(both(primary, replica).requester(1, 0.4)) is not None
    asked, left = given
    assert asked == pytest.approx(0.4 * SHARE)
    assert left == pytest.approx(0.4 * (1 - SHARE), abs=0.08)


def test_when_the_primary_is_away_a_replica_alone_does_not_say_who_may_be_shown() -> None:
    with pytest.raises(EligibilityUnknown):
        asyncio.run(standing(both(answers(down=True), answers())))


# The path of a request: what the replica misses is found out by the last check.


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return load_town(write_artifacts(tmp_path_factory.mktemp("release"), range(1, 101)))


@dataclass
class Replicated:
    """A town whose requesters are read from `replica`, and who was ranked for whom by what they liked."""

    town: Town
    primary: MemoryPeople
    replica: MemoryPeople
    tastes: list[list[int]] = field(default_factory=list)

    def ask(self, **request: Any) -> Answer:
        recommender = self.town.recommender()
        recommender._ladder = tuple(_Noting(strategy, self.tastes) for strategy in self.town.ladder())
        return asyncio.run(recommender.recommend(RecommendationRequest(user_id=1, **request), REQUEST_ID))


@dataclass(frozen=True)
class _Noting:
    strategy: Any
    tastes: list[list[int]]

    @property
    def level(self) -> Level:
        return self.strategy.level  # type: ignore[no-any-return]

    async def rank(self, run: Run, requester: KnownRequester) -> Ranked:
        self.tastes.append(requester.liked.tolist())
        return await self.strategy.rank(run, requester)  # type: ignore[no-any-return]


@pytest.fixture
def replicated(settings: Settings, release: Release) -> Replicated:
    town = with_cache(make_town(settings, SystemClock(), n=100, release=release))
    primary, replica = town.people, MemoryPeople(dict(town.people.rows))
    town.people = both(primary, replica)  # type: ignore[assignment]
    return Replicated(town, primary, replica)


def test_a_replica_that_knows_everything_costs_the_primary_only_the_last_check(replicated: Replicated) -> None:
    answer = replicated.ask()
    assert (answer.level, answer.degraded, len(answer.items)) == (1, [], 20)
    assert replicated.primary.asked == ["standing"]
    assert replicated.ask().cached


def test_a_like_that_the_replica_misses_is_felt_by_exclusions_and_by_taste(replicated: Replicated) -> None:
    replicated.primary.decided[1], replicated.primary.liked[1] = {100}, [100]
    answer = replicated.ask()
    assert 100 not in [item.user_id for item in answer.items]
    assert (answer.level, answer.degraded, len(answer.items)) == (1, [], 20)
    assert replicated.tastes == [[], [100]]
    assert replicated.primary.asked == ["standing", "requester", "standing"]
    assert replicated.ask().cached  # what was kept is the second choice, of the version that the primary knows


def test_preferences_that_the_replica_misses_are_read_anew(replicated: Replicated) -> None:
    replicated.primary.update(1, NOON, seeking=["woman"])
    answer = replicated.ask()
    shown = [replicated.primary.rows[item.user_id] for item in answer.items]
    assert {row["gender"] for row in shown} <= {"woman"}
    assert not answer.cached
    assert replicated.primary.asked.count("requester") == 2  # for the first list's safety, and for the second list


def test_somebody_deleted_on_the_primary_is_unknown_although_the_replica_has_them(replicated: Replicated) -> None:
    replicated.primary.rows.pop(1)
    with pytest.raises(UnknownUser):
        replicated.ask()


def test_when_there_is_no_time_to_choose_again_the_safe_list_is_shown_and_says_so(
    replicated: Replicated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "total_ms", lambda _: 10_000_000.0)
    replicated.primary.decided[1] = {100}
    answer = replicated.ask()
    assert (answer.level, answer.degraded) == (1, ["eligibility"])
    assert len(answer.items) == 20
    assert 100 not in [item.user_id for item in answer.items]
    assert not replicated.ask().cached


def test_when_the_primary_fails_the_second_choice_the_first_is_shown(replicated: Replicated) -> None:
    replicated.primary.decided[1] = {100}

    class Leaving(MemoryPeople):
        async def requester(self, user_id: int, timeout_s: float, **how: Any) -> RequesterRow | None:
            del user_id, timeout_s, how
            raise EligibilityUnknown(Reason.ELIGIBILITY_UNAVAILABLE, "Postgres cannot be read.")

    replicated.town.people = both(  # type: ignore[assignment]
        Leaving(replicated.primary.rows, decided=replicated.primary.decided), replicated.replica
    )
    answer = replicated.ask()
    assert (answer.level, answer.degraded, len(answer.items)) == (1, ["eligibility"], 20)


# How far it is behind.


@dataclass
class Servers:
    """What both servers say; an exception is raised."""

    clock: FixedClock
    written: int = 0
    replayed: int | None = 0
    committed_at: datetime | None = None
    in_recovery: bool = True
    fails: Exception | None = None

    async def primary(self) -> Written:
        return Written(self.written, self.clock.now())

    async def replica(self) -> Replayed:
        if self.fails is not None:
            raise self.fails
        return Replayed(self.in_recovery, self.replayed, self.committed_at)


@pytest.fixture
def servers(clock: FixedClock) -> Servers:
    return Servers(clock)


def lag_of(servers: Servers, max_lag_s: float = 1.0) -> ReplicaLag:
    return ReplicaLag(
        servers.primary,
        servers.replica,
        max_lag_s=max_lag_s,
        clock=servers.clock,
        gauge=serving_metrics().replica_lag_seconds,
    )


def gauge() -> float:
    return serving_metrics().replica_lag_seconds._value.get()  # type: ignore[no-any-return]


def test_nothing_is_read_from_a_replica_before_its_lag_is_known(servers: Servers) -> None:
    lag = lag_of(servers)
    assert not lag.near()
    asyncio.run(lag.measure())
    assert (lag.near(), lag.seconds, lag.problem) == (True, 0.0, None)


def test_a_measurement_grows_old_by_itself(servers: Servers) -> None:
    lag = lag_of(servers)
    asyncio.run(lag.measure())
    servers.clock.advance(0.9)
    assert lag.near()
    servers.clock.advance(0.2)
    assert not lag.near()


def test_a_replica_that_stands_still_falls_behind_by_the_time_since_it_had_everything(servers: Servers) -> None:
    lag = lag_of(servers)
    asyncio.run(lag.measure())
    servers.clock.advance(0.6)
    servers.written = 100
    asyncio.run(lag.measure())
    assert (lag.seconds, lag.near()) == (0.6, True)
    servers.clock.advance(0.6)
    asyncio.run(lag.measure())
    assert (lag.seconds, lag.near(), gauge()) == (1.2, False, 1.2)
    servers.replayed = 100
    asyncio.run(lag.measure())
    assert (lag.seconds, lag.near()) == (0.0, True)


def test_the_last_commit_that_was_replayed_bounds_the_lag_where_the_log_always_grows(servers: Servers) -> None:
    servers.written, servers.committed_at = 100, servers.clock.now() - timedelta(seconds=0.3)
    lag = lag_of(servers)
    asyncio.run(lag.measure())
    assert (lag.seconds, lag.near()) == (0.3, True)
    servers.committed_at = servers.clock.now() + timedelta(seconds=5)  # clocks may be set: never less than nothing
    asyncio.run(lag.measure())
    assert lag.seconds == 0.0


def test_on_a_quiet_primary_an_old_commit_is_no_lag(servers: Servers) -> None:
    servers.committed_at = servers.clock.now() - timedelta(days=1)
    lag = lag_of(servers)
    asyncio.run(lag.measure())
    assert lag.seconds == 0.0


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"fails": psycopg.OperationalError("gone")}, "OperationalError"),
        ({"fails": ConnectionRefusedError()}, "ConnectionRefusedError"),
        ({"fails": TimeoutError()}, "No answer"),
        ({"in_recovery": False}, "not in recovery"),
        ({"replayed": None}, "does not say"),
    ],
)
def test_what_is_not_known_is_not_used_and_the_gauge_goes_on(
    servers: Servers, said: dict[str, Any], problem: str
) -> None:
    lag = lag_of(servers)
    asyncio.run(lag.measure())
    servers.written = 1
    for name, value in said.items():
        setattr(servers, name, value)
    servers.clock.advance(0.25)
    asyncio.run(lag.measure())
    assert not lag.near()
    assert lag.seconds is None
    assert problem in str(lag.problem)
    assert gauge() == 0.25


def test_a_silent_replica_is_asked_no_longer_than_its_bound(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.people.replica_lag.WITHIN_S", 0.05)

    async def silent() -> Replayed:
        await asyncio.sleep(60)
        raise AssertionError

    lag = lag_of(servers)
    lag._replayed = silent
    _within(lag.measure, 1.0)
    assert not lag.near()


def test_it_measures_several_times_in_the_lag_that_is_allowed(servers: Servers) -> None:
    lag = lag_of(servers, max_lag_s=0.04)

    async def go() -> None:
        task = asyncio.create_task(lag.run())
        await asyncio.sleep(0.2)
        task.cancel()

    with asyncio.Runner(loop_factory=lambda: LeapingLoop(servers.clock)) as runner:
        runner.run(go())
    assert len(lag._history) >= 5


def _within(work: Callable[[], Awaitable[T]], seconds: float) -> T:
    async def go() -> T:
        async with asyncio.timeout(seconds):
            return await work()

    return asyncio.run(go())
