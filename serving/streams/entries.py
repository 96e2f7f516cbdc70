"""An entry of a stream: its id, the moment that it tells, and the JSON object that it brings."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid5

from pydantic import JsonValue
from pydantic_core import from_json

from serving.api import strict_json
from serving.api.models import RowFault
from serving.errors import BodyTooLarge, InvalidRequest, MalformedBody

FIELD: Final = "json"
"""The field of an entry that holds its JSON object."""
MAX_BYTES: Final = 65536
_EVENTS: Final = UUID("6f1b8f0e-6f0e-5c55-9a52-2d2b8c1f7f10")
_EARLIEST_MS: Final = 1_577_836_800_000
"""2020: a smaller number in an id was chosen by a producer, and is no time."""
_LATEST_MS: Final = 253_370_764_800_000


@dataclass(frozen=True)
class StreamEntry:
    """What was read; `body` is None without the field, and `removed` says that the stream has the entry no more."""

    id: str
    body: bytes | None
    removed: bool = False

    @property
    def padded(self) -> str:
        """Return the id in the form that sorts as text."""
        ms, _, nth = self.id.partition("-")
        return f"{int(ms):020d}-{int(nth):020d}"

    @property
    def at(self) -> datetime | None:
        """Return when it was added, as its id has it; None where the id is no time."""
        return instant_of(self.id)

    def event_id(self, stream: str) -> UUID:
        """Return the event id of an interaction that was sent without one: the same whenever it is read."""
        return uuid5(_EVENTS, f"{stream}/{self.id}")


def instant_of(entry_id: str) -> datetime | None:
    """Return the moment that an id tells; entries of one millisecond follow each other by microseconds."""
    ms, _, nth = entry_id.partition("-")
    if not _EARLIEST_MS <= int(ms) <= _LATEST_MS:
        return None
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=int(ms), microseconds=min(int(nth), 999))


def opened(entries: Sequence[StreamEntry]) -> tuple[dict[str, dict[str, JsonValue]], dict[str, RowFault]]:
    """Return by id the object of each entry that has one, and why each other one has none."""
    objects: dict[str, dict[str, JsonValue]] = {}
    faults: dict[str, RowFault] = {}
    for entry in entries:
        if entry.body is None:
            faults[entry.id] = RowFault(
                code=InvalidRequest.code, field=FIELD, message="is missing: put the JSON object into this field"
            )
        elif len(entry.body) > MAX_BYTES:
            message = f"is {len(entry.body)} bytes long: at most {MAX_BYTES} are taken"
            faults[entry.id] = RowFault(code=BodyTooLarge.code, field=FIELD, message=message)
        else:
            try:
                strict_json.check(entry.body)
            except MalformedBody as error:
                faults[entry.id] = RowFault(code=error.code, field=FIELD, message=error.message)
            else:
                objects[entry.id] = from_json(entry.body)
    return objects, faults
