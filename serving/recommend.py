"""The path of one request: who asks, candidates, filters, ranking, a last safety check, the answer.

Whatever fails, the answer gets worse in a named way and never unsafe: the ladder gives up relevance first, and without
Postgres to say who may be shown to whom the list is empty.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from feature_repo.population import Population
from infra.clock import Clock
from infra.metrics import ServingMetrics
from infra.settings import Settings
from registry.release import Release
from serving.answers import AnswerMetrics, Showing, envelope, impressions_of, order_of, shown_people
from serving.api_models import RecommendationRequest, Recommendations
from serving.errors import Degraded, EligibilityUnknown, LevelUnavailable
from serving.experiments.assignment import Assignment, Variant
from serving.impressions import Impression
from serving.levels import Strategy
from serving.people_store import PeopleStore
from serving.pool import Ranked, Requester
from serving.reasons import Level, Reason
from serving.recent_likes import RecentLikes
from serving.resilience.deadline import Deadline
from serving.run import Run
from serving.stages.requester import FeatureReader, read_requester
from serving.stages.safety import only_safe


@dataclass(frozen=True)
class World:
    """What a request captures once: releases (or why there is none), the population, and what goes with it.

    `since` is a moment of the database before which no row of the population was read; None when it is not known.
    """

    release: Release | None
    no_release: Degraded | None
    population: Population | None
    recent_likes: RecentLikes
    slots: Mapping[str, int]
    since: datetime | None = None
    challenger: Release | None = None


def champion_only(user_id: int, override: Variant | None) -> Assignment:
    """Assign everybody to the champion: there is no experiment."""
    del user_id, override
    return Assignment(Variant.CHAMPION)


class Recommender:
    """Answers requests; one instance serves a process.

    `assign` says which arm answers whom. `ranked` is told of each answer that was ranked, with who asked and the arm:
    it must return at once.
    """

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
        assign: Callable[[int, Variant | None], Assignment] = champion_only,
        ranked: Callable[[Run, Requester, Assignment], None] | None = None,
    ) -> None:
        self._settings = settings
        self._people = people
        self._features = features
        self._world = world
        self._ladder = ladder
        self._log_impressions = log_impressions
        self._metrics = AnswerMetrics(metrics)
        self._clock = clock
        self._assign = assign
        self._ranked = ranked

    async def recommend(
        self,
        request: RecommendationRequest,
        request_id: UUID,
        *,
        deadline: Deadline | None = None,
        variant: Variant | None = None,
    ) -> Recommendations:
        """Return the ranked list by the deadline; raises UnknownUser, and nothing else for any dependency that fails.

        `request_id` must be new: what is shown is logged under it. Without a `deadline` the settings give one;
        `variant` overrides the arm of the experiment.
        """
        world = self._world()
        assignment = self._assign(request.user_id, variant)
        if assignment.variant is Variant.CHALLENGER and world.challenger is None:
            assignment = replace(assignment, variant=Variant.CHAMPION)
        run = self._begin(request, request_id, world, assignment, deadline)
        try:
            async with asyncio.timeout(run.deadline.remaining_s()):
                showing = await self._make(run, assignment)
        except EligibilityUnknown as error:
            showing = self._nobody(run, assignment, error)
        except TimeoutError:
            late = EligibilityUnknown(
                Reason.DEADLINE_EXCEEDED, "There was no time left to check who can be shown safely."
            )
            showing = self._nobody(run, assignment, late)
        if showing.items:
            self._log_impressions(impressions_of(run, showing, self._clock.now()))
        self._metrics.observe(run, showing)
        return envelope(run, showing)

    async def _make(self, run: Run, assignment: Assignment) -> Showing:
        requester = await read_requester(run, self._people, self._features)
        level, ranked = await self._climb_down(run, requester)
        since = None if level is Level.RANDOM else run.since
        checked = await only_safe(run, self._people, requester, ranked, since)
        if self._ranked is not None:
            self._ranked(run, requester, assignment)
        return Showing(
            level,
            assignment,
            run.release.release_id if run.release else None,
            order_of(run.release, level),
            shown_people(ranked, checked.rows, explain=run.request.explain),
            ranked.propensity[checked.rows].tolist(),
        )

    async def _climb_down(self, run: Run, requester: Requester) -> tuple[Level, Ranked]:
        for strategy in self._ladder:
            try:
                return strategy.level, await strategy.rank(run, requester)
            except LevelUnavailable as error:
                run.step_down(error)
        raise EligibilityUnknown(Reason.POPULATION_UNAVAILABLE, "No level could answer.")

    def _begin(
        self,
        request: RecommendationRequest,
        request_id: UUID,
        world: World,
        assignment: Assignment,
        deadline: Deadline | None,
    ) -> Run:
        challenged = assignment.variant is Variant.CHALLENGER
        return Run(
            request=request,
            request_id=request_id,
            release=world.challenger if challenged else world.release,
            no_release=None if challenged else world.no_release,
            population=world.population,
            recent_likes=world.recent_likes,
            slots=world.slots,
            since=world.since,
            at=self._clock.now().timestamp(),
            started_s=self._clock.monotonic(),
            deadline=deadline or Deadline.after(self._settings.serving.deadline_ms / 1000, self._clock),
            clock=self._clock,
        )

    def _nobody(self, run: Run, assignment: Assignment, why: EligibilityUnknown) -> Showing:
        run.step_down(why)
        release = run.release.release_id if run.release else None
        return Showing(Level.EMPTY, assignment, release, None, [], [])
