"""Stage 0: who asks, and whom they must never see. Postgres must answer; features may be missing.

The profile comes from Postgres, so a person imported a second ago has one. Activity comes fresh from Feast's online
store, asked for as soon as Postgres has its question; when that fails, from the snapshot; when it is not there either,
it takes the declared defaults.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from feature_repo.population.people import People
from feature_repo.transforms import attribute_vectors, profile_vectors
from infra.errors import DuetError
from serving.errors import EligibilityUnknown, FeaturesUnavailable, UnknownUser
from serving.people.people_store import PairStanding, PeopleStore, RequesterRow
from serving.reasons import Reason, Stage
from serving.recommend.answer_run import Run, breathe
from serving.recommend.pool import Int64, KnownRequester


class FeatureReader(Protocol):
    """The online store, read for one person."""

    async def read(self, user_id: int, timeout_s: float) -> People:
        """Return nobody or one person; raises DuetError or TimeoutError when the store does not answer."""
        ...


async def read_requester(
    run: Run, people: PeopleStore, features: FeatureReader, *, fresh: bool = False
) -> KnownRequester:
    """Return the requester; raises UnknownUser, or EligibilityUnknown when Postgres does not answer.

    `fresh` reads no replica.
    """
    user_id = run.user_id
    known = _known(run, user_id)
    activity = asyncio.create_task(_activity(run, features, user_id, known))
    try:
        with run.stage(Stage.ELIGIBILITY):
            row = await people.requester(
                user_id, run.share_s(Stage.ELIGIBILITY), since=run.since if len(known) else None, fresh=fresh
            )
        if row is None:
            raise UnknownUser.named(user_id)
        person = with_profile(row, known, await activity, run.slots)
    finally:
        activity.cancel()
    return KnownRequester(
        user_id,
        person,
        _excluded(run, row),
        row.liked,
        row.passed,
        row.pending,
        row.version,
        row.updated_at,
        row.replicated,
    )


async def as_of(standing: PairStanding, run: Run, people: PeopleStore, requester: KnownRequester) -> KnownRequester:
    """Return the requester with the profile that they have by the time of `standing`.

    Raises UnknownUser when they are gone, and EligibilityUnknown when their newest profile cannot be read.
    """
    if standing.updated_at == requester.updated_at:
        return requester
    row = None
    if standing.updated_at is not None:
        row = await people.requester(requester.user_id, run.safety_s(), fresh=True)
    if row is None:
        raise UnknownUser.named(requester.user_id)
    if standing.updated_at is not None and row.updated_at < standing.updated_at:
        # Whoever answered is behind what the last check said: their preferences are not known then.
        raise EligibilityUnknown(
            Reason.ELIGIBILITY_UNAVAILABLE, "Your profile changed this moment, so nobody can be shown safely yet."
        )
    person = with_profile(row, requester.person, requester.person, run.slots)
    return replace(
        requester, person=person, excluded=_excluded(run, row), version=row.version, updated_at=row.updated_at
    )


def with_profile(row: RequesterRow, known: People, stored: People, slots: Mapping[str, int]) -> People:
    """Return one person: profile and attributes of `row`, or of `known` where `row` has none, the rest of `stored`.

    `stored` may be nobody.
    """
    if row.profile is None:
        user_ids, profile, attributes = known.user_ids, known.profile, known.attributes
    else:
        user_ids = np.array(row.profile.columns["user_id"], dtype=np.int64)
        profile = profile_vectors(row.profile.columns)
        attributes = attribute_vectors({"attributes": [row.attributes]}, slots)
    if not len(stored):
        return People.build(user_ids, profile=profile, attributes=attributes)
    return People(user_ids, profile, attributes, stored.activity, stored.reciprocity)


async def _activity(run: Run, features: FeatureReader, user_id: int, known: People) -> People:
    await breathe()  # Postgres, which takes longer, is asked first
    with run.stage(Stage.FEATURES):
        if run.features_lost:
            run.degrade(Stage.FEATURES)
        try:
            stored = await features.read(user_id, run.share_s(Stage.FEATURES))
        except (DuetError, TimeoutError, OSError) as error:
            run.degrade(Stage.FEATURES, late=isinstance(error, FeaturesUnavailable) and error.late)
            return known
        return stored if len(stored) else known


def _excluded(run: Run, row: RequesterRow) -> Int64:
    return np.sort(np.concatenate([row.excluded, run.unwanted])) if len(run.unwanted) else row.excluded


def _known(run: Run, user_id: int) -> People:
    """Return the requester as the population has them, or nobody."""
    if run.population is None:
        return People.empty()
    position = run.population.positions([user_id])
    return run.population.rows(position[position >= 0])
