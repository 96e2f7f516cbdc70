"""Stores what one person did about another: durable before it is acknowledged, once per event id.

The very next recommendation reads it, because eligibility is read from Postgres per request. An interaction between
unknown people, in the future, or under an event id that means something else is refused.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.errors import ForeignKeyViolation
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from infra.clock import Clock
from infra.metrics import ServingMetrics
from serving.api_models import InteractionRequest, StoredInteraction
from serving.errors import EventConflict, InvalidRequest, StorageUnavailable, UnknownUser
from serving.reasons import LIKES, SEPARATIONS

CLOCK_TOLERANCE = timedelta(seconds=5)
"""How far ahead of ours a client's clock may be."""

_INSERT = b"""
INSERT INTO duet.interactions (event_id, actor_id, target_id, kind, occurred_at, request_id)
VALUES (%(event_id)s, %(actor_id)s, %(target_id)s, %(kind)s, %(occurred_at)s, %(request_id)s)
ON CONFLICT (event_id) DO NOTHING
"""
_SAME = b"""
SELECT actor_id = %(actor_id)s AND target_id = %(target_id)s AND kind = %(kind)s
FROM duet.interactions WHERE event_id = %(event_id)s
"""
_MATCHED = b"""
SELECT EXISTS (SELECT 1 FROM duet.interactions
               WHERE actor_id = %(target_id)s AND target_id = %(actor_id)s AND kind = ANY(%(likes)s))
"""
_EXISTING = b"SELECT user_id FROM duet.users WHERE user_id = ANY(%s)"


class Interactions:
    """The write path; every statement is bounded by `timeout_s`. `changed` is told whose answers count no more."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        *,
        clock: Clock,
        metrics: ServingMetrics,
        timeout_s: float,
        changed: Callable[[int], None] | None = None,
    ) -> None:
        self._pool = pool
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
        event = {
            **interaction.model_dump(),
            "kind": interaction.kind.value,
            "event_id": interaction.event_id or uuid4(),
            "occurred_at": min(occurred_at, now),
            "likes": [kind.value for kind in LIKES],
        }
        try:
            async with asyncio.timeout(self._timeout_s), self._pool.connection() as connection:
                stored = await self._write(connection, event)
        except ForeignKeyViolation:
            raise await self._unknown(interaction) from None
        except (psycopg.Error, PoolTimeout, TooManyRequests, OSError, TimeoutError) as error:
            self._metrics.interactions.labels(interaction.kind.value, "failed").inc()
            raise StorageUnavailable(
                "The interaction could not be stored: send it again with the same `event_id`."
            ) from error
        status, matched = stored
        self._metrics.interactions.labels(interaction.kind.value, status).inc()
        self._tell(interaction)
        return StoredInteraction(event_id=event["event_id"], status=status, matched=matched, request_id=request_id)

    def _tell(self, interaction: InteractionRequest) -> None:
        if self._changed is None:
            return
        self._changed(interaction.actor_id)
        if interaction.kind in SEPARATIONS:
            self._changed(interaction.target_id)

    async def _write(self, connection: psycopg.AsyncConnection[Any], event: dict[str, Any]) -> tuple[Any, bool]:
        # The block ends with a commit, and only then is the client told.
        async with connection.transaction():
            status = "stored"
            if not (await connection.execute(_INSERT, event)).rowcount:
                status = "known"
                same = await (await connection.execute(_SAME, event)).fetchone()
                if same is None or not same[0]:
                    raise EventConflict(
                        f"The event id `{event['event_id']}` belongs to another interaction: use a new one."
                    )
            matched = False
            if event["kind"] in event["likes"]:
                row = await (await connection.execute(_MATCHED, event)).fetchone()
                matched = bool(row and row[0])
        return status, matched

    async def _unknown(self, interaction: InteractionRequest) -> UnknownUser:
        wanted = {"actor_id": interaction.actor_id, "target_id": interaction.target_id}
        try:
            async with asyncio.timeout(self._timeout_s), self._pool.connection() as connection:
                rows = await (await connection.execute(_EXISTING, [list(wanted.values())])).fetchall()
        except (psycopg.Error, PoolTimeout, TooManyRequests, OSError, TimeoutError):
            rows = []
        known = {row[0] for row in rows}
        details = [
            {"field": name, "message": "nobody has this id"} for name, user_id in wanted.items() if user_id not in known
        ]
        return UnknownUser("The interaction names somebody who does not exist.", details)
