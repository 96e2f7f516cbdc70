"""What a look at one place is about, and what it finds."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg

from infra.db.erasures import OpenErasure

if TYPE_CHECKING:
    from pipelines.resources import Platform

LATE_ROWS: Final = timedelta(minutes=1)
"""Rows about what was under way when the person went are written until then; whoever comes back later keeps theirs."""


@dataclass(frozen=True)
class PlaceFound:
    """What a look at a place found, and what is left there; `waits` says for what, where time must do it.

    `datasets` are the digests of data sets that were removed, by which models that learn from them are known.
    """

    before: int
    after: int
    waits: str | None = None
    datasets: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Say whether nothing of the person is left."""
        return self.after == 0 and self.waits is None


@dataclass(frozen=True)
class Gone:
    """Whom a look is about, on which platform, when; `since` is when their own rows were deleted."""

    platform: "Platform"
    connection: psycopg.Connection[Any]
    erasure: OpenErasure
    since: datetime
    now: datetime

    @property
    def user_id(self) -> int:
        """Return the number that they had."""
        return self.erasure.user_id

    @property
    def cached_until(self) -> datetime:
        """Return when the last answer that may name them has expired."""
        return self.since + timedelta(seconds=self.platform.settings.serving.cache.ttl_s) + LATE_ROWS


Look = Callable[[Gone], PlaceFound]


def added(known: dict[str, Any] | None, found: PlaceFound, now: datetime) -> dict[str, Any]:
    """Return what is kept of a place: all that was ever found there, and what the last look left."""
    known = known or {}
    # What must be waited for is counted anew at each look, not once more.
    before = max(known.get("before", 0), found.before) if found.waits else known.get("before", 0) + found.before
    datasets = sorted({*known.get("datasets", ()), *found.datasets})
    told = {"before": before, "after": found.after, "looked_at": now.isoformat(timespec="seconds")}
    return told | ({"waits": found.waits} if found.waits else {}) | ({"datasets": datasets} if datasets else {})
