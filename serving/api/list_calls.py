"""What answers the calls for lists beside recommendations: those of guests, and similar people."""

from collections.abc import Callable, Mapping
from typing import Final, Protocol
from uuid import uuid4

from pydantic import Field
from starlette.responses import Response

from serving.api import context, responses
from serving.api.context import RequestContext
from serving.api.models import MAX_LIMIT, RequestModel
from serving.api.named_bodies import names_in, numbered
from serving.api.recommendation_models import RecommendationRequest
from serving.api.request_checks import Call
from serving.api.store_calls import person_id
from serving.errors import UnknownUser
from serving.people.names import Name, PersonId, renamed
from serving.people.stores import Stores
from serving.profiles.guests import GuestRequest, NamedGuestRequest
from serving.profiles.models import PERSON
from serving.recommend.answers import Answer
from serving.recommend.unlogged import UnloggedLists
from serving.resilience.deadline import Deadline

SIMILAR: Final = f"{PERSON}/similar"
_LISTS: Final = ("exclude", "liked", "passed")


class SimilarQuery(RequestModel):
    """Who will see the list, and how much of it."""

    requester_id: PersonId = Field(description="Who will see them: only people whom they may be shown are in the list.")
    limit: int = Field(20, ge=1, le=MAX_LIMIT, description="Most people in the answer.")


class HasLists(Protocol):
    """A serving process: what it has is there once it is started."""

    stores: Stores
    unlogged: UnloggedLists


def list_calls(runtime: HasLists, deadline: Callable[[RequestContext], Deadline]) -> Mapping[str, Call]:
    """Return the calls by operation."""

    async def guest(request: GuestRequest) -> Response:
        names, in_text = runtime.stores.names, request.named_by == "text" or isinstance(request, NamedGuestRequest)
        if isinstance(request, NamedGuestRequest):
            numbers = await names.numbers(names_in(request, (), _LISTS))
            request = numbered(GuestRequest, request, numbers, (), _LISTS)
        call = context.current()
        call.answer_id = uuid4()
        answer = await runtime.unlogged.for_guest(request, call.answer_id, deadline=deadline(call))
        return await _told(answer, in_text=in_text)

    async def similar(query: SimilarQuery, user_id: str) -> Response:
        anchor, requester = person_id(user_id), person_id(str(query.requester_id))
        numbers = await runtime.stores.names.numbers([anchor, requester])
        for field, name in (("user_id", anchor), ("requester_id", requester)):
            if name not in numbers:
                raise UnknownUser.named(name, [field])
        call = context.current()
        call.answer_id = uuid4()
        asked = RecommendationRequest(user_id=numbers[requester], limit=query.limit)
        answer = await runtime.unlogged.similar(
            numbers[anchor], asked, call.answer_id, deadline=deadline(call), named=anchor
        )
        return await _told(answer, in_text=_is_text(anchor) or _is_text(requester))

    async def _told(answer: Answer, *, in_text: bool) -> Response:
        if not in_text:
            return responses.ok(answer)
        return responses.ok(renamed(answer, await runtime.stores.names.names(item.user_id for item in answer.items)))

    return {"recommend_to_guest": guest, "list_similar": similar}


def _is_text(name: Name) -> bool:
    return isinstance(name, str)
