"""The path of one request: who asks, candidates, filters, ranking, a last safety check, the answer.

Whatever fails, the answer gets worse in a named way and never unsafe: the ladder gives up relevance first, and without
Postgres to say who may be shown to whom the list is empty.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Final
from uuid import UUID

import numpy as np

from infra.clock import Clock
from infra.metrics import ServingMetrics
from infra.settings import Settings
from serving.api.recommendation_models import Filters, RecommendationRequest
from serving.cache.answer_cache import AnswerCache, CacheLook, Made, Tier, keepable
from serving.cache.entry import Entry
from serving.cache.reshow import reshow
from serving.errors import ApiError, EligibilityUnknown, LevelUnavailable
from serving.experiments.assignment import Assignment, Variant
from serving.logs.impressions import Answered, Impression
from serving.people.people_store import PeopleStore
from serving.reasons import Reason, Stage
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
from serving.recommend.choosing import Chosen, choose, nobody, too_late
from serving.recommend.levels import Strategy
from serving.recommend.pool import KnownRequester
from serving.recommend.serving_state import ServingState, begin
from serving.recommend.stages.filtering import refuse_unfit
from serving.recommend.stages.requester import FeatureReader, read_requester
from serving.recommend.stages.safety import asked_at_once
from serving.resilience.deadline import Deadline

LEAD_SHARE: Final = 0.5
"""Of the usual budget, what a request must have left to make an answer that others wait for too."""

_AGAIN: Final = 2.0
"""How many times the time spent so far must be left for choosing once more."""


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
        self.refuse_unfit(request.filters)
        assigned = assignment = self._assign(request.user_id, variant)
        if variant is not None:
            assigned = replace(assigned, experiment=None)  # a tester's choice is nobody's assignment
        absent = assignment.variant is Variant.CHALLENGER and world.challenger is None
        if absent:
            assignment = replace(assignment, variant=Variant.CHAMPION)
        run = begin(
            world, request, request_id, assignment, deadline=deadline, settings=self._settings, clock=self._clock
        )
        try:
            async with asyncio.timeout(run.deadline.remaining_s()):
                showing = await self._answer(run, assignment)
        except EligibilityUnknown as error:
            showing = nobody(run, assignment, error)
        except TimeoutError:
            showing = nobody(run, assignment, too_late())
        except ApiError:
            raise
        except asyncio.CancelledError:
            # The request checks gave up: without a row, an experiment would only see the answers of an arm that came.
            run.step_down(too_late())
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

    def refuse_unfit(self, filters: Filters | None) -> None:
        """Raise InvalidRequest where a filter asks attributes for what nobody has; nothing before people are loaded."""
        if filters is not None:
            world = self._world()
            refuse_unfit(filters, world.slots, world.population)

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
        user_id = run.user_id
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
            if not (follows and made.is_hurried_for(run)):
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
            raise too_late() from None
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
        chosen = await choose(run, self._people, self._ladder, requester)
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

    async def _choose_again(self, run: Run, requester: KnownRequester, chosen: Chosen) -> tuple[KnownRequester, Chosen]:
        """Choose by what the primary knows of the requester: the replica was behind what they did."""
        if run.remaining_s() > _AGAIN * run.total_ms() / 1000:
            with suppress(EligibilityUnknown):
                now = await read_requester(run, self._people, self._features, fresh=True)
                return now, await choose(run, self._people, self._ladder, now)
        # Those chosen first are safe, only not by the newest taste: better than nobody.
        run.degrade(Stage.ELIGIBILITY)
        return requester, chosen
