"""Writes the next generation of the snapshot, in a process of its own: `python -m serving.snapshots.build`.

A worker starts it and tells it the settings and servers in one line on its standard input; the right to write comes
as an inherited file. It has low priority and its own memory, so that requests feel neither its sorting nor its copies.
When its standard input ends, its worker is gone, and it ends too.
"""

import os
import sys
import threading
from typing import Any

import psycopg
import structlog

from infra.clock import Clock, SystemClock
from infra.db import postgres
from infra.endpoints import Endpoints
from infra.logging import configure_logging
from infra.settings import Settings
from infra.telemetry import disable_telemetry
from infra.urls import libpq_url
from serving.errors import FeaturesUnavailable, UnusableGeneration
from serving.people.stored_people import StoredPeople
from serving.snapshots.generations import Generation, Generations, source_of
from serving.snapshots.population_source import PopulationSnapshot, StoredFeatures, advanced, load

STATEMENT_S = 600.0
_LOWEST_PRIORITY = 19
_log = structlog.get_logger(__name__)


def build(generations: Generations, connection: psycopg.Connection[Any], stored: StoredFeatures, clock: Clock) -> int:
    """Write the next generation and return its number; only for the holder of the lock.

    Features are read again when the online store was filled since; otherwise only what changed is.
    """
    last = _last(generations)
    snapshot, problem = _read(last, connection, stored)
    number = generations.write(snapshot, at=clock.now(), problem=problem)
    _log.info("snapshot_written", generation=number, people=len(snapshot.population), problem=problem)
    return number


def _last(generations: Generations) -> Generation | None:
    try:
        return generations.newest()
    except UnusableGeneration as error:
        _log.warning("snapshot_refused", reason=str(error))
        return None


def _read(
    last: Generation | None, connection: psycopg.Connection[Any], stored: StoredFeatures
) -> tuple[PopulationSnapshot, str | None]:
    try:
        if last is None or last.problem is not None or stored.filled_at() != last.snapshot.filled_at:
            return load(connection, stored), None
    except FeaturesUnavailable as error:
        # Features as they were are better than none, and none are better than nobody.
        return load(connection, None) if last is None else advanced(connection, last.snapshot), str(error)
    return advanced(connection, last.snapshot), None


def main() -> None:
    """Build once, as told on standard input."""
    disable_telemetry()
    settings = Settings.model_validate_json(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    configure_logging(settings)
    if settings.database_url is None or settings.redis_url is None:
        raise SystemExit("The settings name no database or no Redis: this is started by a worker, not by hand.")
    endpoints = Endpoints(
        libpq_url(settings.database_url.get_secret_value()), settings.redis_url.get_secret_value(), None
    )
    clock = SystemClock()
    generations = Generations(settings.data_dir / "snapshot", source_of(settings, endpoints))
    if generations.numbers():  # requests go first; the first generation is what they wait for
        os.nice(_LOWEST_PRIORITY)
    with postgres.connect(
        endpoints.database_url,
        autocommit=True,
        statement_timeout_s=STATEMENT_S,
        application_name="duet-serving-snapshot",
        prepared=settings.postgres.prepared_statements,
    ) as connection:
        build(generations, connection, StoredPeople(settings, endpoints, clock), clock)


def _end_with_parent() -> None:
    # Not through sys.stdin: a thread that holds its lock keeps the interpreter from ending.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
