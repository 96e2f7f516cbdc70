"""The events that the webhook was not told of yet: rows of Postgres, which `duet.store_interaction` writes.

A worker claims rows for a while; what it does not finish in time is claimed again, by it or by another. So an event is
delivered at least once, whoever is killed meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from psycopg.types.numeric import Int8

from infra.db.connection_pool import ConnectionPool
from infra.db.pooled import fetch_all

_CLAIM: Final = b"""
WITH mine AS (
    SELECT event_id FROM duet.webhook_events WHERE due_at <= clock_timestamp()
    ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE duet.webhook_events e SET attempts = e.attempts + 1, due_at = clock_timestamp() + $2
    FROM mine WHERE e.event_id = mine.event_id RETURNING e.*
)
SELECT event_id, kind, occurred_at, attempts, actor_id, actor.external_id, target_id, target.external_id
FROM claimed JOIN duet.users actor ON actor.user_id = actor_id JOIN duet.users target ON target.user_id = target_id
"""
_DELIVERED: Final = b"DELETE FROM duet.webhook_events WHERE event_id = ANY($1::uuid[]) RETURNING true"
_LATER: Final = b"""
UPDATE duet.webhook_events e SET due_at = clock_timestamp() + late.pause
FROM unnest($1::uuid[], $2::interval[]) AS late (event_id, pause) WHERE e.event_id = late.event_id RETURNING true
"""
_GIVE_UP: Final = b"""
DELETE FROM duet.webhook_events WHERE created_at < clock_timestamp() - $1
    OR event_id IN (SELECT event_id FROM duet.webhook_events ORDER BY created_at DESC OFFSET $2) RETURNING true
"""
_WAITING: Final = b"""
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 FROM duet.webhook_events
"""


@dataclass(frozen=True)
class WebhookEvent:
    """A match or a block as a receiver is told of it; `attempts` counts this delivery."""

    event_id: UUID
    kind: str
    occurred_at: datetime
    attempts: int
    actor: int | str
    target: int | str


@dataclass(frozen=True)
class Backlog:
    """How many events wait for delivery, and the age of the oldest, seconds."""

    waiting: int
    oldest_s: float


class Outbox:
    """Every method raises what `fetch_all` raises."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    async def claim(self, most: int, lease: timedelta) -> list[WebhookEvent]:
        """Return up to `most` events that are due; for the length of `lease` nobody else gets them."""
        rows = await fetch_all(self._pool, _CLAIM, [Int8(most), lease])
        return [
            WebhookEvent(event_id, kind, at, attempts, actor_name or actor, target_name or target)
            for event_id, kind, at, attempts, actor, actor_name, target, target_name in rows
        ]

    async def delivered(self, events: Sequence[UUID]) -> None:
        """Forget events that arrived."""
        await fetch_all(self._pool, _DELIVERED, [list(events)])

    async def later(self, pauses: Mapping[UUID, timedelta]) -> None:
        """Send events again, each after its pause."""
        await fetch_all(self._pool, _LATER, [list(pauses), list(pauses.values())])

    async def give_up(self, age: timedelta, most: int) -> int:
        """Forget events older than `age` and the oldest beyond `most`; return how many."""
        rows: Sequence[object] = await fetch_all(self._pool, _GIVE_UP, [age, Int8(most)])
        return len(rows)

    async def backlog(self) -> Backlog:
        """Return what waits."""
        ((waiting, oldest_s),) = await fetch_all(self._pool, _WAITING, [])
        return Backlog(waiting, oldest_s)
