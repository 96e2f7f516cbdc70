"""Stores what one person did about another: durable before it is acknowledged, once per event id.

The very next recommendation reads it, because eligibility is read from Postgres per request. An interaction between
unknown people, in the future, or under an event id that means something else is refused. Only the clock of the
database counts: workers whose clocks differ would put a like after a pass that came later.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final, Literal
from uuid import uuid4

import numpy as np
from psycopg.errors import ForeignKeyViolation
from psycopg.types.numeric import Int8

from feature_repo.kinds import SEPARATIONS, Kind
from infra.metrics import ServingMetrics
from serving.api.models import InteractionRequest, StoredInteraction
from serving.errors import EventConflict, InvalidRequest, StorageUnavailable, UnknownUser
from serving.people.statements import Storage

CLOCK_TOLERANCE = timedelta(seconds=5)
"""How far ahead of the database's clock a client's may be; within it, what it says counts as now."""
FUTURE: Final = "must not be in the future"
# One statement is one transaction and one round trip: it has committed when psycopg hands over its row.
_STORE: Final = b"SELECT stored, same, matched FROM duet.store_interaction($1, $2, $3, $4, $5, $6, $7, $8)"
_EXISTING: Final = b"SELECT user_id FROM duet.users WHERE user_id = ANY($1::bigint[])"


class Interactions:
    """The write path; `changed` is told whose answers count no more.

    With `notify`, new matches and blocks go to the outbox of the webhook, and `notify` is called after them.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        metrics: ServingMetrics,
        changed: Callable[[int], None] | None = None,
        notify: Callable[[], None] | None = None,
    ) -> None:
        self._storage = storage
        self._changed = changed
        self._metrics = metrics
        self._notify = notify

    @property
    def notifies(self) -> bool:
        """Say whether new matches and blocks go to the outbox of the webhook."""
        return self._notify is not None

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
            self.notifies,
        ]
        try:
            rows = await self._storage.rows(_STORE, event, "send the interaction again with the same `event_id`.")
        except ForeignKeyViolation:
            raise await self._unknown(interaction) from None
        except StorageUnavailable:
            self._metrics.interactions.labels(interaction.kind.value, "failed").inc()
            raise
        stored, same, matched = rows[0]
        if same is None:
            raise InvalidRequest(
                "The interaction lies in the future: send `occurred_at` as it happened, or leave it out.",
                [{"field": "occurred_at", "message": FUTURE}],
            )
        if not same:
            raise EventConflict(f"The event id `{event_id}` belongs to another interaction: use a new one.")
        return StoredInteraction(
            event_id=event_id,
            status=self.note(interaction, stored=stored, matched=matched),
            matched=matched,
            request_id=request_id,
        )

    def note(self, interaction: InteractionRequest, *, stored: bool, matched: bool) -> Literal["stored", "known"]:
        """Count an interaction that is durable, let the answers go that it changes, and return its status."""
        status: Literal["stored", "known"] = "stored" if stored else "known"
        self._metrics.interactions.labels(interaction.kind.value, status).inc()
        if self._notify is not None and stored and (matched or interaction.kind is Kind.BLOCK):
            self._notify()
        if self._changed is not None:
            self._changed(interaction.actor_id)
            if interaction.kind in (*SEPARATIONS, Kind.UNBLOCK):
                self._changed(interaction.target_id)
        return status

    async def _unknown(self, interaction: InteractionRequest) -> UnknownUser:
        wanted = {"actor_id": interaction.actor_id, "target_id": interaction.target_id}
        try:
            ids = np.array(list(wanted.values()), dtype=np.int64)
            rows = await self._storage.rows(_EXISTING, [ids], "send the interaction again.")
        except StorageUnavailable:
            rows = []
        known = {row[0] for row in rows}
        details = [
            {"field": name, "message": "nobody has this id"} for name, user_id in wanted.items() if user_id not in known
        ]
        return UnknownUser("The interaction names somebody who does not exist.", details)
