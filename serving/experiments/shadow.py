"""Ranking with the challenger what the champion has just answered, in the background: logged, and shown to nobody.

A thread of its own does it, because the challenger may be slow in ways that a step between two requests may not: a
search or a prediction that takes long holds no lock that the event loop needs. Between its steps it waits while
requests are being answered, and it rests nineteen times as long as it worked, so it takes a twentieth of one core at
most. What does not fit is dropped and counted: a shadow is a sample, and the champion comes first.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import structlog

from infra.clock import Clock
from infra.metrics import ServingMetrics
from registry.experiments.table import SHADOW_VARIANT, ExperimentState, shadow_request_id
from registry.release import Release
from serving.experiments.assignment import Assignment, Variant
from serving.logs.impressions import Answered, Impression
from serving.reasons import Level
from serving.recommend.answer_run import Run
from serving.recommend.levels import Strategy
from serving.recommend.pool import KnownRequester, Ranked
from serving.resilience.deadline import Deadline

MAX_QUEUED: Final = 64
WORK_SHARE: Final = 0.05
PATIENCE_S: Final = 1.0
TIME_S: Final = 2.0
_OUTCOMES: Final = ("logged", "dropped", "failed")
_PAUSE_S: Final = 0.001
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Offer:
    run: Run
    requester: KnownRequester
    release: Release
    experiment: str | None


@dataclass(frozen=True)
class _Outcome:
    """How a shadow ended, the seconds of processor that it took, and what is logged of it."""

    name: str
    worked_s: float
    impressions: list[Impression]
    answers: list[Answered]


class Shadow:
    """Ranks offered requests once more; `busy` tells whether requests are being answered right now."""

    def __init__(
        self,
        *,
        strategy: Strategy,
        state: Callable[[], ExperimentState],
        challenger: Callable[[], Release | None],
        busy: Callable[[], bool],
        log_impressions: Callable[[list[Impression]], None],
        log_answers: Callable[[list[Answered]], None],
        metrics: ServingMetrics,
        clock: Clock,
    ) -> None:
        self._strategy = strategy
        self._state = state
        self._challenger = challenger
        self._busy = busy
        self._log_impressions = log_impressions
        self._log_answers = log_answers
        self._metrics = metrics
        for outcome in _OUTCOMES:
            metrics.shadow.labels(outcome)  # the series is there before the first of its kind
        self._clock = clock
        self._offers: deque[_Offer] = deque()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")

    def offer(self, run: Run, requester: KnownRequester, assignment: Assignment) -> None:
        """Take note of an answered request, if there is a shadow; returns at once and never raises."""
        if self._state() is not ExperimentState.SHADOW or assignment.variant is not Variant.CHAMPION:
            return
        release = self._challenger()
        if release is None or len(self._offers) >= MAX_QUEUED:
            self._count("dropped")
            return
        self._offers.append(_Offer(run, requester, release, assignment.experiment))
        self._wake.set()

    async def run(self) -> None:
        """Rank what is offered for ever."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._offers:
                self._wake.clear()
                await self._wake.wait()
            outcome = await loop.run_in_executor(self._thread, self._rank, self._offers.popleft())
            self._count(outcome.name)
            if outcome.impressions:
                self._log_impressions(outcome.impressions)
            if outcome.answers:
                self._log_answers(outcome.answers)
            await asyncio.sleep(outcome.worked_s * (1 / WORK_SHARE - 1))

    def close(self) -> None:
        """Let go of the thread."""
        self._offers.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _rank(self, offer: _Offer) -> _Outcome:
        began_s = time.thread_time()
        run = self._run_of(offer)
        name, impressions = self._tried(run, offer)
        worked_s = time.thread_time() - began_s
        answers = [] if name == "dropped" else [self._answer(run, offer, len(impressions), worked_s, name == "failed")]
        return _Outcome(name, worked_s, impressions, answers)

    def _run_of(self, offer: _Offer) -> Run:
        return replace(
            offer.run,
            release=offer.release,
            request_id=shadow_request_id(offer.run.request_id),
            deadline=Deadline.after(PATIENCE_S + TIME_S, self._clock),
            timings_ms={},
            degraded=[],
            first_step_down=None,
        )

    def _tried(self, run: Run, offer: _Offer) -> tuple[str, list[Impression]]:
        try:
            ranked = asyncio.run(self._considerately(run, offer.requester))
            return ("dropped", []) if ranked is None else ("logged", self._impressions(run, ranked))
        except Exception as error:  # noqa: BLE001 a challenger may fail in any way it likes
            _log.warning("shadow_failed", release=offer.release.release_id, why=type(error).__name__)
            return "failed", []

    async def _considerately(self, run: Run, requester: KnownRequester) -> Ranked | None:
        """Rank, and wait between the steps while requests are being answered; None when that takes too long."""
        patient_until_s = self._clock.monotonic() + PATIENCE_S
        work = asyncio.create_task(self._strategy.rank(run, requester))
        while not work.done():
            while self._busy():
                if self._clock.monotonic() > patient_until_s:
                    work.cancel()
                    return None
                time.sleep(_PAUSE_S)  # noqa: ASYNC251 this loop is the shadow's own: holding it is the point
            await asyncio.sleep(0)
        return work.result()

    def _impressions(self, run: Run, ranked: Ranked) -> list[Impression]:
        release = run.release.release_id if run.release else None
        shown_at = self._clock.now()
        ids = ranked.pool.people.user_ids
        shown = ranked.order[: run.request.limit]
        return [
            Impression(
                run.request_id,
                run.user_id,
                int(ids[row]),
                place,
                float(ranked.score[row]),
                float(ranked.propensity[row]),
                found_by[0],
                release,
                SHADOW_VARIANT,
                self._strategy.level.value,
                shown_at,
            )
            for place, (row, found_by) in enumerate(zip(shown, ranked.pool.found.found_by(shown), strict=True), 1)
        ]

    def _answer(self, run: Run, offer: _Offer, shown: int, worked_s: float, failed: bool) -> Answered:  # noqa: FBT001
        """Return the row of a shadow: its time is that of its own work, for it waits while others are answered."""
        level = Level.EMPTY if failed else self._strategy.level
        return Answered(
            run.request_id,
            run.user_id,
            offer.experiment,
            SHADOW_VARIANT,
            SHADOW_VARIANT,
            offer.release.release_id,
            level.value,
            None,
            shown,
            round(worked_s * 1000, 3),
            False,
            failed,
            self._clock.now(),
        )

    def _count(self, outcome: str) -> None:
        self._metrics.shadow.labels(outcome).inc()
