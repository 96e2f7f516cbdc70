"""Fill the databases of a benchmark world: people, interactions, feature rows, and the online store.

Everything goes the way that real data go: the importer's COPY, the pipelines' own feature functions, Feast.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import psycopg
from psycopg import sql

from feature_repo.population.people import People
from feature_repo.transforms import attribute_vectors, profile_vectors
from infra.clock import Clock
from infra.db.postgres import connect
from infra.endpoints import Endpoints
from infra.settings import Settings
from pipelines.bench.steps import Advance, Steps
from pipelines.features.aggregates import snapshots
from pipelines.features.events import Events
from pipelines.features.profiles import ProfileRows
from pipelines.features.write import append_changes, write_snapshot
from pipelines.ingest.world.synthetic import World
from pipelines.ingest.world.world_import import import_synthetic

PEOPLE = "people"
"""The folder of everybody's features within that of a world."""
_CHUNK = 50_000
_TABLES = (
    ("duet", "users"),
    ("duet", "interactions"),
    *(("features", name) for name in ("user_profile", "user_attributes", "user_activity", "user_reciprocity")),
)


@dataclass(frozen=True)
class Filled:
    """What was put into the databases: the truth, the people with their features, and the interactions by time."""

    world: World
    people: People
    visible: npt.NDArray[np.bool_]
    events: Events
    until: datetime

    def save(self, folder: Path) -> None:
        """Write the people into the folder of a world; the rest is made again from the generator's parameters."""
        (folder / PEOPLE).mkdir(exist_ok=True)
        self.people.save(folder / PEOPLE)
        np.save(folder / PEOPLE / "visible.npy", self.visible, allow_pickle=False)


def fill(settings: Settings, endpoints: Endpoints, steps: Steps, clock: Clock, *, parameters: dict[str, Any]) -> Filled:
    """Fill empty databases with the world of these parameters of `World.generate`."""
    with connect(endpoints.database_url) as connection:
        with steps.step("people and interactions into Postgres") as advance:
            import_synthetic(
                connection, data_dir=settings.data_dir, clock=clock, progress=_whole(advance), **parameters
            )
        with steps.step("generator, once more in memory") as advance:
            world = World.generate(**_as_imported(connection))
            events = _events(world, advance)
        with steps.step("feature vectors") as advance:
            rows = _profiles(world, _slots(connection), advance)
            until = datetime.fromisoformat(str(world.parameters["until"]))
            taken = next(iter(snapshots(events, [pd.Timestamp(until)])))
        now = pd.Timestamp(clock.now())
        with steps.step("feature rows into Postgres") as advance:
            for done, (view, values) in enumerate(
                (("user_profile", rows.profile), ("user_attributes", rows.attributes))
            ):
                advance(done, 3)
                append_changes(connection, view, rows.user_ids, rows.at_us, values, now=now)
            advance(2, 3)
            write_snapshot(connection, taken, now)
            connection.commit()
        people = rows.people()
        at = people.positions(taken.user_ids)
        people.activity[at], people.reciprocity[at] = taken.activity, taken.reciprocity
    with steps.step("vacuum and analyze"):
        _vacuum(endpoints.database_url)
    with steps.step("online store, through Feast") as advance:
        _materialize(settings, endpoints, clock, advance)
    return Filled(world, people, world.people.visible, events, until)


def filled_before(endpoints: Endpoints, folder: Path, steps: Steps) -> Filled:
    """Return what `fill` put into the databases earlier, for another release."""
    with connect(endpoints.database_url) as connection, steps.step("generator, in memory") as advance:
        world = World.generate(**_as_imported(connection))
        events = _events(world, advance)
    until = datetime.fromisoformat(str(world.parameters["until"]))
    return Filled(world, People.load(folder / PEOPLE), world.people.visible, events, until)


def _whole(advance: Advance) -> Callable[[str, int, int], None]:
    """Show the part that takes longest."""
    return lambda what, done, total: advance(done, total) if what == "interactions" else None


def _as_imported(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    row = connection.execute(
        "SELECT parameters FROM duet.imports WHERE kind = 'synthetic' ORDER BY started_at DESC LIMIT 1"
    ).fetchone()
    connection.rollback()
    return dict(row[0]) if row else {}


def _slots(connection: psycopg.Connection[Any]) -> dict[str, int]:
    slots = dict(connection.execute("SELECT name, slot FROM duet.attribute_slots").fetchall())
    connection.rollback()
    return slots


def _events(world: World, advance: Advance) -> Events:
    """Return all interactions in order of time; positions are ids less one."""
    actors, targets, kinds, times = [], [], [], []
    for number, chunk in enumerate(world.event_chunks(), start=1):
        actors.append(chunk.actor.astype(np.int32))
        targets.append(chunk.target.astype(np.int32))
        kinds.append(chunk.kind.astype(np.int8))
        times.append(chunk.at_s)
        advance(number, world.n_chunks())
    at_us = np.concatenate(times) * 1_000_000
    order = np.argsort(at_us, kind="stable")
    return Events(
        world.user_ids,
        np.concatenate(actors)[order],
        np.concatenate(targets)[order],
        np.concatenate(kinds)[order],
        at_us[order],
    )


def _profiles(world: World, slots: dict[str, int], advance: Advance) -> ProfileRows:
    """Pack everybody, a chunk at a time: a million people as Python objects would take gigabytes."""
    profiles, attributes = [], []
    for first in range(0, len(world.people), _CHUNK):
        users = world.users_table(first, min(first + _CHUNK, len(world.people))).to_pandas()
        profiles.append(profile_vectors(users))
        attributes.append(attribute_vectors(users, slots))
        advance(first + len(users), len(world.people))
    # Everybody joins before their first meeting, so the profile is known from then on.
    at_us = world.people.joined_s * 1_000_000
    return ProfileRows(world.user_ids, at_us, np.concatenate(profiles), np.concatenate(attributes))


def _vacuum(database_url: str) -> None:
    """Mark every page all-visible, so that index-only scans need no table, and tell the planner the sizes."""
    with connect(database_url, autocommit=True) as connection:
        for table in _TABLES:
            connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(*table)))
        connection.execute("CHECKPOINT")


def _materialize(settings: Settings, endpoints: Endpoints, clock: Clock, advance: Advance) -> None:
    from feature_repo.layout import VIEWS
    from feature_repo.store import apply_catalogue, materialize, open_feature_store

    store = open_feature_store(settings, endpoints)
    apply_catalogue(store)
    names = [layout.name for layout in VIEWS]

    def tell(view: str, done: int, total: int) -> None:
        advance(names.index(view) * total + done, len(names) * total)

    materialize(store, clock.now(), progress=tell)
