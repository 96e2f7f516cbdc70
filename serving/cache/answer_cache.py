"""The tiers as one: what identifies an answer, how long it is kept, and what each look was worth."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Self

import redis.asyncio

from infra.clock import Clock
from infra.metrics import ServingMetrics
from infra.settings import Settings
from registry.contracts import ArtifactKind
from registry.release import Release
from serving.api.recommendation_models import Filters
from serving.cache.entry import FORMAT, Entry
from serving.cache.flights import Flights
from serving.cache.memory import MemoryTier
from serving.cache.shared import CacheBreaker, RedisTier
from serving.experiments.assignment import Variant
from serving.people.wanted import wishes_of
from serving.reasons import Level, Reason, Stage
from serving.recommend.answer_run import Run
from serving.recommend.answers import Showing

_ORDERING: Final = {"n_candidates", "requester_weight", "exploration_share", "exposure_strength", "aggregator"}
"""The settings of serving that decide who is in an answer."""


class Tier(StrEnum):
    """Where an answer was looked for."""

    MEMORY = "memory"
    REDIS = "redis"
    FLIGHT = "flight"


class CacheLook(StrEnum):
    """What came of it: `stale` when the requester changed, `short` when too few may still be shown."""

    HIT = "hit"
    MISS = "miss"
    STALE = "stale"
    SHORT = "short"


@dataclass(frozen=True)
class Made:
    """What a flight brings: the answer of the run that led it, and the list for whoever else waits.

    `steady` unless the requester did or changed something while it was made.
    """

    run: Run
    showing: Showing
    entry: Entry
    steady: bool = True

    def is_hurried_for(self, run: Run) -> bool:
        """Say whether time was too short for this answer, and `run` has more of it."""
        made = self.run
        why = made.first_step_down
        if why is not None and why.reason is Reason.DEADLINE_EXCEEDED:
            return run.deadline.at_s > made.deadline.at_s
        # What a whole budget was too short for is not tried again with what those who waited have left of theirs.
        return made.late and run.deadline.remaining_s() > made.deadline.at_s - made.started_s


class AnswerCache:
    """Kept answers of a process, and those being made; `draw` gives shares in 0..1 for the jitter."""

    def __init__(self, settings: Settings, clock: Clock, metrics: ServingMetrics, draw: Callable[[], float]) -> None:
        self._settings = settings.serving.cache
        self._clock = clock
        self._draw = draw
        self._memory = MemoryTier(self._settings.max_entries, clock, metrics)
        self._shared: RedisTier | None = None
        self._reads = lru_cache(maxsize=None)(metrics.cache_reads.labels)
        ordering = settings.serving.model_dump_json(include=_ORDERING) + settings.ranking.model_dump_json()
        self._prefix = f"{settings.features.project}:answer:{FORMAT}:{_digest(ordering)}"
        # Digests of manifests are made anew at every look; champion and challenger are all there is.
        self._releases: deque[tuple[Release, str]] = deque(maxlen=2)
        self._write_s = settings.redis.socket_timeout_s
        self.flights: Flights[Made] = Flights()

    def attach(self, client: redis.asyncio.Redis, guard: CacheBreaker) -> Self:
        """Use Redis as the second tier."""
        self._shared = RedisTier(client, guard, self._prefix, self._write_s)
        return self

    def key_of(self, run: Run, release: Release, variant: Variant) -> str:
        """Return what identifies an answer, the person aside: limit, arm, release with its bytes, filters."""
        filters = run.request.filters
        asked = "" if filters is None else _asked(filters)
        return f"{run.request.limit}:{variant.value}:{self._identity(release)}:{asked}"

    def expires_at(self, at: float) -> float:
        """Return when an answer made at unix seconds `at` ends: no two made at once end at once."""
        return at + self._settings.ttl_s * (1.0 - self._settings.jitter * self._draw())

    def recall(self, run: Run, key: str) -> Entry | None:
        """Return what this process kept, for Postgres to check."""
        entry = self._memory.get(run.user_id, key)
        if entry is None:
            self.note(Tier.MEMORY, CacheLook.MISS)
        return entry

    async def fetch(self, run: Run, key: str) -> Entry | None:
        """Return what Redis kept, for Postgres to check; None without Redis."""
        if self._shared is None:
            return None
        with run.stage(Stage.CACHE):
            entry = await self._shared.get(run.user_id, key, run.share_s(Stage.CACHE))
        if entry is not None and entry.keeps_at(run.at):
            return entry
        self.note(Tier.REDIS, CacheLook.MISS)
        return None

    def remember(self, key: str, entry: Entry) -> None:
        """Keep an answer in this process."""
        self._memory.put(entry.requester.user_id, key, entry)

    def share(self, key: str, entry: Entry) -> None:
        """Keep an answer in this process and in Redis."""
        self.remember(key, entry)
        if self._shared is not None:
            self._shared.put(entry.requester.user_id, key, entry, entry.expires_at - self._clock.now().timestamp())

    def drop(self, entry: Entry) -> None:
        """Forget what this process keeps for the person of an entry that no longer counts."""
        self._memory.drop(entry.requester.user_id)

    def forget(self, user_id: int) -> None:
        """Drop what this process keeps, or is just making, for a person: the others learn of it by its version."""
        self._memory.drop(user_id)
        self.flights.forget(user_id)

    def note(self, tier: Tier, look: CacheLook) -> None:
        """Count a look."""
        self._reads(tier.value, look.value).inc()

    def _identity(self, release: Release) -> str:
        for known, identity in self._releases:
            if known is release:
                return identity
        digests = (release.manifests[kind].digest[:12] for kind in ArtifactKind)
        identity = "-".join((release.release_id, *digests))
        self._releases.append((release, identity))
        return identity

    async def settled(self) -> None:
        """Wait for what is being written to Redis."""
        if self._shared is not None:
            await self._shared.written()


def keepable(run: Run, level: Level) -> bool:
    """Return whether an answer may be kept: a best one that nothing was missing from."""
    return level is Level.FULL and not run.degraded and not run.request.explain


def _asked(filters: Filters) -> str:
    # The order of interests means nothing, nor does that of attributes.
    interests = None if filters.interests_any is None else sorted(set(filters.interests_any))
    asked = filters.model_dump_json(exclude={"interests_any", "attributes"})
    return _digest(f"{asked}{interests}{wishes_of(filters)}")


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=12).hexdigest()
