"""Put a synthetic world into the database; its parameters are kept, so that the truth can be rebuilt.

Refuses to mix with other people under the same ids: the oracle would then lie. The same world twice is a no-op.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from infra.clock import EARLIEST, Clock
from pipelines.ingest.errors import RefusedWorld
from pipelines.ingest.loading import load
from pipelines.ingest.loading.bulk import copy_events, without_indexes
from pipelines.ingest.loading.copying import copy_table
from pipelines.ingest.loading.report import ImportReport
from pipelines.ingest.loading.transaction import Progress, importing, no_progress
from pipelines.ingest.world.inhabitants import ATTRIBUTES
from pipelines.ingest.world.synthetic import RANDOM_EXPOSURE, WORLD_VERSION, World, midnight

_PEOPLE_CHUNK = 100_000
_USERS = sql.Identifier("duet", "users")


def import_synthetic(
    connection: psycopg.Connection[Any],
    *,
    people: int,
    seed: int,
    data_dir: Path,
    clock: Clock,
    interactions_per_person: float = 50,
    days: int = 120,
    until: datetime | None = None,
    world: str = RANDOM_EXPOSURE,
    progress: Progress = no_progress,
) -> ImportReport:
    """Generate a world and load it in one transaction.

    Args:
        connection: without an open transaction.
        people: ids 1..people.
        seed: same seed and parameters, same world.
        data_dir: not written to; a world has no rows to quarantine.
        clock: tells the default of `until`.
        interactions_per_person: about how many on average.
        days: length of the recorded window.
        until: end of the window; by default the midnight before now, or that of the same world imported earlier.
        world: which kind, see `World.generate`.
        progress: told of people and interactions.

    Raises:
        RefusedWorld: parameters out of bounds, a window that ends in the future, or other people under these ids.
    """
    now = clock.now()
    if until is not None and until.tzinfo is None:
        raise RefusedWorld(f"A world's `until` needs a time zone, `{until.isoformat()}` has none.")
    if until is not None and until > now:
        raise RefusedWorld(f"A world's `until` must not lie in the future, `{until.isoformat()}` does.")
    # Some people joined up to a year before the window opens.
    if (until or now) - timedelta(days=days + 366) < EARLIEST:
        raise RefusedWorld(
            f"A world's people join in the year before its {days} days, and nothing is older than {EARLIEST.year}; "
            "choose a later `until` or fewer days."
        )
    wanted: dict[str, Any] = {
        "people": people,
        "seed": seed,
        "interactions_per_person": interactions_per_person,
        "days": days,
        "version": WORLD_VERSION,
    }
    if until is not None:
        wanted["until"] = until.astimezone(UTC).isoformat()
    with connection.transaction():
        earlier = _earlier(connection, wanted, world)
        if earlier is not None:
            return earlier
        _refuse_other_people(connection, people)
    generated = World.generate(
        people,
        seed,
        interactions_per_person=interactions_per_person,
        days=days,
        until=until or midnight(now),
        world=world,
    )
    with importing(
        connection,
        kind="synthetic",
        source=f"seed {seed}",
        parameters=generated.parameters,
        data_dir=data_dir,
        clock=clock,
    ) as report:
        # Again, now that the import's lock is held.
        _refuse_other_people(connection, people)
        _load(connection, generated, report, progress)
    return report


def _load(connection: psycopg.Connection[Any], world: World, report: ImportReport, progress: Progress) -> None:
    n_people = len(world.people)
    for first in range(0, n_people, _PEOPLE_CHUNK):
        stop = min(first + _PEOPLE_CHUNK, n_people)
        copy_table(connection, _USERS, world.users_table(first, stop))
        progress("people", stop, n_people)
    report.people.read = report.people.new = n_people
    load.claim_slots(connection, ATTRIBUTES)
    is_empty = connection.execute("SELECT NOT EXISTS (SELECT FROM duet.interactions)").fetchone() == (True,)
    counts, n_chunks = report.interactions, world.n_chunks()
    with without_indexes(connection) if is_empty else contextlib.nullcontext():
        for number, events in enumerate(world.event_chunks(), start=1):
            copy_events(connection, events, seed=int(world.parameters["seed"]), first=counts.new)
            counts.new += len(events)
            progress("interactions", number, n_chunks)
        progress("indexes", 0, 1)
    counts.read = counts.new
    connection.execute("ANALYZE duet.users")
    connection.execute("ANALYZE duet.interactions")
    progress("indexes", 1, 1)


def _earlier(connection: psycopg.Connection[Any], wanted: dict[str, Any], world: str) -> ImportReport | None:
    """Return the report of a finished import of the same world whose people are still there."""
    row = connection.execute(
        "SELECT import_id, people_rows, interaction_rows, parameters ->> 'until' FROM duet.imports "
        "WHERE kind = 'synthetic' AND parameters @> %s::jsonb AND finished_at IS NOT NULL "
        # Records from before there were two kinds of worlds do not name theirs.
        "AND coalesce(parameters ->> 'world', %s) = %s "
        "AND EXISTS (SELECT FROM duet.users WHERE user_id = %s) ORDER BY started_at DESC LIMIT 1",
        (Jsonb(wanted), RANDOM_EXPOSURE, world, wanted["people"]),
    ).fetchone()
    if row is None:
        return None
    report = ImportReport(row[0])
    report.people.read = report.people.unchanged = row[1]
    report.interactions.read = report.interactions.unchanged = row[2]
    report.notes.append(f"This world, with its history until {row[3]}, is already there.")
    return report


def _refuse_other_people(connection: psycopg.Connection[Any], people: int) -> None:
    row = connection.execute(
        "SELECT count(*) FROM (SELECT FROM duet.users WHERE user_id <= %s LIMIT 1000) AS found", (people,)
    ).fetchone()
    if row is not None and row[0]:
        raise RefusedWorld(
            f"A synthetic world takes the ids 1 to {people}, and other people have some of them already; "
            "import it into an empty database (another `--data-dir`)."
        )
