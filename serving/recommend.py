"""The path of one request: who asks, candidates, filters, ranking, a last safety check, the answer.

Whatever fails, the answer gets worse in a named way and never unsafe: the ladder gives up relevance first, and without
Postgres to say who may be shown to whom the list is empty.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast
from uuid import UUID

from feature_repo.population import Population
from infra.clock import Clock
from infra.metrics import ServingMetrics
from infra.settings import Settings
from registry.ranker import Order
from registry.release import Release
from serving.api_models import RecommendationRequest, Recommendations, RecommendedPerson
from serving.errors import Degraded, EligibilityUnknown, LevelUnavailable
from serving.impressions import Impression
from serving.levels import Strategy
from serving.people_store import PeopleStore
from serving.pool import Int64, Ranked, Requester
from serving.reasons import Level, Reason
from serving.recent_likes import RecentLikes
from serving.run import Run
from serving.stages.requester import FeatureReader, read_requester
from serving.stages.safety import only_safe

VARIANT: Literal["champion"] = "champion"


@dataclass(frozen=True)
class World:
    """What a request captures once: a release (or why there is none), the population, and what goes with it."""

    release: Release | None
    no_release: Degraded | None
    population: Population | None
    recent_likes: RecentLikes
    slots: Mapping[str, int]


class Recommender:
    """Answers requests; one instance serves a process."""

    def __init__(
        self,
        *,
        settings: Settings,
        people: PeopleStore,
        features: FeatureReader,
        world: Callable[[], World],
        ladder: Sequence[Strategy],
        log_impressions: Callable[[list[Impression]], None],
        metrics: ServingMetrics,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._people = people
        self._features = features
        self._world = world
        self._ladder = ladder
        self._log_impressions = log_impressions
        self._metrics = metrics
        self._clock = clock

    async def recommend(self, request: RecommendationRequest, request_id: UUID) -> Recommendations:
        """Return the ranked list; raises UnknownUser, and nothing else for any dependency that fails.

        `request_id` must be new: what is shown is logged under it.
        """
        world = self._world()
        run = self._begin(request, request_id, world)
        try:
            requester = await read_requester(run, self._people, self._features, world.slots)
            level, ranked = await self._climb_down(run, requester)
            rows = await only_safe(run, self._people, requester, ranked)
        except EligibilityUnknown as error:
            run.step_down(error)
            return self._finish(run, Level.EMPTY, [])
        items = _items(ranked, rows, explain=request.explain)
        self._log_impressions(self._impressions(run, level, items, ranked, rows))
        return self._finish(run, level, items)

    async def _climb_down(self, run: Run, requester: Requester) -> tuple[Level, Ranked]:
        for strategy in self._ladder:
            try:
                return strategy.level, await strategy.rank(run, requester)
            except LevelUnavailable as error:
                run.step_down(error)
        raise EligibilityUnknown(Reason.POPULATION_UNAVAILABLE, "No level could answer.")

    def _begin(self, request: RecommendationRequest, request_id: UUID, world: World) -> Run:
        now = self._clock.monotonic()
        return Run(
            request=request,
            request_id=request_id,
            release=world.release,
            no_release=world.no_release,
            population=world.population,
            recent_likes=world.recent_likes,
            at=self._clock.now().timestamp(),
            started_s=now,
            deadline_s=now + self._settings.serving.deadline_ms / 1000,
            clock=self._clock,
        )

    def _finish(self, run: Run, level: Level, items: list[RecommendedPerson]) -> Recommendations:
        why = run.first_step_down
        self._measure(run, level, items)
        return Recommendations(
            items=items,
            release=run.release.release_id if run.release else None,
            variant=VARIANT,
            order=_order(run, level),
            level=level.value,
            level_name=cast("Literal['full', 'content', 'random', 'empty']", level.label),
            reason=why.reason if why else None,
            message=str(why) if why else None,
            degraded=run.degraded,
            timings_ms={**run.timings_ms, "total": run.total_ms()},
            request_id=run.request_id,
        )

    def _measure(self, run: Run, level: Level, items: list[RecommendedPerson]) -> None:
        metrics = self._metrics
        reason = run.first_step_down.reason.value if run.first_step_down else "none"
        metrics.answers.labels(level.label, reason).inc()
        metrics.answer_items.observe(len(items))
        for stage, spent_ms in run.timings_ms.items():
            metrics.stage_seconds.labels(stage).observe(spent_ms / 1000)
        for stage in run.degraded:
            metrics.stage_degraded.labels(stage).inc()
        for item in items[:1]:
            if item.p_like is not None and item.p_liked_back is not None:
                metrics.predictions.labels("p_like").observe(item.p_like)
                metrics.predictions.labels("p_liked_back").observe(item.p_liked_back)

    def _impressions(
        self, run: Run, level: Level, items: list[RecommendedPerson], ranked: Ranked, rows: Int64
    ) -> list[Impression]:
        shown_at = self._clock.now()
        release = run.release.release_id if run.release and level is Level.FULL else None
        return [
            Impression(
                run.request_id,
                run.request.user_id,
                item.user_id,
                item.position,
                item.score,
                float(ranked.propensity[row]),
                item.sources[0].value,
                release,
                VARIANT,
                level.value,
                shown_at,
            )
            for item, row in zip(items, rows, strict=True)
        ]


def _order(run: Run, level: Level) -> Literal["ranker", "retrieval"] | None:
    if run.release is None or level is not Level.FULL:
        return None
    return "retrieval" if run.release.ranker.order is Order.RETRIEVAL else "ranker"


def _items(ranked: Ranked, rows: Int64, *, explain: bool) -> list[RecommendedPerson]:
    explanations = ranked.explain(rows) if explain and ranked.explain is not None and len(rows) else [None] * len(rows)
    ids = ranked.pool.people.user_ids
    return [
        RecommendedPerson(
            user_id=int(ids[row]),
            position=place,
            score=float(ranked.score[row]),
            p_like=None if ranked.p_like is None else float(ranked.p_like[row]),
            p_liked_back=None if ranked.p_liked_back is None else float(ranked.p_liked_back[row]),
            sources=ranked.pool.sources(int(row)),
            explanation=explanation,
        )
        for place, (row, explanation) in enumerate(zip(rows, explanations, strict=True), 1)
    ]
