"""The path of one request: who asks, candidates, filters, ranking, a last safety check, the answer.

Whatever fails, the answer gets worse in a named way and never unsafe: the ladder gives up relevance first, and without
Postgres to say who may be shown to whom the list is empty.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID

import numpy as np

from feature_repo.population.population import Population
from infra.clock import Clock
from infra.metrics import ServingMetrics
from infra.settings import Settings
from registry.release import Release
from registry.scoring.newcomers import Newcomers
from registry.scoring.recent_likes import RecentLikes
from serving.api.recommendation_models import Filters, RecommendationRequest
from serving.cache.answer_cache import AnswerCache, CacheLook, Made, Tier, keepable
from serving.cache.entry import Entry
from serving.cache.reshow import reshow
from serving.errors import ApiError, Degraded, EligibilityUnknown, LevelUnavailable
from serving.experiments.assignment import Assignment, Variant
from serving.logs.impressions import Answered, Impression
from serving.people.people_store import PeopleStore
from serving.reasons import Level, Reason, Stage
from serving.recommend.answer_run import Run
from serving.recommend.answers import (
    Answer,
    AnswerMetrics,
    Showing,
    answered,
    envelope,
    failure,
    impressions_of,
    order_of,
    shown_people,
)
from serving.recommend.levels import Strategy
from serving.recommend.paging import NOBODY, shown_before
from serving.recommend.pool import KnownRequester, Ranked
from serving.recommend.stages.filtering import refuse_unknown
from serving.recommend.stages.requester import FeatureReader, read_requester
from serving.recommend.stages.safety import Checked, asked_at_once, only_safe
from serving.resilience.deadline import Deadline

LEAD_SHARE: Final = 0.5
"""Of the usual budget, what a request must have left to make an answer that others wait for too."""

_AGAIN: Final = 2.0
"""How many times the time spent so far must be left for choosing once more."""


@dataclass(frozen=True)
class ServingState:
    """What a request captures once: releases (or why there is none), the population, and what goes with it.

    `since` is a moment of the database before which no row of the population was read; None when it is not known.
    `newcomers` are those of each release, by its id. `features_lost` says that people may lack their features.
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


@dataclass(frozen=True)
class _Chosen:
    level: Level
    ranked: Ranked
    since: datetime | None
    checked: Checked


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
        world: Callable[[], ServingState],
        ladder: Sequence[Strategy],
        log_impressions: Callable[[list[Impression]], None],
        log_answers: Callable[[list[Answered]], None],
        metrics: ServingMetrics,
        clock: Clock,
        assign: Callable[[int, Variant | None], Assignment] = champion_only,
        ranked: Callable[[Run, KnownRequester, Assignment], None] | None = None,
        cache: AnswerCache | None = None,
    ) -> None:
        self._settings = settings
        self._people = people
        self._features = features
        self._world = world
        self._ladder = ladder
        self._log_impressions = log_impressions
        self._log_answers = log_answers
        self._metrics = AnswerMetrics(metrics)
        self._clock = clock
        self._assign = assign
        self._ranked = ranked
        self._cache = cache
        self._lead_s = settings.serving.deadline_ms / 1000 * LEAD_SHARE

    async def recommend(
        self,
        request: RecommendationRequest,
        request_id: UUID,
        *,
        deadline: Deadline | None = None,
        variant: Variant | None = None,
    ) -> Answer:
        """Return the ranked list by the deadline; raises UnknownUser, and nothing else for any dependency that fails.

        `request_id` must be new: what is shown is logged under it. Without a `deadline` the settings give one;
        `variant` overrides the arm of the experiment.
        """
        world = self._world()
        self.refuse_unknown(request.filters)
        assigned = assignment = self._assign(request.user_id, variant)
        if variant is not None:
            assigned = replace(assigned, experiment=None)  # a tester's choice is nobody's assignment
        absent = assignment.variant is Variant.CHALLENGER and world.challenger is None
        if absent:
            assignment = replace(assignment, variant=Variant.CHAMPION)
        run = self._begin(request, request_id, world, assignment, deadline)
        try:
            async with asyncio.timeout(run.deadline.remaining_s()):
                showing = await self._answer(run, assignment)
        except EligibilityUnknown as error:
            showing = self._nobody(run, assignment, error)
        except TimeoutError:
            showing = self._nobody(run, assignment, _too_late())
        except ApiError:
            raise
        except asyncio.CancelledError:
            # The request checks gave up: without a row, an experiment would only see the answers of an arm that came.
            run.step_down(_too_late())
            self._log_answers([failure(run, assigned, self._clock.now())])
            raise
        except Exception:
            self._log_answers([failure(run, assigned, self._clock.now())])
            raise
        if absent:
            # Only now: a missing challenger is no reason to keep the champion's answer out of the cache.
            run.degrade(Stage.EXPERIMENT)
            run.step_down(LevelUnavailable(Reason.CHALLENGER_UNAVAILABLE, world.no_challenger))
        now = self._clock.now()
        if showing.items:
            self._log_impressions(impressions_of(run, showing, now))
        self._log_answers([answered(run, showing, assigned, now)])
        self._metrics.observe(run, showing)
        return envelope(run, showing)

    def refuse_unknown(self, filters: Filters | None) -> None:
        """Raise InvalidRequest where a filter names an attribute that nobody has; nothing before people are loaded."""
        world = self._world()
        if world.population is not None:
            refuse_unknown(filters, world.slots)

    async def _answer(self, run: Run, assignment: Assignment) -> Showing:
        cache = self._cache
        if cache is None or run.release is None or run.request.explain or len(run.unwanted):
            return (await self._make(run, assignment)).showing
        key = cache.key_of(run, run.release, assignment.variant)
        kept = cache.recall(run, key)
        if kept is not None and (again := await self._reshow(run, assignment, kept, Tier.MEMORY)):
            return again
        made = await self._made_for_all(run, assignment, cache, key)
        if made.run is run:
            return made.showing
        again = await self._reshow(run, made.showing.assignment, made.entry, Tier.FLIGHT)
        if again is None:
            return (await self._make(run, assignment)).showing
        run.degraded.extend(made.run.degraded)
        if made.run.first_step_down is not None:
            run.step_down(made.run.first_step_down)
        return again

    async def _made_for_all(self, run: Run, assignment: Assignment, cache: AnswerCache, key: str) -> Made:
        """Return the answer that is being made for this person, or make it; `run` tells whose it is."""
        user_id = run.request.user_id
        while True:
            follows = (user_id, key) in cache.flights
            if not follows and run.deadline.remaining_s() < self._lead_s:
                # Whoever has little time must not make the others' answer: theirs would be of a lower level.
                return await self._make(run, assignment)
            try:
                with run.stage(Stage.CACHE) if follows else nullcontext():
                    made = await cache.flights.join(user_id, key, lambda: self._lead(run, assignment, cache, key))
            except EligibilityUnknown as error:
                if not (follows and error.late):
                    raise
                continue  # the one who began ran out of time, which says nothing of the time that is left here
            if not (follows and made.hurried and run.deadline.at_s > made.run.deadline.at_s):
                return made

    async def _lead(self, run: Run, assignment: Assignment, cache: AnswerCache, key: str) -> Made:
        try:
            async with asyncio.timeout(run.deadline.remaining_s()):
                kept = await cache.fetch(run, key)
                if kept is not None and (again := await self._reshow(run, assignment, kept, Tier.REDIS)):
                    cache.remember(key, kept)
                    return Made(run, again, kept)
                made = await self._make(run, assignment)
        except TimeoutError:
            raise _too_late() from None
        if made.steady and made.showing.items and keepable(run, made.showing.level):
            cache.share(key, made.entry)
        return made

    async def _reshow(self, run: Run, assignment: Assignment, entry: Entry, tier: Tier) -> Showing | None:
        reshown = await reshow(run, self._people, entry)
        if self._cache is not None:
            self._cache.note(tier, reshown.look)
            if reshown.look is CacheLook.STALE and tier is Tier.MEMORY:
                self._cache.drop(entry)
        if reshown.look is not CacheLook.HIT:
            return None
        return Showing(
            entry.level, assignment, entry.release, entry.order, reshown.items, reshown.propensities, cached=True
        )

    async def _make(self, run: Run, assignment: Assignment) -> Made:
        requester = await read_requester(run, self._people, self._features)
        chosen = await self._choose(run, requester)
        if requester.replicated and not chosen.checked.steady:
            requester, chosen = await self._choose_again(run, requester, chosen)
        level, ranked, since, checked = chosen.level, chosen.ranked, chosen.since, chosen.checked
        if self._ranked is not None:
            self._ranked(run, requester, assignment)
        limit, release = run.request.limit, run.release.release_id if run.release else None
        spare = checked.spare[: asked_at_once(limit) - limit] if self._cache is not None else checked.spare[:0]
        rows = np.concatenate([checked.rows, spare])
        items = shown_people(ranked, rows, explain=run.request.explain)
        propensities = ranked.propensity[rows].tolist()
        n = len(checked.rows)
        order = order_of(run.release, level)
        entry = Entry(
            requester,
            level,
            release,
            order,
            tuple(items),
            tuple(propensities),
            since,
            run.at,
            self._cache.expires_at(run.at) if self._cache is not None else run.at,
        )
        assignment = replace(assignment, variant=run.variant)
        return Made(run, Showing(level, assignment, release, order, items[:n], propensities[:n]), entry, checked.steady)

    async def _choose(self, run: Run, requester: KnownRequester) -> _Chosen:
        level, ranked = await self._climb_down(run, requester)
        since = None if level is Level.RANDOM else run.since
        checked = await only_safe(run, self._people, requester, ranked, since)
        run.candidates |= {"retrieved": len(ranked.pool), "safe": len(checked.rows)}
        return _Chosen(level, ranked, since, checked)

    async def _choose_again(
        self, run: Run, requester: KnownRequester, chosen: _Chosen
    ) -> tuple[KnownRequester, _Chosen]:
        """Choose by what the primary knows of the requester: the replica was behind what they did."""
        if run.remaining_s() > _AGAIN * run.total_ms() / 1000:
            with suppress(EligibilityUnknown):
                now = await read_requester(run, self._people, self._features, fresh=True)
                return now, await self._choose(run, now)
        # Those chosen first are safe, only not by the newest taste: better than nobody.
        run.degrade(Stage.ELIGIBILITY)
        return requester, chosen

    async def _climb_down(self, run: Run, requester: KnownRequester) -> tuple[Level, Ranked]:
        for strategy in self._ladder:
            try:
                return strategy.level, await self._by(strategy, run, requester)
            except LevelUnavailable as error:
                run.step_down(error)
        raise EligibilityUnknown(Reason.POPULATION_UNAVAILABLE, "No level could answer.")

    async def _by(self, strategy: Strategy, run: Run, requester: KnownRequester) -> Ranked:
        """Rank on a level, and once more with the champion's release when the challenger's fails on it."""
        try:
            return await strategy.rank(run, requester)
        except LevelUnavailable as error:
            run.give_up_challenger(error)
        return await strategy.rank(run, requester)

    def _begin(
        self,
        request: RecommendationRequest,
        request_id: UUID,
        world: ServingState,
        assignment: Assignment,
        deadline: Deadline | None,
    ) -> Run:
        challenged = assignment.variant is Variant.CHALLENGER
        before = NOBODY if request.cursor is None else shown_before(request.cursor)
        return Run(
            request=request,
            request_id=request_id,
            release=world.challenger if challenged else world.release,
            no_release=None if challenged else world.no_release,
            variant=assignment.variant,
            champion=world.release if challenged else None,
            population=world.population,
            recent_likes=world.recent_likes,
            slots=world.slots,
            since=world.since,
            newcomers=world.newcomers,
            features_lost=world.features_lost,
            before=before,
            unwanted=before if request.exclude is None else np.concatenate([before, request.exclude]),
            at=self._clock.now().timestamp(),
            started_s=self._clock.monotonic(),
            deadline=deadline or Deadline.after(self._settings.serving.deadline_ms / 1000, self._clock),
            clock=self._clock,
        )

    def _nobody(self, run: Run, assignment: Assignment, why: EligibilityUnknown) -> Showing:
        run.step_down(why)
        release = run.release.release_id if run.release else None
        return Showing(Level.EMPTY, replace(assignment, variant=run.variant), release, None, [], [])


def _too_late() -> EligibilityUnknown:
    return EligibilityUnknown(
        Reason.DEADLINE_EXCEEDED, "There was no time left to check who can be shown safely.", late=True
    )
