"""The first tier: answers in this process, least recently used first out, each with an end of its own."""

from typing import Final

from cachetools import TLRUCache

from infra.clock import Clock
from infra.metrics import ServingMetrics
from serving.cache.entry import Entry

PER_PERSON: Final = 8
"""Answers kept of one person, for different limits, filters and arms: the latest."""
_Kept = dict[str, Entry]


class MemoryTier:
    """At most `max_entries` answers, by person, so that all of a person's go at once."""

    def __init__(self, max_entries: int, clock: Clock, metrics: ServingMetrics) -> None:
        self._clock = clock
        self._per_person = min(PER_PERSON, max_entries)
        self._size = metrics.cache_entries
        self._people = _Counting(max_entries, clock, metrics)

    def __len__(self) -> int:
        return int(self._people.currsize)

    def get(self, user_id: int, key: str) -> Entry | None:
        """Return a kept answer that has not expired."""
        kept = self._people.get(user_id)
        entry = kept.get(key) if kept is not None else None
        return entry if entry is not None and entry.keeps_at(self._clock.now().timestamp()) else None

    def put(self, user_id: int, key: str, entry: Entry) -> None:
        """Keep an answer; the person's oldest goes when they have too many."""
        now = self._clock.now().timestamp()
        kept = {
            name: other
            for name, other in (self._people.get(user_id) or {}).items()
            if name != key and other.keeps_at(now)
        }
        for name in list(kept)[: max(len(kept) + 1 - self._per_person, 0)]:
            del kept[name]
        self._people[user_id] = {**kept, key: entry}
        self._size.set(self._people.currsize)

    def drop(self, user_id: int) -> None:
        """Forget a person's answers."""
        self._people.pop(user_id, None)
        self._size.set(self._people.currsize)


class _Counting(TLRUCache[int, _Kept]):
    """Counts who is pushed out for want of room; what expires is not pushed out."""

    def __init__(self, max_entries: int, clock: Clock, metrics: ServingMetrics) -> None:
        def until(_user_id: int, kept: _Kept, now_s: float) -> float:
            return now_s + max(entry.expires_at for entry in kept.values()) - clock.now().timestamp()

        super().__init__(max_entries, ttu=until, timer=clock.monotonic, getsizeof=len)
        self._evictions = metrics.cache_evictions

    def popitem(self) -> tuple[int, _Kept]:
        user_id, kept = super().popitem()
        self._evictions.inc(len(kept))
        return user_id, kept
