"""Stores people of a stream as `POST /v1/people:batch` does, in the order of the stream.

An entry changes what it names, so its effect depends on those before it. All processes read under one name: what was
read and not acknowledged, the oldest first, is always what comes next. How far the stream is stored is written in the
transaction that stores people, and only if nobody else wrote it since it was read. So an entry that comes again, after
a kill or from a process that slept, is known and changes nothing, and nobody who was erased comes back by it.
"""

from typing import Final

from pydantic import JsonValue

from feature_repo.contract import faults as why
from infra.faults import failpoint
from serving.api.models import RowFault
from serving.errors import StorageUnavailable
from serving.people.stores import Stores
from serving.profiles.models import PeopleBatch
from serving.profiles.stream_positions import StreamPosition, StreamRead
from serving.streams.entries import StreamEntry, opened
from serving.streams.group import StreamGroup
from serving.streams.interaction_entries import REQUEST, alone, is_about_values

IN_ORDER: Final = "in-order"
"""The one consumer of the group, whichever process reads."""
_LATER: Final = RowFault(code="", field="", message="")


class PeopleEntries:
    """Stores what comes next in a stream of people."""

    def __init__(self, group: StreamGroup, stores: Stores, *, batch: int) -> None:
        self._group, self._stores, self._batch = group, stores, batch

    async def round(self) -> None:
        """Store one batch; raises StorageUnavailable, StreamMoved and errors of Redis, and then it is read again."""
        position = await self._position()
        entries = await self._group.mine(IN_ORDER, "0", self._batch)
        if not entries:
            await self._group.fresh(IN_ORDER, self._batch)  # the next round finds them among what was read
            return
        await self._group.settle([entry for entry in entries if entry.removed], "removed")
        entries = [entry for entry in entries if not entry.removed]
        await self._group.settle([entry for entry in entries if position.has(entry.padded)])
        entries = [entry for entry in entries if not position.has(entry.padded)]
        objects, faults = opened(entries)
        for entry in entries:
            if entry.id in faults:
                await self._group.bury(entry, faults[entry.id])
        await self._store([entry for entry in entries if entry.id in objects], objects, position)

    async def _position(self) -> StreamPosition:
        return await StreamPosition.read(self._stores.writes, self._group.stream)

    async def _store(
        self, entries: list[StreamEntry], objects: dict[str, dict[str, JsonValue]], position: StreamPosition
    ) -> None:
        async def stored(part: list[StreamEntry]) -> dict[str, RowFault | None]:
            read = StreamRead(position, [entry.padded for entry in part])
            people = PeopleBatch(people=[objects[entry.id] for entry in part])
            answer = await self._stores.profiles.batch(people, REQUEST, read)
            return {entry.id: result.error for entry, result in zip(part, answer.results, strict=True)}

        if not entries:
            return
        try:
            results = await stored(entries)
        except StorageUnavailable as error:
            if not is_about_values(error):
                raise
            # After one statement the position is another one, so only the first entry can be tried alone.
            results = await alone(entries[0], stored)
        failpoint("stream.after_people")
        await self._group.settle([entry for entry in entries if results.get(entry.id, _LATER) is None])
        for entry in entries:
            fault = results.get(entry.id)
            # Who is named twice in a batch has been changed by the first entry: the next round has the second.
            if fault is not None and fault.code != why.DUPLICATE:
                await self._group.bury(entry, fault)
