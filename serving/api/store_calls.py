"""What answers each call beside recommendations and single interactions: what was sent in, a response out."""

from collections.abc import Mapping
from typing import Protocol

from pydantic_core import PydanticCustomError
from starlette.responses import Response

from serving.api import context, responses
from serving.api.models import InteractionBatch
from serving.api.request_checks import Call
from serving.errors import InvalidRequest
from serving.people.interaction_batches import store_all
from serving.people.names import Name, checked_name, number_in
from serving.people.relations import PageQuery
from serving.people.stores import Stores
from serving.profiles.models import PeopleBatch, Profile


class HasStores(Protocol):
    """A serving process: what it has is there once it is started."""

    stores: Stores


def store_calls(runtime: HasStores) -> Mapping[str, Call]:
    """Return the calls by operation."""

    async def get(user_id: str) -> Response:
        return responses.ok(await runtime.stores.profiles.read(person_id(user_id), context.current().request_id))

    async def put(profile: Profile, user_id: str) -> Response:
        stored = await runtime.stores.profiles.put(person_id(user_id), profile, context.current().request_id)
        return responses.ok(stored, 201 if stored.status == "created" else 200)

    async def patch(profile: Profile, user_id: str) -> Response:
        request_id = context.current().request_id
        return responses.ok(await runtime.stores.profiles.patch(person_id(user_id), profile, request_id))

    async def hide(user_id: str) -> Response:
        request_id = context.current().request_id
        return responses.ok(await runtime.stores.profiles.show(person_id(user_id), request_id, visible=False))

    async def show(user_id: str) -> Response:
        request_id = context.current().request_id
        return responses.ok(await runtime.stores.profiles.show(person_id(user_id), request_id, visible=True))

    async def batch(people: PeopleBatch) -> Response:
        return responses.ok(await runtime.stores.profiles.batch(people, context.current().request_id))

    async def interactions(batch: InteractionBatch) -> Response:
        stores, request_id = runtime.stores, context.current().request_id
        return responses.ok(await store_all(stores.writes, stores.names, stores.interactions, batch, request_id))

    async def matches(page: PageQuery, user_id: str) -> Response:
        request_id = context.current().request_id
        return responses.ok(await runtime.stores.relations.matches(person_id(user_id), page, request_id))

    async def likes(page: PageQuery, user_id: str) -> Response:
        request_id = context.current().request_id
        return responses.ok(await runtime.stores.relations.likes(person_id(user_id), page, request_id))

    return {
        "store_interactions": interactions,
        "list_matches": matches,
        "list_likes": likes,
        "get_person": get,
        "put_person": put,
        "patch_person": patch,
        "hide_person": hide,
        "show_person": show,
        "store_people": batch,
        **_erasure_calls(runtime),
    }


def _erasure_calls(runtime: HasStores) -> Mapping[str, Call]:
    async def erase(user_id: str) -> Response:
        call = context.current()
        key = None if call.caller is None else call.caller.key
        actor = "without a key" if key is None else key.name
        report = await runtime.stores.erasing.erase(person_id(user_id), actor, call.request_id)
        return responses.ok(report, 200 if report.status == "finished" else 202)

    async def erasure(user_id: str) -> Response:
        return responses.ok(await runtime.stores.erasing.report(person_id(user_id), context.current().request_id))

    return {"erase_person": erase, "get_erasure": erasure}


def person_id(text: str) -> Name:
    """Return whom a path names; raises InvalidRequest."""
    try:
        name = checked_name(text)
    except PydanticCustomError as error:
        details = [{"field": "user_id", "message": str(error)}]
        raise InvalidRequest(f"The request is not valid: `user_id` {error}.", details) from None
    number = number_in(name)
    return name if number is None else number
