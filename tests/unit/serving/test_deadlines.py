# ruff: noqa: ARG002 fakes take what the real ones take
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.population.people import People
from infra.settings import Settings
from registry.release import Release
from serving.api.recommendation_models import RecommendationRequest
from serving.errors import InvalidRequest, LevelUnavailable
from serving.reasons import Level, Reason, Stage
from serving.recommend.answer_run import SHARES, Run, breathe
from serving.recommend.answers import Answer
from serving.recommend.pool import KnownRequester, Ranked
from serving.resilience.deadline import Deadline, asked_ms
from tests.clocks import FixedClock, LeapingLoop
from tests.serving_fakes import MemoryFeatures, Town, make_town
from tests.serving_world import START, load_town, write_artifacts

REQUEST_ID = UUID("00000000-0000-4000-8000-000000000001")
BUDGET_S = 0.15
SLACK_S = 0.001
"""Each wait is as long as there was time, so that the last one ends with the deadline and not before it."""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return load_town(write_artifacts(tmp_path_factory.mktemp("release"), range(1, 41)))


@pytest.fixture
def town(settings: Settings, release: Release) -> Town:
    return make_town(settings, FixedClock(START), release=release)


def ask(town: Town, budget_s: float = BUDGET_S) -> tuple[Answer, float]:
    """Return the answer and for how long after its deadline it came, by the clock of the waits."""

    async def go() -> tuple[Answer, float]:
        recommender = town.recommender()
        deadline = Deadline.after(budget_s, town.clock)
        answer = await recommender.recommend(RecommendationRequest(user_id=1), REQUEST_ID, deadline=deadline)
        return answer, -deadline.remaining_s()

    with asyncio.Runner(loop_factory=lambda: LeapingLoop(clock_of(town))) as runner:
        return runner.run(go())


def clock_of(town: Town) -> FixedClock:
    assert isinstance(town.clock, FixedClock)
    return town.clock


def run_of(town: Town, budget_s: float) -> Run:
    return Run(
        request=RecommendationRequest(user_id=1),
        request_id=REQUEST_ID,
        release=town.release,
        population=town.population,
        at=town.clock.now().timestamp(),
        started_s=town.clock.monotonic(),
        deadline=Deadline.after(budget_s, town.clock),
        clock=town.clock,
    )


class SlowFeatures(MemoryFeatures):
    """An online store that takes all the time it is given, and more."""

    async def read(self, user_id: int, timeout_s: float) -> People:
        await asyncio.sleep(timeout_s)
        raise TimeoutError


@dataclass(frozen=True)
class Slow:
    """A strategy that takes a stage's time in small steps and never ends."""

    clock: FixedClock
    stage: Stage
    level: Level = Level.FULL

    async def rank(self, run: Run, requester: KnownRequester) -> Ranked:
        async with run.timely(self.stage, fails_as=Reason.RANKING_FAILED):
            while True:
                self.clock.advance(0.001)  # computing, which holds the loop
                await breathe()


class Deaf(MemoryFeatures):
    """An online store that does not know of time limits."""

    async def read(self, user_id: int, timeout_s: float) -> People:
        await asyncio.sleep(10.0)
        raise TimeoutError


def test_postgres_too_slow_for_the_requester_is_an_empty_answer_within_the_deadline(town: Town) -> None:
    town.people.slow.add("requester")
    answer, late_s = ask(town)
    assert (answer.level, answer.items, answer.reason) == (4, [], Reason.ELIGIBILITY_UNAVAILABLE)
    assert answer.message
    assert late_s <= SLACK_S


def test_postgres_too_slow_for_the_safety_check_is_an_empty_answer_within_the_deadline(town: Town) -> None:
    town.people.slow.add("standing")
    answer, late_s = ask(town)
    assert (answer.level, answer.items) == (4, [])
    assert late_s <= SLACK_S


def test_a_slow_online_store_costs_its_share_and_the_answer_stays_of_level_one(town: Town) -> None:
    town.features = SlowFeatures()
    answer, late_s = ask(town)
    assert (answer.level, answer.degraded) == (1, ["features"])
    assert late_s < 0


def test_a_dependency_that_knows_no_limits_cannot_hold_the_answer_up(town: Town) -> None:
    town.features = Deaf()
    answer, late_s = ask(town)
    assert (answer.level, answer.reason, answer.items) == (4, Reason.DEADLINE_EXCEEDED, [])
    assert late_s <= SLACK_S


def test_who_asks_and_their_features_are_read_at_the_same_time(town: Town) -> None:
    order: list[str] = []

    class Noting(MemoryFeatures):
        async def read(self, user_id: int, timeout_s: float) -> People:
            order.append("features begin")
            await asyncio.sleep(0.02)
            order.append("features end")
            return People.empty()

    class Told(type(town.people)):  # type: ignore[misc]
        async def requester(self, user_id: int, timeout_s: float, **how: Any) -> Any:
            await asyncio.sleep(0.01)
            order.append("eligibility end")
            return await super().requester(user_id, timeout_s, **how)

    town.features = Noting()
    town.people = Told(town.people.rows)
    assert ask(town)[0].level == 1
    assert order == ["features begin", "eligibility end", "features end"]


@pytest.mark.parametrize("stage", [Stage.RETRIEVAL, Stage.RANKING])
def test_a_late_stage_means_the_next_level_and_not_a_late_answer(
    town: Town, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = town.ladder
    monkeypatch.setattr(town, "ladder", lambda: (Slow(clock_of(town), stage), *real()[1:]))
    answer, late_s = ask(town)
    assert (answer.level, answer.reason) == (2, Reason.DEADLINE_EXCEEDED)
    assert stage.value in answer.degraded
    assert answer.items
    assert late_s < 0


def test_when_time_is_over_before_it_begins_nobody_is_shown(town: Town) -> None:
    answer, _ = ask(town, 0.0)
    assert (answer.level, answer.items) == (4, [])
    assert not town.impressions


def test_a_stage_without_time_does_not_begin(town: Town) -> None:
    async def go(run: Run) -> None:
        async with run.timely(Stage.RANKING):
            pytest.fail("it began")

    with pytest.raises(LevelUnavailable) as late:
        asyncio.run(go(run_of(town, 0.0)))
    assert late.value.reason is Reason.DEADLINE_EXCEEDED


def test_a_timeout_inside_a_stage_that_is_not_late_is_a_failure_of_that_stage(town: Town) -> None:
    async def go(run: Run) -> None:
        async with run.timely(Stage.RANKING):
            raise TimeoutError

    with pytest.raises(TimeoutError):
        asyncio.run(go(run_of(town, 5.0)))


@given(
    budget_s=st.floats(0.01, 10.0),
    spent=st.lists(st.tuples(st.sampled_from(sorted(SHARES)), st.floats(0, 1)), max_size=12),
)
def test_stages_that_keep_to_their_shares_always_leave_safety_its_reserve(
    budget_s: float, spent: Sequence[tuple[Stage, float]]
) -> None:
    clock = FixedClock(START)
    run = Run(
        request=RecommendationRequest(user_id=1),
        request_id=REQUEST_ID,
        release=None,
        population=None,
        at=0.0,
        started_s=0.0,
        deadline=Deadline.after(budget_s, clock),
        clock=clock,
    )
    for stage, share in spent:
        clock.advance(run.share_s(stage) * share)
    assert run.safety_s() >= 0.2 * budget_s * (1 - 1e-6)
    assert run.remaining_s() >= 0


def test_a_deadline_never_has_less_than_nothing_left() -> None:
    clock = FixedClock(START)
    deadline = Deadline.after(1.0, clock)
    assert (deadline.remaining_s(), deadline.share(0.25)) == (1.0, 0.25)
    clock.advance(3.0)
    assert (deadline.remaining_s(), deadline.share(0.25)) == (0.0, 0.0)


@pytest.mark.parametrize(("value", "budget"), [(b"10", 10), (b"250", 250), (b"1000", 1000)])
def test_a_client_may_name_its_budget(value: bytes, budget: int) -> None:
    assert asked_ms({b"x-deadline-ms": value}, 1000) == budget


def test_without_the_header_the_settings_decide() -> None:
    assert asked_ms({}, 1000) is None


@pytest.mark.parametrize("value", [b"", b"9", b"1001", b"-5", b"1e2", b"2.5", b" 50", b"9" * 40, "٣٣".encode(), b"nan"])
def test_a_budget_that_makes_no_sense_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked_ms({b"x-deadline-ms": value}, 1000)
    assert refused.value.details[0]["field"] == "X-Deadline-Ms"
