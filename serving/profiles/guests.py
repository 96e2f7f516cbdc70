"""People who ask without being known: their profile comes with the request and is judged by the rules of an import."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, Literal, Self

import numpy as np
from pydantic import ConfigDict, Field, JsonValue

from feature_repo.contract.people import explained
from feature_repo.population.people import People
from feature_repo.transforms import attribute_vectors, profile_vectors
from serving.api.models import Int64
from serving.api.recommendation_models import MAX_EXCLUDED, ExcludedIds, ListRequest
from serving.errors import InvalidRequest
from serving.people.names import PersonIds
from serving.profiles.models import PROFILE_EXAMPLE, Profile
from serving.profiles.rows import checked
from serving.recommend.answer_run import GUEST
from serving.recommend.paging import NOBODY
from serving.recommend.pool import KnownRequester

GUESTS: Final = "/v1/recommendations:guest"
_EXAMPLE: Final[dict[str, JsonValue]] = {"guest": PROFILE_EXAMPLE, "liked": [7, 9], "limit": 10}
_LIKED: Final = "Whom they liked so far: their taste, and in no answer again."
_PASSED: Final = "Whom they passed on so far, likewise."


class GuestRequest(ListRequest):
    """Who asks, by a profile instead of an id; nothing of it is stored."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    guest: Profile = Field(description="As for `PUT /v1/people/{user_id}`; what is absent is unknown.")
    liked: ExcludedIds | None = Field(None, description=_LIKED)
    passed: ExcludedIds | None = Field(None, description=_PASSED)
    named_by: Literal["number", "text"] = Field(
        "number", description="What the answer calls people by: their number, or the text that your app gave them."
    )


class NamedGuestRequest(GuestRequest):
    """The same where people are named by text."""

    exclude: Annotated[PersonIds, Field(max_length=MAX_EXCLUDED)] | None = Field(  # type: ignore[assignment]
        None, description=GuestRequest.model_fields["exclude"].description
    )
    liked: Annotated[PersonIds, Field(max_length=MAX_EXCLUDED)] | None = Field(  # type: ignore[assignment]
        None, description=_LIKED
    )
    passed: Annotated[PersonIds, Field(max_length=MAX_EXCLUDED)] | None = Field(  # type: ignore[assignment]
        None, description=_PASSED
    )

    def with_ids(self, ids: Int64) -> Self:
        """Return the request with these people, int64, to exclude."""
        return self.model_copy(update={"exclude": ids.tolist()})


def requester_of(request: GuestRequest, unwanted: Int64, slots: Mapping[str, int], now: datetime) -> KnownRequester:
    """Return the guest as who asks, who must not see `unwanted`; raises InvalidRequest."""
    liked = NOBODY if request.liked is None else request.liked
    passed = NOBODY if request.passed is None else request.passed
    excluded = np.sort(np.concatenate([unwanted, liked, passed]))
    return KnownRequester(GUEST, _person(request.guest, slots, now), excluded, liked, passed)


def _person(profile: Profile, slots: Mapping[str, int], now: datetime) -> People:
    rows, reasons = checked([profile], now)
    if reasons:
        field, message = explained(reasons[0])
        raise InvalidRequest(
            f"The guest is not valid: `{field}` {message}.", [{"field": f"guest.{field}", "message": message}]
        )
    told = {"created_at": now, **{name: value for name, value in rows[0].items() if value is not None}}
    columns = {name: [value] for name, value in told.items()}
    columns |= {"user_id": [GUEST], "bio_length": [len(told.get("bio", ""))]}
    return People.build(
        [GUEST],
        profile=profile_vectors(columns),
        attributes=attribute_vectors({"attributes": [told["attributes"]]}, slots),
    )
