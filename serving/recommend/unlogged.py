"""Lists that are nobody's recommendations: those of guests, and of people similar to somebody.

They go the way of all answers, the last check included. Nothing of them is logged as shown or kept: a guest is nobody,
and what is learned from recommendations must not hear of lists that were ordered by something else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

import numpy as np

from infra.clock import Clock
from infra.metrics import ServingMetrics
from infra.settings import Settings
from serving.api.recommendation_models import ListRequest, OrderName, RecommendationRequest
from serving.errors import EligibilityUnknown, StorageUnavailable, UnknownUser
from serving.experiments.assignment import Assignment, Variant
from serving.people.names import Name
from serving.people.people_store import PeopleStore
from serving.profiles.guests import GuestRequest, requester_of
from serving.reasons import Level, Reason, Stage
from serving.recommend.answer_run import Run
from serving.recommend.answers import Answer, AnswerMetrics, Showing, envelope, order_of, shown_people
from serving.recommend.choosing import choose, nobody, too_late
from serving.recommend.levels import Strategy
from serving.recommend.pool import KnownRequester
from serving.recommend.serving_state import ServingState, begin
from serving.recommend.similar import similar_ladder
from serving.recommend.stages.filtering import refuse_unfit
from serving.recommend.stages.requester import FeatureReader, read_requester, with_profile
from serving.resilience.deadline import Deadline

_CHAMPION: Final = Assignment(Variant.CHAMPION)
Sees = Callable[[int, int], Awaitable[bool]]


class UnloggedLists:
    """Makes them; `sees` says whether the first person may see the second, whatever they decided about them."""

    def __init__(
        self,
        *,
        settings: Settings,
        people: PeopleStore,
        features: FeatureReader,
        world: Callable[[], ServingState],
        ladder: Sequence[Strategy],
        sees: Sees,
        rng: np.random.Generator,
        metrics: ServingMetrics,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._people = people
        self._features = features
        self._world = world
        self._ladder = ladder
        self._sees = sees
        self._rng = rng
        self._metrics = AnswerMetrics(metrics)
        self._clock = clock

    async def for_guest(self, request: GuestRequest, request_id: UUID, *, deadline: Deadline | None = None) -> Answer:
        """Return the list of a guest; raises InvalidRequest, and nothing for any dependency that fails."""
        run = self._begin(request, request_id, deadline)
        guest = requester_of(request, run.unwanted, run.slots, self._clock.now())
        return await self._in_time(run, lambda: self._shown(run, self._ladder, guest))

    async def similar(
        self,
        anchor: int,
        request: RecommendationRequest,
        request_id: UUID,
        *,
        deadline: Deadline | None = None,
        named: Name | None = None,
    ) -> Answer:
        """Return people similar to `anchor` whom the one who asks may see: one page, and no next.

        Raises UnknownUser, which calls the anchor what they are `named`, where either is not there, or the one who asks
        may not see the other.
        """
        run = self._begin(request, request_id, deadline)
        unknown = UnknownUser.named(anchor if named is None else named)
        try:
            answer = await self._in_time(run, lambda: self._similar(run, anchor, unknown))
        except UnknownUser as error:
            if error is unknown:
                raise
            raise UnknownUser.named(run.user_id, ["requester_id"]) from None
        return replace(answer, next=None)

    async def _similar(self, run: Run, anchor: int, unknown: UnknownUser) -> Showing:
        requester = await read_requester(run, self._people, self._features)
        with run.stage(Stage.ELIGIBILITY):
            row = await self._people.requester(anchor, run.share_s(Stage.ELIGIBILITY))
            if row is None or not await self._may_see(run.user_id, anchor):
                raise unknown
        nothing = requester.person.take([])
        person = with_profile(row, nothing, nothing, run.slots)
        showing = await self._shown(run, similar_ladder(self._settings, self._rng, person), requester)
        order: OrderName | None = "similarity" if showing.level is Level.FULL else None
        return Showing(showing.level, showing.assignment, showing.release, order, showing.items, showing.propensities)

    async def _may_see(self, user_id: int, anchor: int) -> bool:
        try:
            return user_id == anchor or await self._sees(user_id, anchor)
        except StorageUnavailable as error:
            raise EligibilityUnknown(
                Reason.ELIGIBILITY_UNAVAILABLE, "Postgres cannot be read, so nobody can be shown safely."
            ) from error

    async def _shown(self, run: Run, ladder: Sequence[Strategy], requester: KnownRequester) -> Showing:
        chosen = await choose(run, self._people, ladder, requester)
        rows = chosen.checked.rows
        items = shown_people(chosen.ranked, rows, explain=run.request.explain)
        release = run.release.release_id if run.release else None
        propensities = chosen.ranked.propensity[rows].tolist()
        return Showing(chosen.level, _CHAMPION, release, order_of(run.release, chosen.level), items, propensities)

    def _begin(self, request: ListRequest, request_id: UUID, deadline: Deadline | None) -> Run:
        state = self._world()
        refuse_unfit(request.filters, state.slots, state.population)
        return begin(
            state, request, request_id, _CHAMPION, deadline=deadline, settings=self._settings, clock=self._clock
        )

    async def _in_time(self, run: Run, work: Callable[[], Awaitable[Showing]]) -> Answer:
        try:
            async with asyncio.timeout(run.deadline.remaining_s()):
                showing = await work()
        except EligibilityUnknown as error:
            showing = nobody(run, _CHAMPION, error)
        except TimeoutError:
            showing = nobody(run, _CHAMPION, too_late())
        self._metrics.observe(run, showing)
        return envelope(run, showing)
