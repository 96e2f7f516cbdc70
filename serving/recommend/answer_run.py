"""The record of one answer being made: timings, what was degraded, the deadline, and what it captured once.

A release and a population are captured when the run begins, so a swap in the middle never mixes two of them.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NoReturn
from uuid import UUID

import structlog

from feature_repo.population.population import Population
from infra import tracing
from infra.clock import Clock
from infra.errors import DuetError
from registry.release import Release
from registry.scoring.newcomers import Newcomers
from registry.scoring.recent_likes import RecentLikes
from serving.api.recommendation_models import ListRequest, RecommendationRequest
from serving.errors import Degraded, LevelUnavailable
from serving.experiments.assignment import Variant
from serving.reasons import Reason, Stage
from serving.recommend.paging import NOBODY, Int64
from serving.resilience.deadline import Deadline

SAFETY_SHARE: Final = 0.2
"""Of the whole budget, what is kept back for the last check of safety."""
GUEST: Final = 0
"""What stands for the id of whoever has none."""
SHARES: Final[Mapping[Stage, float]] = {
    # Nothing can be shown without it, but a lower level must have a moment left when it comes late.
    Stage.ELIGIBILITY: 0.8,
    Stage.FEATURES: 0.4,
    Stage.CACHE: 0.1,
    Stage.RETRIEVAL: 0.5,
    Stage.RANKING: 0.7,
}
"""Of what is left for relevance when a stage begins, what it may take before the next level tries."""
_log = structlog.get_logger(__name__)


async def breathe() -> None:
    """Let other requests have the event loop: between steps of computing, so that none of them holds it for long."""
    await asyncio.sleep(0)


@dataclass
class Run:
    """One recommendation under way; `at` is unix seconds, `started_s` monotonic seconds.

    `since` is a moment of the database: whose row changed after it may differ from the population's. `champion` is
    whose release answers when the challenger's fails. `newcomers` are by mark of the release, `candidates` by step.
    `late` says whether something was done without that more time might have brought. `before` are the people of the
    pages before this one, `unwanted` all whom the request leaves out, ids int64.
    """

    request: ListRequest
    request_id: UUID
    release: Release | None
    population: Population | None
    at: float
    started_s: float
    deadline: Deadline
    clock: Clock
    recent_likes: RecentLikes = field(default_factory=RecentLikes.nobody)
    slots: Mapping[str, int] = field(default_factory=dict)
    since: datetime | None = None
    no_release: Degraded | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    degraded: list[str] = field(default_factory=list)
    late: bool = False
    candidates: dict[str, int] = field(default_factory=dict)
    first_step_down: Degraded | None = None
    variant: Variant = Variant.CHAMPION
    champion: Release | None = None
    newcomers: Mapping[str, Newcomers] = field(default_factory=dict)
    features_lost: bool = False
    before: Int64 = field(default_factory=lambda: NOBODY)
    unwanted: Int64 = field(default_factory=lambda: NOBODY)

    def __post_init__(self) -> None:
        self._reserve_s = self.deadline.remaining_s() * SAFETY_SHARE

    @property
    def user_id(self) -> int:
        """Return whose answer this is; 0 for a guest."""
        return self.request.user_id if isinstance(self.request, RecommendationRequest) else GUEST

    def remaining_s(self) -> float:
        """Return the seconds left for relevance: until the deadline, less what safety needs; 0 when they are over."""
        return max(self.deadline.remaining_s() - self._reserve_s, 0.0)

    def share_s(self, stage: Stage) -> float:
        """Return the seconds that a stage which begins now may take."""
        return self.remaining_s() * SHARES[stage]

    def safety_s(self) -> float:
        """Return the seconds left for the check of safety."""
        return self.deadline.remaining_s()

    @contextmanager
    def stage(self, stage: Stage, fails_as: Reason | None = None) -> Iterator[None]:
        """Time a stage; with `fails_as`, whatever goes wrong in it makes this level unavailable."""
        began = self.clock.monotonic()
        try:
            with tracing.span(stage.value):
                yield
        except Degraded:
            raise
        except Exception as error:
            if fails_as is None:
                raise
            # A model or an index may fail in any way it likes: the answer gets worse, and the log says why.
            _log.warning("stage_failed", stage=stage.value, exc_info=error)
            self.degrade(stage)
            what = str(error) if isinstance(error, DuetError) else type(error).__name__
            raise LevelUnavailable(fails_as, f"The {stage.value} stage failed: {what}") from error
        finally:
            spent = (self.clock.monotonic() - began) * 1000
            self.timings_ms[stage.value] = round(self.timings_ms.get(stage.value, 0.0) + spent, 3)

    @asynccontextmanager
    async def timely(self, stage: Stage, fails_as: Reason | None = None) -> AsyncIterator[None]:
        """Time a stage and end it when its share of the time is over: then this level is unavailable.

        A step of computing cannot be interrupted: it ends at the next `breathe`.
        """
        limit_s = self.share_s(stage)
        with self.stage(stage, fails_as):
            if not limit_s:
                self._late(stage)
            try:
                async with asyncio.timeout(limit_s) as timer:
                    yield
            except TimeoutError:
                if not timer.expired():
                    raise
                self._late(stage)

    def _late(self, stage: Stage) -> NoReturn:
        self.degrade(stage, late=True)
        raise LevelUnavailable(Reason.DEADLINE_EXCEEDED, f"There was no time left for {stage.value}.")

    def degrade(self, stage: Stage, *, late: bool = False) -> None:
        """Note that a stage did without something; `late` when more time might have been enough."""
        self.late |= late
        if stage.value not in self.degraded:
            self.degraded.append(stage.value)

    def step_down(self, why: Degraded) -> None:
        """Remember the first reason for leaving a level: that is the one the answer names."""
        if self.first_step_down is None:
            self.first_step_down = why

    def give_up_challenger(self, why: LevelUnavailable) -> None:
        """Go on with the champion's release, and say why; raises `why` where there is nothing to go on with."""
        if self.champion is None or why.reason is Reason.POPULATION_UNAVAILABLE:
            raise why
        self.step_down(LevelUnavailable(Reason.CHALLENGER_FAILED, f"The challenger gave way to the champion: {why}"))
        self.degrade(Stage.EXPERIMENT)
        self.release, self.champion, self.variant = self.champion, None, Variant.CHAMPION

    def total_ms(self) -> float:
        """Return the milliseconds since the run began."""
        return round((self.clock.monotonic() - self.started_s) * 1000, 3)
