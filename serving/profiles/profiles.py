"""Stores people as apps send them: durable before it is acknowledged, and seen by whoever reads Postgres next."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from psycopg.types.numeric import Int8
from pydantic import JsonValue, ValidationError
from pydantic_core import PydanticCustomError, to_json

from feature_repo.contract import faults as why
from feature_repo.contract.identities import canonical, hashed_id
from feature_repo.contract.people import explained
from infra.clock import Clock
from serving.api.models import RowFault
from serving.api.responses import findings
from serving.errors import InvalidRequest, StreamMoved, UnknownUser
from serving.people.names import Name, Names, checked_name, number_in
from serving.people.statements import Storage, store_in_parts
from serving.profiles.models import (
    NamedProfileRow,
    PeopleBatch,
    PeopleResults,
    Person,
    PersonResult,
    Profile,
    StoredPerson,
)
from serving.profiles.rows import checked, repeated
from serving.profiles.stream_positions import StreamRead

_STORE: Final = b"SELECT place, id, status, reason FROM duet.store_people($1::text::jsonb, $2, $3)"
_STORE_STREAMED: Final = b"""
SELECT place, id, status, reason
FROM duet.store_streamed_people($1::text::jsonb, $2, $3, $4::text, $5::bigint, $6::text[], $7::text[])
"""
# A real as text is the number that was sent.
_READ: Final = b"""
SELECT birth_date, gender, seeking, age_min, age_max, latitude::text::float8, longitude::text::float8,
    max_distance_km::text::float8, interests, bio, visible, attributes, created_at, last_active_at, updated_at
FROM duet.users WHERE user_id = $1
"""
_FIELDS: Final = tuple(name for name in Person.model_fields if name not in {"user_id", "request_id"})


class Profiles:
    """Writes by `writes`, reads by `reads`; `changed` is told whose answers count no more."""

    def __init__(
        self, writes: Storage, reads: Storage, clock: Clock, changed: Callable[[int], None] | None = None
    ) -> None:
        self._writes = writes
        self._reads = reads
        self._names = Names(reads)
        self._clock = clock
        self._changed = changed

    async def read(self, name: Name, request_id: str) -> Person:
        """Return a person; raises UnknownUser and StorageUnavailable."""
        number = (await self._names.numbers([name])).get(name)
        rows = [] if number is None else await self._reads.rows(_READ, [Int8(number)], "ask again.")
        if not rows:
            raise UnknownUser.named(name)
        return Person(user_id=name, **dict(zip(_FIELDS, rows[0], strict=True)), request_id=request_id)

    async def put(self, name: Name, profile: Profile, request_id: str) -> StoredPerson:
        """Create a person or replace what is known of them; raises InvalidRequest and StorageUnavailable."""
        return await self._store_one(name, profile, request_id, whole=True, may_create=True)

    async def patch(self, name: Name, profile: Profile, request_id: str) -> StoredPerson:
        """Change what `profile` names; raises InvalidRequest, UnknownUser and StorageUnavailable."""
        return await self._store_one(name, profile, request_id, whole=False, may_create=False)

    async def show(self, name: Name, request_id: str, *, visible: bool) -> StoredPerson:
        """Let a person be shown to others, or to nobody; raises UnknownUser and StorageUnavailable."""
        return await self.patch(name, Profile(visible=visible), request_id)

    async def batch(self, batch: PeopleBatch, request_id: str, read: StreamRead | None = None) -> PeopleResults:
        """Create or change each person of a batch that the contract allows, a part of them in each statement.

        Raises StorageUnavailable when nobody could be stored; whoever could not be later on has `failed`. People that
        were `read` from a stream are one part, stored together with how far it is; raises StreamMoved.
        """
        results: dict[int, PersonResult] = {}
        judged = await asyncio.to_thread(self._judged, batch.people, results)
        told = {place: name for place, (name, _) in judged.items()}
        rows = await self._identified(judged)
        for place, reason in repeated({place: row["user_id"] for place, row in rows.items()}).items():
            del rows[place]
            results[place] = _result(place, told[place], "refused", _fault(reason))
        results |= await store_in_parts(
            rows,
            lambda part: self._stored_part(part, told, read),
            lambda place, _row, away: _result(
                place, told[place], "failed", RowFault(code=away.code, field="", message=away.message)
            ),
        )
        return PeopleResults(results=[results[place] for place in sorted(results)], request_id=request_id)

    async def _stored_part(
        self, part: Mapping[int, dict[str, Any]], told: Mapping[int, Name], read: StreamRead | None
    ) -> dict[int, PersonResult]:
        places, rows = list(part), list(part.values())
        found = {}
        for row, status, reason in await self._stored(
            rows, whole=False, may_create=True, position=[] if read is None else read.position(places)
        ):
            fault = None if reason is None else _fault(reason)
            found[places[row]] = _result(places[row], told[places[row]], status, fault)
        return found

    def _judged(
        self, people: Sequence[dict[str, JsonValue]], results: dict[int, PersonResult]
    ) -> dict[int, tuple[Name, dict[str, Any]]]:
        """Return by place who is to be stored, and what; refuse the others in `results`."""
        profiles: dict[int, NamedProfileRow] = {}
        for place, person in enumerate(people):
            try:
                profiles[place] = NamedProfileRow.model_validate_json(to_json(person))
            except ValidationError as error:
                first = findings(error)[0]
                fault = RowFault(code=why.WRONG_TYPE, field=first["field"], message=first["message"])
                results[place] = _result(place, _named(person), "refused", fault)
        places, given = list(profiles), list(profiles.values())
        rows, reasons = checked(given, self._clock.now())
        for row, reason in reasons.items():
            results[places[row]] = _result(places[row], given[row].user_id, "refused", _fault(reason))
        return {places[row]: (given[row].user_id, rows[row]) for row in range(len(given)) if row not in reasons}

    async def _identified(self, judged: Mapping[int, tuple[Name, dict[str, Any]]]) -> dict[int, dict[str, Any]]:
        """Return the rows with the number of each person, and with the name of whoever has none yet."""
        numbers = await self._names.numbers([name for name, _ in judged.values()])
        rows = {}
        for place, (name, row) in judged.items():
            number = numbers.get(name)
            if number is None:
                text = canonical(str(name))
                rows[place] = {"user_id": hashed_id(text), "external_id": text, **row}
            else:
                # Whoever was imported under a hash is named once and for all: attributes may be replaced.
                known_as = {} if number_in(name) is not None else {"known_as": canonical(str(name))}
                rows[place] = {"user_id": number, **known_as, **row}
        return rows

    async def _store_one(
        self, name: Name, profile: Profile, request_id: str, *, whole: bool, may_create: bool
    ) -> StoredPerson:
        rows, reasons = checked([profile], self._clock.now())
        if reasons:
            raise _invalid(reasons[0])
        identified = await self._identified({0: (name, rows[0])})
        stored = await self._stored([identified[0]], whole=whole, may_create=may_create)
        _, status, reason = stored[0]
        if reason is not None:
            raise _invalid(reason)
        if status == "unknown":
            raise UnknownUser.named(name)
        return StoredPerson(user_id=name, status=status, request_id=request_id)

    async def _stored(
        self, rows: Sequence[dict[str, Any]], *, whole: bool, may_create: bool, position: Sequence[Any] = ()
    ) -> list[tuple[int, Any, str | None]]:
        given = to_json(rows).decode()
        statement = _STORE_STREAMED if position else _STORE
        stored = await self._writes.rows(statement, [given, whole, may_create, *position], "send it again.")
        if not stored:
            raise StreamMoved("Another process stored of this stream meanwhile: read it again.")
        if self._changed is not None:
            for _, number, _, _ in stored:
                self._changed(number)
        return [(place, status, reason) for place, _, status, reason in stored]


def _invalid(reason: str) -> InvalidRequest:
    field, message = explained(reason)
    return InvalidRequest(f"The person is not valid: `{field}` {message}.", [{"field": field, "message": message}])


def _fault(reason: str) -> RowFault:
    field, message = explained(reason)
    return RowFault(code=reason.partition(": ")[0], field=field, message=message)


def _result(place: int, name: Name | None, status: Any, error: RowFault | None) -> PersonResult:
    return PersonResult(index=place, user_id=name, status=status, error=error)


def _named(person: dict[str, JsonValue]) -> Name | None:
    try:
        return checked_name(person.get("user_id"))
    except PydanticCustomError:
        return None
