"""Reads who asks from a replica while it is near enough to now; the last word before an answer is the primary's.

A replica that is dead, slow or behind costs a small share of the time and then the primary is asked. One that misses
what the requester has just done is found out by the last check, which counts on the primary.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from infra.clock import Clock
from infra.db import postgres
from infra.db.connection_pool import ConnectionPool
from infra.metrics import ServingMetrics
from infra.settings import Settings
from infra.urls import libpq_url
from serving.api.health import ReplicaReport
from serving.errors import EligibilityUnknown
from serving.people.people_store import Drawn, Int64, PairStanding, PeopleStore, PostgresPeople, RequesterRow
from serving.people.replica_lag import WITHIN_S, ReplicaLag, replayed_by, written_by
from serving.resilience.breaker import Breaker, BreakerState
from serving.resilience.health_checker import OneConnection

T = TypeVar("T")
SHARE: Final = 0.25
"""Of a read's time, what the replica may take before the primary is asked."""


class ReplicatedPeople:
    """The PeopleStore that spares the primary; `usable` says whether the replica may be read now."""

    def __init__(self, primary: PeopleStore, replica: PeopleStore, usable: Callable[[], bool], clock: Clock) -> None:
        self._primary = primary
        self._replica = replica
        self._usable = usable
        self._clock = clock

    async def requester(
        self, user_id: int, timeout_s: float, *, since: datetime | None = None, fresh: bool = False
    ) -> RequesterRow | None:
        """Return the requester, or None when nobody has this id; `fresh` reads the primary."""
        until_s = self._clock.monotonic() + timeout_s
        row = (
            None
            if fresh
            else await self._tried(partial(self._replica.requester, since=since), user_id, timeout_s=timeout_s)
        )
        if row is not None:
            return replace(row, replicated=True)
        # Whoever is not there yet may have come to the primary this instant.
        return await self._primary.requester(user_id, self._left_s(until_s), since=since, fresh=True)

    async def standing(
        self,
        user_id: int,
        candidate_ids: Int64,
        *,
        since: datetime | None,
        interests: list[str] | None,
        attributes: str | None = None,
        timeout_s: float,
    ) -> PairStanding:
        """Return how requester and candidates stand now: only the primary knows."""
        return await self._primary.standing(
            user_id, candidate_ids, since=since, interests=interests, attributes=attributes, timeout_s=timeout_s
        )

    async def some_visible(self, share: float, n: int, timeout_s: float, attributes: str | None = None) -> Drawn:
        """Return up to `n` visible people, from a place in the id range given by `share` in 0..1."""
        until_s = self._clock.monotonic() + timeout_s
        drawn = await self._tried(
            partial(self._replica.some_visible, attributes=attributes), share, n, timeout_s=timeout_s
        )
        if drawn is not None:
            return drawn
        return await self._primary.some_visible(share, n, self._left_s(until_s), attributes)

    async def _tried(self, read: Callable[..., Awaitable[T]], *what: object, timeout_s: float) -> T | None:
        if not self._usable():
            return None
        try:
            return await read(*what, timeout_s * SHARE)
        except EligibilityUnknown:
            return None

    def _left_s(self, until_s: float) -> float:
        return max(until_s - self._clock.monotonic(), 0.0)


@dataclass(frozen=True)
class Replica:
    """The read replica of a serving process: its pool, its reads, and how far it is behind."""

    pool: ConnectionPool
    people: PostgresPeople
    breaker: Breaker
    lag: ReplicaLag
    opened: AsyncExitStack

    def usable(self) -> bool:
        """Return whether a read of it would be near enough to now, and is not cut off."""
        return self.lag.near() and self.breaker.state is not BreakerState.OPEN

    def report(self) -> ReplicaReport:
        """Return what /health says of it."""
        return ReplicaReport(
            status="up" if self.lag.problem is None else "down",
            message=self.lag.problem,
            lag_s=self.lag.seconds,
            used=self.usable(),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self.opened.aclose()


async def open_replica(
    settings: Settings, database_url: str, breaker: Breaker, clock: Clock, metrics: ServingMetrics
) -> Replica | None:
    """Return the replica that the settings name, whether it is up or not; None without one."""
    if settings.postgres.read_replica_url is None:
        return None
    replica_url = libpq_url(settings.postgres.read_replica_url.get_secret_value())
    opened = AsyncExitStack()
    pool = postgres.open_pool(replica_url, settings.postgres, application_name="duet-serving-replica")
    pool.open()
    opened.push_async_callback(pool.close)
    asked = []
    for url in (database_url, replica_url):
        connection = OneConnection.to(url, within_s=WITHIN_S, application_name="duet-serving-lag")
        opened.push_async_callback(connection.close)
        asked.append(connection)
    lag = ReplicaLag(
        written_by(asked[0]),
        replayed_by(asked[1]),
        max_lag_s=settings.postgres.replica_max_lag_s,
        clock=clock,
        gauge=metrics.replica_lag_seconds,
    )
    people = PostgresPeople(pool, breaker, pending_likes=settings.ranking.pending_likes)
    return Replica(pool, people, breaker, lag, opened)
