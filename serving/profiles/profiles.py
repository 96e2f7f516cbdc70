"""Stores people as apps send them: durable before it is acknowledged, and seen by whoever reads Postgres next."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from psycopg.types.numeric import Int8
from pydantic import JsonValue, ValidationError
from pydantic_core import to_json

from feature_repo.contract import faults as why
from feature_repo.contract.people import explained
from infra.clock import Clock
from serving.api_models import MAX_USER_ID, RowFault
from serving.errors import InvalidRequest, StorageUnavailable, UnknownUser
from serving.profiles.models import (
    PeopleBatch,
    PeopleResults,
    Person,
    PersonResult,
    Profile,
    ProfileRow,
    StoredPerson,
)
from serving.profiles.rows import checked, repeated
from serving.responses import findings
from serving.storage import PART, Storage, parts

_STORE: Final = b"SELECT place, status, reason FROM duet.store_people($1::text::jsonb, $2, $3)"
# A real as text is the number that was sent.
_READ: Final = b"""
SELECT user_id, birth_date, gender, seeking, age_min, age_max, latitude::text::float8, longitude::text::float8,
    max_distance_km::text::float8, interests, bio, visible, attributes, created_at, last_active_at, updated_at
FROM duet.users WHERE user_id = $1
"""
_FIELDS: Final = tuple(name for name in Person.model_fields if name != "request_id")


class Profiles:
    """Writes by `writes`, reads by `reads`; `changed` is told whose answers count no more."""

    def __init__(
        self, writes: Storage, reads: Storage, clock: Clock, changed: Callable[[int], None] | None = None
    ) -> None:
        self._writes = writes
        self._reads = reads
        self._clock = clock
        self._changed = changed

    async def read(self, user_id: int, request_id: str) -> Person:
        """Return a person; raises UnknownUser and StorageUnavailable."""
        rows = await self._reads.rows(_READ, [Int8(user_id)], "ask again.")
        if not rows:
            raise unknown(user_id)
        return Person(**dict(zip(_FIELDS, rows[0], strict=True)), request_id=request_id)

    async def put(self, user_id: int, profile: Profile, request_id: str) -> StoredPerson:
        """Create a person or replace what is known of them; raises InvalidRequest and StorageUnavailable."""
        return await self._store_one(user_id, profile, request_id, whole=True, may_create=True)

    async def patch(self, user_id: int, profile: Profile, request_id: str) -> StoredPerson:
        """Change what `profile` names; raises InvalidRequest, UnknownUser and StorageUnavailable."""
        return await self._store_one(user_id, profile, request_id, whole=False, may_create=False)

    async def show(self, user_id: int, request_id: str, *, visible: bool) -> StoredPerson:
        """Let a person be shown to others, or to nobody; raises UnknownUser and StorageUnavailable."""
        return await self.patch(user_id, Profile(visible=visible), request_id)

    async def batch(self, batch: PeopleBatch, request_id: str) -> PeopleResults:
        """Create or change each person of a batch that the contract allows, a part of them in each statement.

        Raises StorageUnavailable when nobody could be stored; whoever could not be later on has `failed`.
        """
        results: dict[int, PersonResult] = {}
        rows = await asyncio.to_thread(self._judged, batch.people, results)
        away: StorageUnavailable | None = None
        stored_any = False
        for part in parts(rows, PART):
            try:
                if away is None:
                    results |= await self._stored_part(part)
                    stored_any = True
            except StorageUnavailable as error:
                away = error
                if not stored_any:
                    raise
            if away is not None:
                fault = RowFault(code=away.code, field="", message=away.message)
                results |= {place: _result(place, row["user_id"], "failed", fault) for place, row in part.items()}
        return PeopleResults(results=[results[place] for place in sorted(results)], request_id=request_id)

    async def _stored_part(self, part: Mapping[int, dict[str, Any]]) -> dict[int, PersonResult]:
        places, rows = list(part), list(part.values())
        found = {}
        for row, status, reason in await self._stored(rows, whole=False, may_create=True):
            fault = None if reason is None else _fault(reason)
            found[places[row]] = _result(places[row], rows[row]["user_id"], status, fault)
        return found

    def _judged(
        self, people: Sequence[dict[str, JsonValue]], results: dict[int, PersonResult]
    ) -> dict[int, dict[str, Any]]:
        """Return the rows to store by place; refuse the others in `results`."""
        profiles: dict[int, ProfileRow] = {}
        for place, person in enumerate(people):
            try:
                profiles[place] = ProfileRow.model_validate_json(to_json(person))
            except ValidationError as error:
                first = findings(error)[0]
                fault = RowFault(code=why.WRONG_TYPE, field=first["field"], message=first["message"])
                results[place] = _result(place, _named(person), "refused", fault)
        places, given = list(profiles), list(profiles.values())
        rows, reasons = checked(given, self._clock.now())
        reasons |= repeated([profile.user_id for profile in given])
        for row, reason in reasons.items():
            results[places[row]] = _result(places[row], given[row].user_id, "refused", _fault(reason))
        return {
            places[row]: {"user_id": given[row].user_id, **rows[row]} for row in range(len(given)) if row not in reasons
        }

    async def _store_one(
        self, user_id: int, profile: Profile, request_id: str, *, whole: bool, may_create: bool
    ) -> StoredPerson:
        rows, reasons = checked([profile], self._clock.now())
        if reasons:
            raise _invalid(reasons[0])
        stored = await self._stored([{"user_id": user_id, **rows[0]}], whole=whole, may_create=may_create)
        _, status, reason = stored[0]
        if reason is not None:
            raise _invalid(reason)
        if status == "unknown":
            raise unknown(user_id)
        return StoredPerson(user_id=user_id, status=status, request_id=request_id)

    async def _stored(
        self, rows: Sequence[dict[str, Any]], *, whole: bool, may_create: bool
    ) -> list[tuple[int, Any, str | None]]:
        given = to_json(rows).decode()
        stored = await self._writes.rows(_STORE, [given, whole, may_create], "send it again.")
        if self._changed is not None:
            for row in rows:
                self._changed(row["user_id"])
        return [(place, status, reason) for place, status, reason in stored]


def unknown(user_id: int) -> UnknownUser:
    """Return the refusal of an id that nobody has."""
    return UnknownUser(f"Nobody has the id {user_id}.")


def _invalid(reason: str) -> InvalidRequest:
    field, message = explained(reason)
    return InvalidRequest(f"The person is not valid: `{field}` {message}.", [{"field": field, "message": message}])


def _fault(reason: str) -> RowFault:
    field, message = explained(reason)
    return RowFault(code=reason.partition(": ")[0], field=field, message=message)


def _result(place: int, user_id: int | None, status: Any, error: RowFault | None) -> PersonResult:
    return PersonResult(index=place, user_id=user_id, status=status, error=error)


def _named(person: dict[str, JsonValue]) -> int | None:
    user_id = person.get("user_id")
    return user_id if type(user_id) is int and 1 <= user_id <= MAX_USER_ID else None
