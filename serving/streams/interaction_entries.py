"""Stores interactions of a stream as `POST /v1/interactions:batch` does; several processes share the entries.

An entry that comes again is known by its event id, so it may be stored by anybody, at any time and in any order: when
it happened is what it says, or else when it was added to the stream.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import psycopg
from pydantic import JsonValue

from infra.clock import Clock
from infra.faults import failpoint
from serving.api.models import InteractionBatch, InteractionResult, RowFault
from serving.errors import InvalidRequest, StorageUnavailable, UnknownUser
from serving.people.interaction_batches import store_all
from serving.people.stores import Stores
from serving.streams.entries import StreamEntry, instant_of, opened
from serving.streams.group import StreamGroup

LOOK_S: Final = 1.0
"""Time between looks at entries that wait for somebody, and at those of consumers that fell silent."""
REQUEST: Final = "stream"
Storing = Callable[[list[StreamEntry]], Awaitable[dict[str, RowFault | None]]]


class InteractionEntries:
    """Stores what `consumer` of `group` reads; an interaction may wait for people who are still to come."""

    def __init__(
        self,
        group: StreamGroup,
        people: StreamGroup,
        stores: Stores,
        *,
        consumer: str,
        batch: int,
        unknown_wait_s: float,
        clock: Clock,
    ) -> None:
        self._group, self._people, self._stores = group, people, stores
        self._consumer, self._batch, self._clock = consumer, batch, clock
        self._wait = timedelta(seconds=unknown_wait_s)
        self._after: str | None = "0"  # what a former life of this process left comes first
        self._looked_s = 0.0

    async def round(self) -> None:
        """Store one batch; raises StorageUnavailable and errors of Redis, and then it is read again."""
        if self._after is None and self._clock.monotonic() - self._looked_s >= LOOK_S:
            self._after = "0"
        if self._after == "0":
            await self._group.claim(self._consumer, self._batch)
        if self._after is None:
            entries = await self._group.fresh(self._consumer, self._batch)
        else:
            entries = await self._group.mine(self._consumer, self._after, self._batch)
            self._after = entries[-1].id if entries else None
            self._looked_s = self._clock.monotonic()  # from the end: however much waits, new entries have their turn
        if not entries:
            return
        try:
            await self._settle(entries)
        except BaseException:
            self._after = "0"
            raise

    async def _settle(self, entries: list[StreamEntry]) -> None:
        gone = [entry for entry in entries if entry.removed]
        await self._group.settle(gone, "removed")
        objects, faults = opened([entry for entry in entries if not entry.removed])
        readable = [entry for entry in entries if entry.id in objects]
        results = await self._results(readable, lambda part: self._stored(part, objects))
        failpoint("stream.after_interactions")
        settled = [entry for entry in readable if results[entry.id] is None]
        await self._group.settle(settled)
        faults |= {entry_id: fault for entry_id, fault in results.items() if fault is not None}
        await self._refuse([entry for entry in entries if entry.id in faults], faults)

    @staticmethod
    async def _results(entries: list[StreamEntry], store: Storing) -> dict[str, RowFault | None]:
        if not entries:
            return {}
        try:
            return await store(entries)
        except StorageUnavailable as error:
            if not is_about_values(error):
                raise
        results: dict[str, RowFault | None] = {}
        for entry in entries:
            results |= await alone(entry, store)
        return results

    async def _stored(
        self, entries: list[StreamEntry], objects: dict[str, dict[str, JsonValue]]
    ) -> dict[str, RowFault | None]:
        """Return of each entry None where it is stored, else why it cannot be."""
        told = [self._completed(entry, objects[entry.id]) for entry in entries]
        stores = self._stores
        answer = await store_all(
            stores.writes, stores.names, stores.interactions, InteractionBatch(interactions=told), REQUEST
        )
        away = next((result for result in answer.results if result.status == "failed"), None)
        if away is not None:
            raise StorageUnavailable("The database went away in the middle of a batch.")
        return {entry.id: _fault(result) for entry, result in zip(entries, answer.results, strict=True)}

    def _completed(self, entry: StreamEntry, told: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """Return an interaction with an event id and a time that do not depend on when it is read."""
        whole = dict(told)
        if whole.get("event_id") is None:
            whole["event_id"] = str(entry.event_id(self._group.stream))
        if whole.get("occurred_at") is None and entry.at is not None:
            whole["occurred_at"] = min(entry.at, self._clock.now()).isoformat()
        return whole

    async def _refuse(self, entries: list[StreamEntry], faults: dict[str, RowFault]) -> None:
        """Bury what can never be stored; who names somebody unknown waits until people before it are stored."""
        behind: datetime | None = None
        if any(self._may_wait(faults[entry.id]) for entry in entries):
            oldest = await self._people.oldest()
            behind = None if oldest is None else instant_of(oldest)
        for entry in entries:
            if not (self._may_wait(faults[entry.id]) and self._waits(entry.at, behind)):
                await self._group.bury(entry, faults[entry.id])

    @staticmethod
    def _may_wait(fault: RowFault) -> bool:
        return fault.code == UnknownUser.code

    def _waits(self, at: datetime | None, behind: datetime | None) -> bool:
        if at is None:
            return False
        return self._clock.now() - at < self._wait or (behind is not None and behind <= at)


async def alone(entry: StreamEntry, store: Storing) -> dict[str, RowFault | None]:
    """Store one entry; what the database cannot take the values of is a fault of the entry."""
    try:
        return await store([entry])
    except StorageUnavailable as error:
        if not is_about_values(error):
            raise
        message = f"cannot be stored: {type(error.__cause__).__name__}"
        return {entry.id: RowFault(code=InvalidRequest.code, field="", message=message)}


def is_about_values(error: StorageUnavailable) -> bool:
    """Say whether the database answered, and cannot take the values that it was given: it never will."""
    return isinstance(error.__cause__, psycopg.DataError)


def _fault(result: InteractionResult) -> RowFault | None:
    return None if result.status in {"stored", "known"} else result.error
