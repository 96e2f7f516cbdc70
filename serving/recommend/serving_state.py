"""What the answers of a process are made of now, and how each of them begins."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import numpy as np

from feature_repo.population.population import Population
from infra.clock import Clock
from infra.settings import Settings
from registry.release import Release
from registry.scoring.newcomers import Newcomers
from registry.scoring.recent_likes import RecentLikes
from serving.api.recommendation_models import ListRequest
from serving.errors import Degraded
from serving.experiments.assignment import Assignment, Variant
from serving.recommend.answer_run import Run
from serving.recommend.paging import NOBODY, shown_before
from serving.resilience.deadline import Deadline


@dataclass(frozen=True)
class ServingState:
    """What a request captures once: releases (or why there is none), the population, and what goes with it.

    `since` is a moment of the database before which no row of the population was read; None when it is not known.
    `newcomers` are those of each release, by its mark. `features_lost` says that people may lack their features.
    """

    release: Release | None
    no_release: Degraded | None
    population: Population | None
    recent_likes: RecentLikes
    slots: Mapping[str, int]
    since: datetime | None = None
    challenger: Release | None = None
    no_challenger: str = "No release is in Staging."
    newcomers: Mapping[str, Newcomers] = field(default_factory=dict)
    features_lost: bool = False


def begin(
    state: ServingState,
    request: ListRequest,
    request_id: UUID,
    assignment: Assignment,
    *,
    deadline: Deadline | None,
    settings: Settings,
    clock: Clock,
) -> Run:
    """Return the run of an answer that begins now; without a `deadline` the settings give one."""
    challenged = assignment.variant is Variant.CHALLENGER
    before = NOBODY if request.cursor is None else shown_before(request.cursor)
    return Run(
        request=request,
        request_id=request_id,
        release=state.challenger if challenged else state.release,
        no_release=None if challenged else state.no_release,
        variant=assignment.variant,
        champion=state.release if challenged else None,
        population=state.population,
        recent_likes=state.recent_likes,
        slots=state.slots,
        since=state.since,
        newcomers=state.newcomers,
        features_lost=state.features_lost,
        before=before,
        unwanted=before if request.exclude is None else np.concatenate([before, request.exclude]),
        at=clock.now().timestamp(),
        started_s=clock.monotonic(),
        deadline=deadline or Deadline.after(settings.serving.deadline_ms / 1000, clock),
        clock=clock,
    )
