"""Stage 0: who asks, and whom they must never see. Postgres must answer; features may be missing.

The profile comes from Postgres, so a person imported a second ago has one. Activity comes fresh from Feast's online
store; when that fails, from the snapshot; when it is not there either, it takes the declared defaults.
"""

from collections.abc import Mapping
from typing import Protocol

from feature_repo.people import People
from feature_repo.transforms import attribute_vectors, profile_vectors
from infra.errors import DuetError
from serving.errors import UnknownUser
from serving.people_store import PeopleStore, RequesterRow
from serving.pool import Requester
from serving.reasons import Stage
from serving.run import Run

FEATURES_SHARE = 0.4
"""Of the time left, what the online store may take before older features do."""


class FeatureReader(Protocol):
    """The online store, read for one person."""

    async def read(self, user_id: int, timeout_s: float) -> People:
        """Return nobody or one person; raises DuetError or TimeoutError when the store does not answer."""
        ...


async def read_requester(run: Run, people: PeopleStore, features: FeatureReader, slots: Mapping[str, int]) -> Requester:
    """Return the requester; raises UnknownUser, or EligibilityUnknown when Postgres does not answer."""
    user_id = run.request.user_id
    with run.stage(Stage.ELIGIBILITY):
        row = await people.requester(user_id, run.safety_s())
    if row is None:
        raise UnknownUser(f"Nobody has the id {user_id}.")
    with run.stage(Stage.FEATURES):
        person = with_profile(row, await _activity(run, features, user_id), slots)
    return Requester(user_id, person, row.excluded, row.liked, row.passed, row.pending)


def with_profile(row: RequesterRow, stored: People, slots: Mapping[str, int]) -> People:
    """Return one person: profile and attributes of `row`, the rest of `stored` (nobody, or this person)."""
    return People.build(
        row.profile.columns["user_id"],
        profile=profile_vectors(row.profile.columns),
        attributes=attribute_vectors({"attributes": [row.attributes]}, slots),
        activity=stored.activity if len(stored) else None,
        reciprocity=stored.reciprocity if len(stored) else None,
    )


async def _activity(run: Run, features: FeatureReader, user_id: int) -> People:
    try:
        stored = await features.read(user_id, run.remaining_s() * FEATURES_SHARE)
    except (DuetError, TimeoutError, OSError):
        run.degrade(Stage.FEATURES)
    else:
        if len(stored):
            return stored
    if run.population is None:
        return People.empty()
    position = run.population.positions([user_id])
    return run.population.rows(position[position >= 0])
