"""What only time empties: answers that serving workers keep in memory, and the population on their machines."""

from datetime import timedelta
from typing import Final

from pipelines.upkeep.erasure.found import Gone, PlaceFound

STALE_WORKER: Final = timedelta(seconds=15)
"""A worker that was not heard of for so long has ended; it reads people anew when it starts again."""


def wait_for_kept_answers(gone: Gone) -> PlaceFound:
    """Wait until the answers of others that serving keeps, each checked before it is shown, have expired."""
    if gone.now >= gone.cached_until:
        return PlaceFound(0, 0)
    return PlaceFound(0, 0, f"the answers that workers keep expire by {gone.cached_until:%Y-%m-%d %H:%M} UTC")


def wait_for_snapshots(gone: Gone) -> PlaceFound:
    """Wait until every serving worker that lives holds only files of people read after the person was gone."""
    rows = gone.connection.execute(
        "select count(*) from duet.serving_workers where seen_at > clock_timestamp() - %s"
        " and coalesce(people_read_at, '-infinity') <= %s",
        (STALE_WORKER, gone.since),
    ).fetchone()
    behind = rows[0] if rows else 0
    waits = "the population on their machines is written anew every `DUET_SERVING__SNAPSHOT_REBUILD_S`"
    return PlaceFound(behind, behind, waits if behind else None)
