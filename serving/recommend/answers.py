"""What an answer is made of: people as the API shows them, the envelope, what is logged and what is counted.

`Answer` and `Shown` have the fields of `models.Recommendations` and `RecommendedPerson`, which describe them to
clients. They are plain, because building a checked model for every person shown costs more than all else here.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, Literal, TypeVar
from uuid import UUID

from infra.metrics import ServingMetrics
from registry.release import Release
from serving.api.models import MAX_LIMIT
from serving.api.recommendation_models import Explanation, OrderName
from serving.experiments.assignment import Assignment, Variant
from serving.logs.impressions import Answered, Impression
from serving.reasons import Level, Reason, Stage
from serving.recommend.answer_run import Run
from serving.recommend.paging import cursor_after
from serving.recommend.pool import Int64, Ranked
from serving.recommend.stages.explaining import by_chance

_LEVELS: Final[dict[Level, tuple[Literal[1, 2, 3, 4], Literal["full", "content", "random", "empty"]]]] = {
    Level.FULL: (1, "full"),
    Level.CONTENT: (2, "content"),
    Level.RANDOM: (3, "random"),
    Level.EMPTY: (4, "empty"),
}


@dataclass(slots=True)  # frozen ones take three times as long to make
class Shown:
    """One person of an answer; `sources` are names of `reasons.CandidateSource`."""

    user_id: int
    position: int
    score: float
    p_like: float | None
    p_liked_back: float | None
    sources: tuple[str, ...]
    explored: bool
    explanation: Explanation | None = None

    def at(self, position: int) -> "Shown":
        """Return the same person at a position."""
        if position == self.position:
            return self
        return replace(self, position=position)


@dataclass(slots=True)
class Answer:
    """A ranked list of people, and how it was made."""

    items: list[Shown]
    release: str | None
    variant: Variant
    experiment: str | None
    cached: bool
    order: OrderName | None
    level: int
    level_name: str
    reason: Reason | None
    message: str | None
    next: str | None
    degraded: list[str]
    timings_ms: dict[str, float]
    request_id: UUID


@dataclass(frozen=True)
class Showing:
    """People to be shown and what is logged of it: `propensities` are aligned with `items`."""

    level: Level
    assignment: Assignment
    release: str | None
    order: OrderName | None
    items: list[Shown]
    propensities: list[float]
    cached: bool = False


def shown_people(ranked: Ranked, rows: Int64, *, explain: bool) -> list[Shown]:
    """Return the people at `rows` of the pool, in that order, as the API shows them."""
    explanations = ranked.explain(rows) if explain and ranked.explain is not None and len(rows) else [None] * len(rows)
    ids = ranked.pool.people.user_ids[rows].tolist()
    score = ranked.score[rows].tolist()
    p_like = [None] * len(rows) if ranked.p_like is None else ranked.p_like[rows].tolist()
    p_liked_back = [None] * len(rows) if ranked.p_liked_back is None else ranked.p_liked_back[rows].tolist()
    sources = ranked.pool.found.found_by(rows)
    explored = [False] * len(rows) if ranked.explored is None else ranked.explored[rows].tolist()
    columns = zip(ids, score, p_like, p_liked_back, sources, explored, explanations, strict=True)
    return [
        # Those beyond the highest place are spare, and get another place when they are shown.
        Shown(user_id, min(place, MAX_LIMIT), points, like, back, found_by, chosen, _of_place(explanation, chosen))
        for place, (user_id, points, like, back, found_by, chosen, explanation) in enumerate(columns, 1)
    ]


def _of_place(explanation: Explanation | None, explored: bool) -> Explanation | None:  # noqa: FBT001 one column of many
    return by_chance(explanation) if explored and explanation is not None else explanation


def order_of(release: Release | None, level: Level) -> OrderName | None:
    """Return what the score of an answer is; None below level 1."""
    if release is None or level is not Level.FULL:
        return None
    return release.ranker.order.value


def envelope(run: Run, showing: Showing) -> Answer:
    """Return the answer to a run."""
    why = run.first_step_down
    number, name = _LEVELS[showing.level]
    return Answer(
        items=showing.items,
        release=showing.release,
        variant=showing.assignment.variant,
        experiment=showing.assignment.experiment,
        order=showing.order,
        level=number,
        level_name=name,
        reason=why.reason if why else None,
        message=str(why) if why else None,
        next=cursor_after(run.before, [item.user_id for item in showing.items], run.request.limit),
        degraded=run.degraded,
        cached=showing.cached,
        timings_ms={**run.timings_ms, "total": run.total_ms()},
        request_id=run.request_id,
    )


def impressions_of(run: Run, showing: Showing, shown_at: datetime) -> list[Impression]:
    """Return what is logged of an answer."""
    release = showing.release if showing.level is Level.FULL else None
    variant, level = showing.assignment.variant.value, showing.level.value
    user_id, request_id = run.user_id, run.request_id
    return [
        Impression(
            request_id,
            user_id,
            item.user_id,
            item.position,
            item.score,
            propensity,
            item.sources[0],
            release,
            variant,
            level,
            shown_at,
        )
        for item, propensity in zip(showing.items, showing.propensities, strict=True)
    ]


def answered(run: Run, showing: Showing, assigned: Assignment, at: datetime) -> Answered:
    """Return the row that is logged of an answer."""
    why = run.first_step_down
    return Answered(
        run.request_id,
        run.user_id,
        assigned.experiment,
        assigned.variant.value,
        showing.assignment.variant.value,
        showing.release,
        showing.level.value,
        why.reason.value if why is not None else None,
        len(showing.items),
        run.total_ms(),
        showing.cached,
        False,
        at,
    )


def failure(run: Run, assigned: Assignment, at: datetime) -> Answered:
    """Return the row that is logged of an answer that was cut off, or that an unforeseen error took away."""
    nobody = Showing(
        Level.EMPTY, Assignment(run.variant), run.release.release_id if run.release else None, None, [], []
    )
    return answered(run, nobody, assigned, at)._replace(failed=True)


Metric = TypeVar("Metric")


class AnswerMetrics:
    """Counts answers; looks each labelled series up once, because that costs more than counting."""

    def __init__(self, metrics: ServingMetrics) -> None:
        self._items = metrics.answer_items
        self._answers = _series(metrics.answers)
        self._stages = _series(metrics.stage_seconds)
        self._degraded = _series(metrics.stage_degraded)
        for stage in Stage:
            self._degraded(stage.value)  # the series is there before anything is degraded
        self._candidates = _series(metrics.candidates)
        self._predictions = _series(metrics.predictions)
        self._variants = _series(metrics.assignments)

    def observe(self, run: Run, showing: Showing) -> None:
        """Count one answer."""
        reason = run.first_step_down.reason.value if run.first_step_down else "none"
        self._answers(showing.level.label, reason).inc()
        self._variants(showing.assignment.variant.value).inc()
        self._items.observe(len(showing.items))
        for stage, spent_ms in run.timings_ms.items():
            self._stages(stage).observe(spent_ms / 1000)
        for stage in run.degraded:
            self._degraded(stage).inc()
        for step, people in run.candidates.items():
            self._candidates(step).observe(people)
        for item in showing.items[:1]:
            if item.p_like is not None and item.p_liked_back is not None:
                self._predictions("p_like").observe(item.p_like)
                self._predictions("p_liked_back").observe(item.p_liked_back)


def _series(metric: Any) -> Callable[..., Any]:
    # Bounded by the closed sets of labels.
    return lru_cache(maxsize=None)(metric.labels)
