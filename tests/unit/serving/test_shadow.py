import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID, uuid5

import numpy as np
import pytest

from feature_repo.population.people import People
from infra.clock import SystemClock
from infra.metrics import serving_metrics
from registry.contracts import ReleaseVersions
from registry.experiments.table import SHADOW_VARIANT, ExperimentState
from registry.release import Release
from registry.scoring.retrieval import CandidateList, merge_candidates
from serving.api.recommendation_models import RecommendationRequest
from serving.experiments import shadow as shadows
from serving.experiments.assignment import Assignment, Variant
from serving.experiments.shadow import Shadow
from serving.logs.impressions import Answered, Impression
from serving.reasons import CandidateSource, Level
from serving.recommend.answer_run import Run, breathe
from serving.recommend.pool import KnownRequester, Pool, Ranked
from serving.resilience.deadline import Deadline
from tests.releases import make_embedding, make_index, make_ranker

ANSWER = UUID(int=7)
CHAMPION = Assignment(Variant.CHAMPION, "taste")


def release_of() -> Release:
    embedding = make_embedding()
    return Release(ReleaseVersions(2, 2, 2), embedding, make_index(embedding), make_ranker(), {})


RELEASE = release_of()


@dataclass
class Challenger:
    """A strategy that ranks 3, 2, 1, after whatever a test wants to happen."""

    does: Callable[[], None] = lambda: None
    steps: int = 1
    level: Level = Level.FULL

    async def rank(self, run: Run, requester: KnownRequester) -> Ranked:
        del run, requester
        for _ in range(self.steps):
            self.does()
            await breathe()
        ids = np.array([1, 2, 3], dtype=np.int64)
        score = ids.astype(np.float32)
        found = merge_candidates({CandidateSource.RETRIEVAL.value: CandidateList(ids, score, np.ones(3, np.float32))})
        order = np.argsort(-score).astype(np.int64)
        return Ranked(Pool(People.build(ids), found), order, score, np.full(3, 0.95, np.float32))


@dataclass
class Stage:
    """A shadow with everything that a test may change."""

    challenger: Challenger = field(default_factory=Challenger)
    state: ExperimentState = ExperimentState.SHADOW
    release: Release | None = RELEASE
    busy: bool = False
    logged: list[Impression] = field(default_factory=list)
    answers: list[Answered] = field(default_factory=list)

    def shadow(self) -> Shadow:
        return Shadow(
            strategy=self.challenger,
            state=lambda: self.state,
            challenger=lambda: self.release,
            busy=lambda: self.busy,
            log_impressions=self.logged.extend,
            log_answers=self.answers.extend,
            metrics=serving_metrics(),
            clock=SystemClock(),
        )


def counted(outcome: str) -> float:
    return float(serving_metrics().shadow.labels(outcome)._value.get())


def answered(limit: int = 2) -> tuple[Run, KnownRequester]:
    clock = SystemClock()
    run = Run(
        request=RecommendationRequest(user_id=9, limit=limit),
        request_id=ANSWER,
        release=None,
        population=None,
        at=0.0,
        started_s=clock.monotonic(),
        deadline=Deadline.after(0.0, clock),
        clock=clock,
    )
    nobody = np.empty(0, dtype=np.int64)
    return run, KnownRequester(9, People.build([9]), nobody, nobody, nobody)


def play(stage: Stage, offers: int = 1, until: Callable[[], bool] = lambda: True) -> list[float]:
    """Offer answers and let the shadow work; return the stalls of the event loop meanwhile, in s."""

    async def go() -> list[float]:
        shadow = stage.shadow()
        task = asyncio.create_task(shadow.run())
        for _ in range(offers):
            shadow.offer(*answered(), CHAMPION)
        stalls = []
        async with asyncio.timeout(20):
            while not until():
                began = time.perf_counter()
                await asyncio.sleep(0.001)
                stalls.append(time.perf_counter() - began - 0.001)
        task.cancel()
        shadow.close()
        return stalls

    return asyncio.run(go())


def test_the_challengers_order_is_logged_as_a_shadow_of_the_answer() -> None:
    stage = Stage()
    play(stage, until=lambda: bool(stage.answers))
    assert [(one.position, one.target_id, one.score) for one in stage.logged] == [(1, 3, 3.0), (2, 2, 2.0)]
    first = stage.logged[0]
    assert (first.variant, first.release, first.level, first.user_id) == (SHADOW_VARIANT, "e2-i2-r2", 1, 9)
    assert first.request_id == uuid5(ANSWER, SHADOW_VARIANT)
    assert first.propensity == pytest.approx(0.95)
    (row,) = stage.answers
    assert (row.request_id, row.user_id, row.arm, row.variant) == (
        uuid5(ANSWER, SHADOW_VARIANT),
        9,
        SHADOW_VARIANT,
        SHADOW_VARIANT,
    )
    assert (row.experiment, row.release, row.level, row.shown, row.failed) == ("taste", "e2-i2-r2", 1, 2, False)
    assert 0 < row.took_ms < 5_000


@pytest.mark.parametrize("state", [ExperimentState.OFF, ExperimentState.RUNNING])
def test_without_a_shadow_nothing_is_ranked(state: ExperimentState) -> None:
    stage = Stage(state=state)
    before = counted("dropped"), counted("logged")
    play(stage)
    assert (counted("dropped"), counted("logged")) == before


def test_without_a_challenger_the_offer_is_dropped_and_counted() -> None:
    before = counted("dropped")
    play(Stage(release=None))
    assert counted("dropped") == before + 1


def test_a_challenger_that_crashes_is_counted_and_the_next_is_tried() -> None:
    def crash() -> None:
        raise ValueError("NaN everywhere")

    before = counted("failed")
    stage = Stage(Challenger(crash))
    play(stage, offers=2, until=lambda: len(stage.answers) == 2)
    assert counted("failed") == before + 2
    assert [(row.failed, row.level, row.shown) for row in stage.answers] == [(True, 4, 0)] * 2


def test_what_does_not_fit_the_queue_is_dropped_and_counted() -> None:
    before = counted("dropped")
    stage = Stage(busy=True)
    play(stage, offers=shadows.MAX_QUEUED + 5)
    assert counted("dropped") == before + 5


def test_while_requests_are_answered_the_shadow_waits_and_then_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "PATIENCE_S", 0.05)
    before = counted("dropped")
    stage = Stage(busy=True)
    play(stage, until=lambda: counted("dropped") > before)
    assert not stage.logged


def test_a_slow_challenger_does_not_hold_the_event_loop() -> None:
    turns, went_on = itertools.count(), threading.Event()

    def waits_for_the_loop() -> None:
        assert went_on.wait(15), "the event loop stood still"

    def has_turned() -> bool:
        if next(turns) == 100:
            went_on.set()
        return bool(stage.logged)

    stage = Stage(Challenger(waits_for_the_loop))
    play(stage, until=has_turned)
    assert not any(answer.failed for answer in stage.answers)


def test_the_shadow_rests_longer_than_it_works() -> None:
    def spin() -> None:
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass

    stage = Stage(Challenger(spin))
    began = time.perf_counter()
    play(stage, offers=4, until=lambda: len(stage.logged) == 8)
    assert time.perf_counter() - began > 4 * 0.02 + 3 * 0.02 * (1 / shadows.WORK_SHARE - 1)


def test_a_testers_challenger_has_no_shadow() -> None:
    stage = Stage()

    async def go() -> int:
        shadow = stage.shadow()
        shadow.offer(*answered(), Assignment(Variant.CHALLENGER, "taste"))
        return len(shadow._offers)

    assert asyncio.run(go()) == 0
