"""What answers each call beside recommendations and single interactions: what was sent in, a response out."""

from collections.abc import Mapping
from typing import Protocol

from starlette.responses import Response

from serving import context, responses
from serving.api_models import MAX_USER_ID, InteractionBatch
from serving.errors import InvalidRequest
from serving.gate import Call
from serving.interaction_batches import store_all
from serving.interactions import Interactions
from serving.profiles.models import PeopleBatch, Profile
from serving.profiles.profiles import Profiles
from serving.relations import PageQuery, Relations
from serving.storage import Storage


class HasStores(Protocol):
    """A serving process: what it has is there once it is started."""

    profiles: Profiles
    relations: Relations
    interactions: Interactions
    writes: Storage


def store_calls(runtime: HasStores) -> Mapping[str, Call]:
    """Return the calls by operation."""

    async def get(user_id: str) -> Response:
        return responses.ok(await runtime.profiles.read(person_id(user_id), context.current().request_id))

    async def put(profile: Profile, user_id: str) -> Response:
        stored = await runtime.profiles.put(person_id(user_id), profile, context.current().request_id)
        return responses.ok(stored, 201 if stored.status == "created" else 200)

    async def patch(profile: Profile, user_id: str) -> Response:
        return responses.ok(await runtime.profiles.patch(person_id(user_id), profile, context.current().request_id))

    async def hide(user_id: str) -> Response:
        request_id = context.current().request_id
        return responses.ok(await runtime.profiles.show(person_id(user_id), request_id, visible=False))

    async def show(user_id: str) -> Response:
        request_id = context.current().request_id
        return responses.ok(await runtime.profiles.show(person_id(user_id), request_id, visible=True))

    async def batch(people: PeopleBatch) -> Response:
        return responses.ok(await runtime.profiles.batch(people, context.current().request_id))

    async def interactions(batch: InteractionBatch) -> Response:
        request_id = context.current().request_id
        return responses.ok(await store_all(runtime.writes, runtime.interactions, batch, request_id))

    async def matches(page: PageQuery, user_id: str) -> Response:
        return responses.ok(await runtime.relations.matches(person_id(user_id), page, context.current().request_id))

    async def likes(page: PageQuery, user_id: str) -> Response:
        return responses.ok(await runtime.relations.likes(person_id(user_id), page, context.current().request_id))

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
    }


def person_id(text: str) -> int:
    """Return the id that a path names; raises InvalidRequest."""
    if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_USER_ID)) and 1 <= int(text) <= MAX_USER_ID:
        return int(text)
    message = f"must be a whole number from 1 to {MAX_USER_ID}"
    raise InvalidRequest(f"The request is not valid: `user_id` {message}.", [{"field": "user_id", "message": message}])
