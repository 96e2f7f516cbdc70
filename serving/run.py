"""The record of one answer being made: timings, what was degraded, the deadline, and what it captured once.

A release and a population are captured when the run begins, so a swap in the middle never mixes two of them.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from feature_repo.population import Population
from infra.clock import Clock
from infra.errors import DuetError
from registry.release import Release
from serving.api_models import RecommendationRequest
from serving.errors import Degraded, LevelUnavailable
from serving.reasons import Reason, Stage
from serving.recent_likes import RecentLikes

SAFETY_RESERVE_S = 0.05
_log = structlog.get_logger(__name__)


async def breathe() -> None:
    """Let other requests have the event loop: between steps of computing, so that none of them holds it for long."""
    await asyncio.sleep(0)


@dataclass
class Run:
    """One recommendation under way; `at` is unix seconds, `deadline_s` monotonic seconds."""

    request: RecommendationRequest
    request_id: UUID
    release: Release | None
    population: Population | None
    at: float
    started_s: float
    deadline_s: float
    clock: Clock
    recent_likes: RecentLikes = field(default_factory=RecentLikes.nobody)
    no_release: Degraded | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    degraded: list[str] = field(default_factory=list)
    first_step_down: Degraded | None = None

    def remaining_s(self) -> float:
        """Return the seconds left for relevance: until the deadline, less what safety needs; 0 when they are over."""
        return max(self.deadline_s - SAFETY_RESERVE_S - self.clock.monotonic(), 0.0)

    def safety_s(self) -> float:
        """Return the seconds left for the safety check: late or not, an answer needs one."""
        return max(self.deadline_s - self.clock.monotonic(), SAFETY_RESERVE_S)

    @contextmanager
    def stage(self, stage: Stage, fails_as: Reason | None = None) -> Iterator[None]:
        """Time a stage; with `fails_as`, whatever goes wrong in it makes this level unavailable."""
        began = self.clock.monotonic()
        try:
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

    def degrade(self, stage: Stage) -> None:
        """Note that a stage did without something."""
        if stage.value not in self.degraded:
            self.degraded.append(stage.value)

    def step_down(self, why: Degraded) -> None:
        """Remember the first reason for leaving a level: that is the one the answer names."""
        if self.first_step_down is None:
            self.first_step_down = why

    def total_ms(self) -> float:
        """Return the milliseconds since the run began."""
        return round((self.clock.monotonic() - self.started_s) * 1000, 3)
