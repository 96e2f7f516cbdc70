"""Who changed since an earlier look at the database, so that work can be as small as what happened.

Each look notes its instant and its horizon (see `infra.db.horizon`). The next one goes back further than the last,
because a slow transaction becomes visible late, and leaves out what the last one saw. A person counts as changed who
was edited, or who took part in an interaction that was recorded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from psycopg import Connection, sql

from infra.db.horizon import HORIZON, LATEST, unseen

OVERLAP: Final = timedelta(minutes=10)
"""How much later than the instant it carries a row may become visible: its transaction took that long."""
_SEEN = sql.SQL("SELECT clock_timestamp(), {}").format(HORIZON)
_CHANGED = sql.SQL("""
    SELECT user_id FROM duet.users, {latest} WHERE updated_at > %(since)s AND {new_user}
    UNION
    SELECT unnest(array[actor_id, target_id]) FROM duet.interactions, {latest}
    WHERE recorded_at > %(since)s AND {new_event}
    LIMIT %(limit)s
""").format(latest=LATEST, new_user=unseen("users"), new_event=unseen("interactions"))
_DELETED = sql.SQL("""
    SELECT count(*) FROM duet.deletions, {latest} WHERE deleted_at > %(since)s AND {new}
""").format(latest=LATEST, new=unseen("deletions"))


@dataclass(frozen=True)
class ReadHorizon:
    """Until when the database was seen: its own time, and the oldest transaction that was still running."""

    at: datetime
    horizon: int

    @classmethod
    def of(cls, facts: Mapping[str, object]) -> "ReadHorizon | None":
        """Return the look that the facts of a pointer tell of, None where they tell of none."""
        if "seen_at" not in facts or "seen_horizon" not in facts:
            return None
        return cls(datetime.fromisoformat(str(facts["seen_at"])), int(str(facts["seen_horizon"])))

    def facts(self) -> dict[str, str | int]:
        """Return what `of` reads."""
        return {"seen_at": self.at.isoformat(), "seen_horizon": self.horizon}


def look(connection: Connection[Any]) -> ReadHorizon:
    """Return the look of this instant; take it before reading, so that nothing falls between."""
    ((at, horizon),) = connection.execute(_SEEN).fetchall()
    return ReadHorizon(at, horizon)


def changed_people(connection: Connection[Any], last: ReadHorizon, limit: int = 1_000_000_000) -> list[int]:
    """Return the ids of people who changed since the last look, at most `limit` of them."""
    rows = connection.execute(_CHANGED, _since(last) | {"limit": limit}).fetchall()
    return [row[0] for row in rows]


def anything_changed(connection: Connection[Any], last: ReadHorizon) -> bool:
    """Tell whether anybody came, went, was edited or did something since the last look."""
    if changed_people(connection, last, limit=1):
        return True
    row = connection.execute(_DELETED, _since(last)).fetchone()
    return bool(row and row[0])


def _since(last: ReadHorizon) -> dict[str, Any]:
    return {"since": last.at - OVERLAP, "horizon": last.horizon}
