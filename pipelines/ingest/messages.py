"""Tell data of messages from data of likes and passes: in them a contact that waits for an answer is worth showing.

Where nobody passes and many contacts are answered, who wrote to somebody and waits is the best candidate there is; the
setting that allows it is off by default, because a dating app must not disclose a like.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psycopg
from psycopg import sql

from feature_repo.kinds import LIKES, Kind, listed

if TYPE_CHECKING:
    from pipelines.features.events import Events

SETTING: Final = "DUET_RANKING__PENDING_LIKES"
_LEAST_CONTACTS = 30
_LEAST_ANSWERED = 0.2
_MOST_CONTACTS = 1_000_000

_COUNT = sql.SQL("""
    SELECT count(*), count(*) FILTER (WHERE is_answered) FROM (
        SELECT count(DISTINCT actor_id) = 2 AS is_answered FROM {table}
        WHERE kind IN ({likes}) AND (actor_id %% %(every)s + target_id %% %(every)s) %% %(every)s = 0
        GROUP BY least(actor_id, target_id), greatest(actor_id, target_id)
    ) AS pairs
""")


@dataclass(frozen=True)
class Contacts:
    """How many passes there are, between how many pairs somebody made contact, and how many of those were answered."""

    passes: int
    contacts: int
    answered: int

    @classmethod
    def of(cls, events: "Events") -> "Contacts":
        """Count the interactions of a snapshot."""
        liked = events.take(events.is_like)
        first, second = np.minimum(liked.pair, liked.reversed_pair), liked.pair
        contacts = np.unique(first).size
        return cls(int((events.is_decision & ~events.is_like).sum()), contacts, np.unique(second).size - contacts)

    @classmethod
    def staged(cls, connection: psycopg.Connection[Any], table: str) -> "Contacts":
        """Count the rows of an import, a share of the pairs where there are more than a million rows.

        The pairs are counted only where nobody passes.
        """
        name = sql.Identifier(table)
        query = sql.SQL("SELECT count(*) FILTER (WHERE kind = %s), count(*) FROM {}").format(name)
        passes, n_rows = connection.execute(query, (Kind.PASS.value,)).fetchone() or (0, 0)
        if passes:
            return cls(passes, 0, 0)
        counted = connection.execute(
            _COUNT.format(table=name, likes=listed(LIKES)), {"every": max(n_rows // _MOST_CONTACTS, 1)}
        ).fetchone()
        contacts, answered = counted or (0, 0)
        return cls(0, contacts, answered)

    @property
    def look_like_messages(self) -> bool:
        """Say whether nobody passes, and enough contacts are answered."""
        enough = self.contacts >= _LEAST_CONTACTS
        return not self.passes and enough and self.answered >= _LEAST_ANSWERED * self.contacts

    def advice(self) -> str | None:
        """Return what to set where the data look like messages, else None."""
        if not self.look_like_messages:
            return None
        return (
            f"These data look like messages: no passes, and {self.answered / self.contacts:.0%} of the contacts were "
            f"answered. `{SETTING}=true` lets people who wait for an answer be found and ranked, which finds more "
            "matches; it shows people who contacted them."
        )
