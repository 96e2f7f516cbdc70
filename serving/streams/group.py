"""A stream of Redis as its consumer group sees it; whatever fails is an error of redis-py, and nothing is tried twice.

An entry is acknowledged by scripts, so that it is counted, and becomes a dead letter, once: the second who tries finds
that it is not pending any more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import redis
from redis.asyncio import Redis

from infra.stream_settings import StreamSettings
from serving.api.models import RowFault
from serving.streams.entries import FIELD, MAX_BYTES, StreamEntry, instant_of

BLOCK_MS: Final = 1000
"""How long a look for new entries waits for one."""
OUTCOMES: Final = ("stored", "dead_letter", "removed")
_GONE_MS: Final = 86_400_000
_MOST_COUNTED: Final = 10_000
_SETTLE: Final = """
local settled = 0
for place = 3, #ARGV do settled = settled + redis.call('XACK', KEYS[1], ARGV[1], ARGV[place]) end
if settled > 0 then redis.call('HINCRBY', KEYS[2], ARGV[2], settled) end
return settled
"""
# The dead letter first: where Redis is full, the entry stays pending.
_BURY: Final = """
if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1) == 0 then return 0 end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', unpack(ARGV, 4))
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('HINCRBY', KEYS[2], 'dead_letter', 1)
return 1
"""
# Before Redis 7, XINFO does not say how many entries were not read yet.
_COUNT: Final = "return #redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])"


@dataclass(frozen=True)
class Lag:
    """What is not stored yet: how many entries, since when the oldest waits, and what became of all others."""

    waiting: int
    oldest_at: datetime | None
    settled: Mapping[str, int]


class StreamGroup:
    """One stream, read for `settings.group`."""

    def __init__(self, client: Redis, stream: str, settings: StreamSettings) -> None:
        self._client = client
        self.stream = stream
        self._group = settings.group
        self._settings = settings
        self.dead_letters = f"{stream}:dead"
        self._counts = f"{stream}:{settings.group}:settled"
        self._settle = client.register_script(_SETTLE)
        self._bury = client.register_script(_BURY)
        self._count = client.register_script(_COUNT)

    async def ensure(self) -> None:
        """Make the group where there is none; it begins with the first entry that the stream has."""
        try:
            await self._client.xgroup_create(self.stream, self._group, id="0", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def fresh(self, consumer: str, most: int, block_ms: int = BLOCK_MS) -> list[StreamEntry]:
        """Return entries that nobody has read, after waiting for the first; they are this consumer's then."""
        return await self._read(consumer, ">", most, block=block_ms)

    async def mine(self, consumer: str, after: str, most: int) -> list[StreamEntry]:
        """Return what a consumer has read and not acknowledged, the oldest first."""
        return await self._read(consumer, after, most)

    async def _read(self, consumer: str, after: str, most: int, **more: Any) -> list[StreamEntry]:
        found = await self._client.xreadgroup(self._group, consumer, {self.stream: after}, count=most, **more)
        return [
            StreamEntry(entry_id.decode(), fields.get(FIELD.encode()), removed=not fields)
            for _, entries in found or []
            for entry_id, fields in entries
        ]

    async def claim(self, consumer: str, most: int) -> int:
        """Take over what consumers that have fallen silent did not acknowledge, and return how much."""
        idle_ms, start, taken = int(self._settings.claim_after_s * 1000), "0-0", 0
        while True:
            start, entries, *removed = await self._client.xautoclaim(
                self.stream, self._group, consumer, idle_ms, start_id=start, count=most
            )
            if any(removed):  # since Redis 7 what a producer removed is forgotten here, and named
                await self._client.hincrby(self._counts, "removed", len(removed[0]))  # type: ignore[misc]
            taken += len(entries)
            if start == b"0-0" or taken >= most:
                return taken

    async def settle(self, entries: Sequence[StreamEntry], outcome: str = "stored") -> None:
        """Acknowledge and count entries."""
        if entries:
            keys = [self.stream, self._counts]
            await self._settle(keys=keys, args=[self._group, outcome, *(entry.id for entry in entries)])

    async def bury(self, entry: StreamEntry, why: RowFault) -> None:
        """Put an entry that cannot be stored among the dead letters, and acknowledge it."""
        told = {"id": entry.id, "code": why.code, "field": why.field, "message": why.message}
        fields = [part for pair in told.items() for part in pair]
        keys = [self.stream, self._counts, self.dead_letters]
        body = (entry.body or b"")[:MAX_BYTES]
        most = self._settings.dead_letters_max
        await self._bury(keys=keys, args=[self._group, entry.id, most, *fields, FIELD, body])

    async def oldest(self) -> str | None:
        """Return the id of the oldest entry that is not stored, None where all are."""
        return await self._oldest(await self._described())

    async def _oldest(self, group: dict[str, Any] | None) -> str | None:
        first = await self._client.xrange(self.stream, min=f"({_after(group)}", count=1)
        found = [entry_id.decode() for entry_id, _ in first]
        if group is not None:
            pending = await self._client.xpending(self.stream, self._group)
            found += [] if pending["min"] is None else [pending["min"].decode()]
        return min(found, key=_order, default=None)

    async def lag(self) -> Lag:
        """Return how far the group is behind; before Redis 7, at most 10,000 entries that were never read count."""
        group = await self._described()
        oldest = await self._oldest(group)
        counts = await self._client.hgetall(self._counts)  # type: ignore[misc]  # of the synchronous client
        unread = None if group is None else group.get("lag")
        if unread is None:
            unread = await self._count(keys=[self.stream], args=[f"({_after(group)}", _MOST_COUNTED])
        return Lag(
            waiting=int(unread) + (0 if group is None else group["pending"]),
            oldest_at=None if oldest is None else instant_of(oldest),
            settled={outcome: int(counts.get(outcome.encode(), 0)) for outcome in OUTCOMES},
        )

    async def trim(self, now: datetime) -> None:
        """Remove dead letters that are too old, and stored entries where the settings want it."""
        settings = self._settings
        kept_ms = int((now.timestamp() - settings.dead_letters_kept_s) * 1000)
        await self._client.xtrim(self.dead_letters, minid=str(max(kept_ms, 0)), approximate=False)
        if settings.keep_s is not None:
            kept = f"{max(int((now.timestamp() - settings.keep_s) * 1000), 0)}-0"
            oldest = await self.oldest()
            kept = kept if oldest is None else min(kept, oldest, key=_order)
            await self._client.xtrim(self.stream, minid=kept, approximate=False)

    async def leave(self, consumer: str) -> None:
        """Forget a consumer that has nothing to acknowledge, and others like it that were silent for a day."""
        for one in await self._client.xinfo_consumers(self.stream, self._group):
            name = one["name"].decode()
            if not one["pending"] and (name == consumer or one["idle"] > _GONE_MS):
                await self._client.xgroup_delconsumer(self.stream, self._group, name)

    async def _described(self) -> dict[str, Any] | None:
        try:
            groups = await self._client.xinfo_groups(self.stream)
        except redis.ResponseError as error:
            if "no such key" in str(error):
                return None
            raise
        return next((group for group in groups if group["name"] == self._group.encode()), None)


def _after(group: dict[str, Any] | None) -> str:
    return "0-0" if group is None else str(group["last-delivered-id"].decode())


def _order(entry_id: str) -> tuple[int, int]:
    ms, _, nth = entry_id.partition("-")
    return int(ms), int(nth)
