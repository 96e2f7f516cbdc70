"""What the calls about people and interactions write to and read from, on one pool."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from infra.clock import Clock
from infra.db.connection_pool import ConnectionPool
from infra.metrics import ServingMetrics
from infra.person_names import PersonNames
from infra.settings import Settings
from serving.people.interactions import Interactions
from serving.people.names import Names
from serving.people.relations import Relations
from serving.people.statements import Storage
from serving.profiles.erasing import Erasing
from serving.profiles.profiles import Profiles
from serving.resilience.breaker import Breaker, Dependency


@dataclass(frozen=True)
class Stores:
    """Everything that such a call asks."""

    writes: Storage
    names: Names
    interactions: Interactions
    profiles: Profiles
    erasing: Erasing
    relations: Relations

    @classmethod
    def on(
        cls,
        pool: ConnectionPool,
        breakers: Mapping[Dependency, Breaker],
        settings: Settings,
        *,
        clock: Clock,
        metrics: ServingMetrics,
        changed: Callable[[int], None] | None,
        notify: Callable[[], None] | None = None,
    ) -> Self:
        """Return them; a statement may take half of the time of a request. The last two as `Interactions` has them."""
        within_s = settings.serving.timeout_s / 2
        writes = Storage(pool, breakers[Dependency.POSTGRES_WRITES], within_s)
        reads = Storage(pool, breakers[Dependency.POSTGRES], within_s)
        return cls(
            writes,
            Names(reads),
            Interactions(writes, metrics=metrics, changed=changed, notify=notify),
            Profiles(writes, reads, clock, changed),
            Erasing(writes, reads, PersonNames.of(settings), changed),
            Relations(reads, pending_likes=settings.ranking.pending_likes),
        )
