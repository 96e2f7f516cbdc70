"""Stores many interactions of a call, a part of them in each statement; what becomes of each is told alone."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID, uuid4

from psycopg.errors import ForeignKeyViolation
from pydantic import JsonValue, ValidationError
from pydantic_core import to_json

from serving.api.models import (
    InteractionBatch,
    InteractionRequest,
    InteractionResult,
    InteractionResults,
    NamedInteractionRequest,
    RowFault,
)
from serving.api.named_bodies import numbered
from serving.api.responses import findings
from serving.errors import ApiError, EventConflict, InvalidRequest, StorageUnavailable, UnknownUser
from serving.people.interactions import CLOCK_TOLERANCE, FUTURE, Interactions
from serving.people.names import Names
from serving.people.statements import Storage, store_in_parts

_STORE: Final = b"SELECT place, missing, stored, same, matched FROM duet.store_interactions($1::text::jsonb, $2, $3)"


async def store_all(
    storage: Storage, names: Names, interactions: Interactions, batch: InteractionBatch, request_id: str
) -> InteractionResults:
    """Store each interaction that can be; raises StorageUnavailable when none could, and then nothing is stored."""
    results: dict[int, InteractionResult] = {}
    accepted = await _identified(await asyncio.to_thread(_shaped, batch.interactions, results), names, results)

    async def stored(part: dict[int, InteractionRequest]) -> dict[int, InteractionResult]:
        return _results(part, await _stored(storage, part, notify=interactions.notifies), interactions)

    results |= await store_in_parts(
        accepted,
        stored,
        lambda place, event, away: _not(place, event, away, failed=True),
        counts=lambda result: result.status in {"stored", "known"},
    )
    return InteractionResults(results=[results[place] for place in sorted(results)], request_id=request_id)


async def _stored(storage: Storage, part: Mapping[int, InteractionRequest], *, notify: bool) -> list[tuple[Any, ...]]:
    again = "send the interactions again with the same event ids."
    try:
        return await storage.rows(_STORE, [to_json(list(part.values())).decode(), CLOCK_TOLERANCE, notify], again)
    except ForeignKeyViolation as error:
        raise StorageUnavailable(f"Somebody was deleted this instant: {again}", retry_after_s=1) from error


def _shaped(
    given: Sequence[dict[str, JsonValue]], results: dict[int, InteractionResult]
) -> dict[int, InteractionRequest]:
    """Return the interactions of the right shape by place, each with an event id; refuse the others in `results`."""
    shaped: dict[int, InteractionRequest] = {}
    for place, event in enumerate(given):
        try:
            told = NamedInteractionRequest.model_validate_json(to_json(event))
        except ValidationError as error:
            first = findings(error)[0]
            fault = RowFault(code=InvalidRequest.code, field=first["field"], message=first["message"])
            results[place] = InteractionResult(
                index=place, event_id=_own_id(event), status="refused", matched=False, error=fault
            )
            continue
        shaped[place] = told if told.event_id is not None else told.model_copy(update={"event_id": uuid4()})
    return shaped


async def _identified(
    shaped: Mapping[int, InteractionRequest], names: Names, results: dict[int, InteractionResult]
) -> dict[int, InteractionRequest]:
    """Return the interactions by number of who took part; refuse those of people whom nobody knows."""
    numbers = await names.numbers([name for event in shaped.values() for name in (event.actor_id, event.target_id)])
    accepted = {}
    for place, event in shaped.items():
        try:
            accepted[place] = numbered(InteractionRequest, event, numbers, ("actor_id", "target_id"))
        except ApiError as error:
            field = error.details[0]["field"] if error.details else ""
            results[place] = _not(place, event, error, field=field)
    return accepted


def _results(
    part: Mapping[int, InteractionRequest], rows: Sequence[tuple[Any, ...]], interactions: Interactions
) -> dict[int, InteractionResult]:
    places = list(part)
    found = {}
    for row, missing, stored, same, matched in rows:
        place = places[row]
        event = part[place]
        if missing is not None:
            found[place] = _not(place, event, UnknownUser("nobody has this id"), field=missing)
        elif same is None:
            found[place] = _not(place, event, InvalidRequest(FUTURE), field="occurred_at")
        elif not same:
            found[place] = _not(place, event, EventConflict("belongs to another interaction"), field="event_id")
        else:
            found[place] = InteractionResult(
                index=place,
                event_id=event.event_id,
                status=interactions.note(event, stored=stored, matched=matched),
                matched=matched,
                error=None,
            )
    return found


def _not(
    place: int, event: InteractionRequest, why: ApiError, *, field: str = "", failed: bool = False
) -> InteractionResult:
    return InteractionResult(
        index=place,
        event_id=event.event_id,
        status="failed" if failed else "refused",
        matched=False,
        error=RowFault(code=why.code, field=field, message=why.message),
    )


def _own_id(event: Mapping[str, JsonValue]) -> UUID | None:
    try:
        return UUID(str(event.get("event_id")))
    except ValueError:
        return None
