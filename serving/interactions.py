"""Stores what one person did about another: durable before it is acknowledged, once per event id.

The very next recommendation reads it, because eligibility is read from Postgres per request. An interaction between
unknown people, in the future, or under an event id that means something else is refused.
"""

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, Literal
from uuid import UUID, uuid4

import numpy as np
import psycopg
from psycopg.errors import ForeignKeyViolation
from psycopg.types.numeric import Int8
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from infra.clock import Clock
from infra.metrics import ServingMetrics
from infra.pooled import PooledConnection, fetch_all
from serving.api_models import InteractionRequest, StoredInteraction
from serving.errors import BreakerOpen, EventConflict, InvalidRequest, StorageUnavailable, UnknownUser
from serving.reasons import SEPARATIONS
from serving.resilience.breaker import Breaker

CLOCK_TOLERANCE = timedelta(seconds=5)
"""How far ahead of ours a client's clock may be."""

# One statement is one transaction and one round trip: it has committed when psycopg hands over its row. An event id
# that another transaction is just storing is waited for; the row of that one is then not visible to this statement.
_STORE: Final = b"""
WITH inserted AS (
    INSERT INTO duet.interactions (event_id, actor_id, target_id, kind, occurred_at, request_id)
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (event_id) DO NOTHING RETURNING 1
)
SELECT EXISTS (SELECT 1 FROM inserted),
    (SELECT actor_id = $2 AND target_id = $3 AND kind = $4 FROM duet.interactions WHERE event_id = $1),
    $4 IN ('like', 'superlike') AND EXISTS (
        SELECT 1 FROM duet.interactions
        WHERE actor_id = $3 AND target_id = $2 AND kind IN ('like', 'superlike'))
"""
_EXISTING: Final = b"SELECT user_id FROM duet.users WHERE user_id = ANY($1::bigint[])"


class Interactions:
    """The write path; every statement is bounded by `timeout_s`. `changed` is told whose answers count no more."""

    def __init__(
        self,
        pool: AsyncConnectionPool[PooledConnection],
        breaker: Breaker,
        *,
        clock: Clock,
        metrics: ServingMetrics,
        timeout_s: float,
        changed: Callable[[int], None] | None = None,
    ) -> None:
        self._pool = pool
        self._breaker = breaker
        self._changed = changed
        self._clock = clock
        self._metrics = metrics
        self._timeout_s = timeout_s

    async def store(self, interaction: InteractionRequest, request_id: UUID) -> StoredInteraction:
        """Store one interaction and say whether it was new; raises an ApiError and then nothing is stored."""
        now = self._clock.now()
        occurred_at = interaction.occurred_at or now
        if occurred_at > now + CLOCK_TOLERANCE:
            raise InvalidRequest(
                "The interaction lies in the future: send `occurred_at` as it happened, or leave it out.",
                [{"field": "occurred_at", "message": "must not be in the future"}],
            )
        event_id = interaction.event_id or uuid4()
        event = [
            event_id,
            Int8(interaction.actor_id),
            Int8(interaction.target_id),
            interaction.kind.value,
            min(occurred_at, now),
            interaction.request_id,
        ]
        try:
            stored, same, matched = await self._breaker.call(lambda: self._write(event), self._timeout_s)
        except ForeignKeyViolation:
            raise await self._unknown(interaction) from None
        except BreakerOpen as error:
            self._metrics.interactions.labels(interaction.kind.value, "failed").inc()
            raise StorageUnavailable(
                "The database is away: send the interaction again with the same `event_id`.",
                retry_after_s=max(1, math.ceil(error.retry_after_s)),
            ) from error
        except (psycopg.Error, PoolTimeout, TooManyRequests, OSError, TimeoutError) as error:
            self._metrics.interactions.labels(interaction.kind.value, "failed").inc()
            raise StorageUnavailable(
                "The interaction could not be stored: send it again with the same `event_id`.", retry_after_s=1
            ) from error
        if not stored and not same:
            raise EventConflict(f"The event id `{event_id}` belongs to another interaction: use a new one.")
        status: Literal["stored", "known"] = "stored" if stored else "known"
        self._metrics.interactions.labels(interaction.kind.value, status).inc()
        self._tell(interaction)
        return StoredInteraction(event_id=event_id, status=status, matched=matched, request_id=request_id)

    def _tell(self, interaction: InteractionRequest) -> None:
        if self._changed is None:
            return
        self._changed(interaction.actor_id)
        if interaction.kind in SEPARATIONS:
            self._changed(interaction.target_id)

    async def _write(self, event: list[Any]) -> tuple[bool, bool, bool]:
        stored, same, matched = (await fetch_all(self._pool, _STORE, event))[0]
        if not stored and same is None:
            # Whoever stored this event id committed while we waited: now their row can be seen.
            stored, same, matched = (await fetch_all(self._pool, _STORE, event))[0]
        return stored, bool(same), matched

    async def _unknown(self, interaction: InteractionRequest) -> UnknownUser:
        wanted = {"actor_id": interaction.actor_id, "target_id": interaction.target_id}
        try:
            async with asyncio.timeout(self._timeout_s):
                rows = await fetch_all(self._pool, _EXISTING, [np.array(list(wanted.values()), dtype=np.int64)])
        except (psycopg.Error, PoolTimeout, TooManyRequests, OSError, TimeoutError):
            rows = []
        known = {row[0] for row in rows}
        details = [
            {"field": name, "message": "nobody has this id"} for name, user_id in wanted.items() if user_id not in known
        ]
        return UnknownUser("The interaction names somebody who does not exist.", details)
