"""A pass over the places of an erasure: each is emptied and looked at again, and what is found is kept at once.

A pass that is killed is carried on by the next one: what was done stays done, and its figures are kept place by place.
An erasure ends with the first pass that finds every place empty after everything under way has ended.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog

from infra.backup.erased import note
from infra.db import erasures
from infra.errors import DuetError
from infra.faults import failpoint
from pipelines.upkeep.erasure.found import LATE_ROWS, Gone, Look, added
from pipelines.upkeep.erasure.models import versions_that_saw
from pipelines.upkeep.erasure.places import LAST, PLACES

if TYPE_CHECKING:
    import psycopg

    from pipelines.resources import Platform

AGAIN: Final = timedelta(minutes=2)
"""Until an erasure that waits for something is looked at again."""
_log = structlog.get_logger(__name__)


def pass_over(platform: "Platform", *, again: timedelta = AGAIN) -> dict[int, list[str]]:
    """Look at every place of every open erasure and return what each still waits for, to be looked at `again` later.

    An erasure that waits for nothing is finished. What cannot be reached is waited for and said, never skipped.
    """
    with platform.connection(autocommit=True) as connection:
        waiting = {}
        for erasure in erasures.open_erasures(connection):
            # Two passes at once would both count what they find.
            with connection.transaction():
                row = connection.execute(
                    "select pg_try_advisory_xact_lock(hashtext('duet.erasure'), %s)", (erasure.erasure_id % 2**31,)
                ).fetchone()
                if row is None or not row[0]:
                    waiting[erasure.erasure_id] = ["another pass is at work"]
                    continue
                with platform.connection(autocommit=True) as own:
                    waiting[erasure.erasure_id] = _erase(platform, own, erasure.erasure_id, again)
        return waiting


def _erase(platform: "Platform", connection: "psycopg.Connection[Any]", erasure_id: int, again: timedelta) -> list[str]:
    erasures.erase_rows(connection, erasure_id)
    found = [one for one in erasures.open_erasures(connection) if one.erasure_id == erasure_id]
    if not found or found[0].rows_erased_at is None:
        return []
    gone = Gone(platform, connection, found[0], found[0].rows_erased_at, platform.clock.now())
    note(platform.settings.data_dir, connection, found[0])
    places, models = dict(found[0].places), found[0].models
    waiting: list[str] = []
    for name, look in PLACES.items():
        try:
            waiting += _looked(gone, name, look, places)
        except DuetError as error:
            waiting.append(f"{name}: {error}")
        erasures.keep(connection, erasure_id, places, models, look_again_at=gone.now + again)
        failpoint(f"erasure.after {name}")
    try:
        models = versions_that_saw(gone, places)
    except DuetError as error:
        waiting.append(f"models: {error}")
    if gone.now < gone.since + LATE_ROWS:
        waiting.append(f"what was under way is written by {gone.since + LATE_ROWS:%H:%M:%S} UTC")
    if not waiting:
        for name, look in LAST.items():
            waiting += _looked(gone, name, look, places)
    erasures.keep(connection, erasure_id, places, models, look_again_at=gone.now + again if waiting else None)
    if not waiting:
        _log.info("person_erased", erasure=erasure_id, places=len(places), models=len(models))
    return waiting


def _looked(gone: Gone, name: str, look: Look, places: dict[str, dict[str, Any]]) -> list[str]:
    found = look(gone)
    places[name] = added(places.get(name), found, gone.now)
    return [] if found.empty else [f"{name}: {found.waits or f'{found.after} left'}"]
