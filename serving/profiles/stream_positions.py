"""How far a stream of people is stored: kept by Postgres, in the transaction that stores them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from psycopg.types.numeric import Int8

from serving.people.statements import Storage

_READ: Final = b"SELECT version, upto, unsettled FROM duet.stream_positions WHERE stream = $1"


@dataclass(frozen=True)
class StreamPosition:
    """Everything up to the id `upto` is stored but what is `unsettled`; ids are padded, so that they sort as text."""

    stream: str
    version: int
    upto: str
    unsettled: frozenset[str]

    @classmethod
    async def read(cls, reads: Storage, stream: str) -> Self:
        """Return it as it is now; raises StorageUnavailable."""
        rows = await reads.rows(_READ, [stream], "ask again.")
        version, upto, unsettled = rows[0] if rows else (0, "", [])
        return cls(stream, version, upto, frozenset(unsettled))

    def has(self, entry: str) -> bool:
        """Say whether an entry is stored."""
        return entry <= self.upto and entry not in self.unsettled


@dataclass(frozen=True)
class StreamRead:
    """A batch that was read while the stream stood at `at`; `entries` are the ids of its people by place."""

    at: StreamPosition
    entries: Sequence[str]

    def position(self, places: Sequence[int]) -> list[Any]:
        """Return what is stored beside the people of these places."""
        stored = [self.entries[place] for place in places]
        others = sorted(set(self.entries) - set(stored))
        return [self.at.stream, Int8(self.at.version), stored, others]
