"""Stores what one person did about another: durable before it is acknowledged, once per event id.

The very next recommendation reads it, because eligibility is read from Postgres per request. An interaction between
unknown people, in the future, or under an event id that means something else is refused. Only the clock of the
database counts: workers whose clocks differ would put a like after a pass that came later.
"""

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Final, Literal
from uuid import uuid4

import numpy as np
import psycopg
from psycopg.errors import ForeignKeyViolation
from psycopg.types.numeric import Int8

from feature_repo.kinds import SEPARATIONS
from infra.connection_pool import ConnectionPool
from infra.errors import NoConnection
from infra.metrics import ServingMetrics
from infra.pooled import fetch_all
from serving.api_models import InteractionRequest, StoredInteraction
from serving.errors import BreakerOpen, EventConflict, InvalidRequest, StorageUnavailable, UnknownUser
from serving.resilience.breaker import Breaker

CLOCK_TOLERANCE = timedelta(seconds=5)
"""How far ahead of the database's clock a client's may be; within it, what it says counts as now."""
# One statement is one transaction and one round trip: it has committed when psycopg hands over its row.
_STORE: Final = b"SELECT stored, same, matched FROM duet.store_interaction($1, $2, $3, $4, $5, $6, $7)"
_EXISTING: Final = b"SELECT user_id FROM duet.users WHERE user_id = ANY($1::bigint[])"


class Interactions:
    """The write path; every statement is bounded by `timeout_s`. `changed` is told whose answers count no more."""

    def __init__(
        self,
        pool: ConnectionPool,
        breaker: Breaker,
        *,
        metrics: ServingMetrics,
        timeout_s: float,
        changed: Callable[[int], None] | None = None,
    ) -> None:
        self._pool = pool
        self._breaker = breaker
        self._changed = changed
        self._metrics = metrics
        self._timeout_s = timeout_s

    async def store(self, interaction: InteractionRequest, request_id: str) -> StoredInteraction:
        """Store one interaction and say whether it was new; raises an ApiError and then nothing is stored."""
        event_id = interaction.event_id or uuid4()
        event = [
            event_id,
            Int8(interaction.actor_id),
            Int8(interaction.target_id),
            interaction.kind.value,
            interaction.occurred_at,
            interaction.request_id,
            CLOCK_TOLERANCE,
        ]
        try:
            rows = await self._breaker.call(lambda: fetch_all(self._pool, _STORE, event), self._timeout_s)
        except ForeignKeyViolation:
            raise await self._unknown(interaction) from None
        except BreakerOpen as error:
            self._metrics.interactions.labels(interaction.kind.value, "failed").inc()
            raise StorageUnavailable(
                "The database is away: send the interaction again with the same `event_id`.",
                retry_after_s=max(1, math.ceil(error.retry_after_s)),
            ) from error
        except (psycopg.Error, NoConnection, OSError, TimeoutError) as error:
            self._metrics.interactions.labels(interaction.kind.value, "failed").inc()
            raise StorageUnavailable(
                "The interaction could not be stored: send it again with the same `event_id`.", retry_after_s=1
            ) from error
        stored, same, matched = rows[0]
        if same is None:
            raise InvalidRequest(
                "The interaction lies in the future: send `occurred_at` as it happened, or leave it out.",
                [{"field": "occurred_at", "message": "must not be in the future"}],
            )
        if not same:
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

    async def _unknown(self, interaction: InteractionRequest) -> UnknownUser:
        wanted = {"actor_id": interaction.actor_id, "target_id": interaction.target_id}
        try:
            async with asyncio.timeout(self._timeout_s):
                rows = await fetch_all(self._pool, _EXISTING, [np.array(list(wanted.values()), dtype=np.int64)])
        except (psycopg.Error, NoConnection, OSError, TimeoutError):
            rows = []
        known = {row[0] for row in rows}
        details = [
            {"field": name, "message": "nobody has this id"} for name, user_id in wanted.items() if user_id not in known
        ]
        return UnknownUser("The interaction names somebody who does not exist.", details)
