"""Which features are stale, and how those of some people are written as a full materialisation would.

What somebody did changes the features of both people of the interaction, and of nobody else; what only passes with
time (`in the last 7 days`) is left to the full materialisation. Nothing is written where nothing changed.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pipelines.resources import Platform
from pipelines.results.changes import ReadHorizon
from pipelines.results.store import ResultStore

if TYPE_CHECKING:
    import pandas as pd
    from psycopg import Connection

MANY_PEOPLE = 50_000
"""From so many changed people, everybody is materialised instead: the stream of all costs less than looking them up."""
LIVE_WITHIN = timedelta(days=30)


def last_look(results: ResultStore) -> ReadHorizon | None:
    """Return until when changes are in the features, by a full or a partial materialisation; None before the first."""
    # Not inputs of the asset: its own earlier result is one of the two, and the sensor asks for them as well.
    made = [results.find(asset) for asset in ("features", "changed_features")]
    looks = [found for found in (ReadHorizon.of(pointer.facts) for pointer in made if pointer is not None) if found]
    return max(looks, key=lambda found: found.at, default=None)


def is_online(results: ResultStore) -> bool:
    """Tell whether the last full features have reached the online store."""
    features, online = results.find("features"), results.find("online_features")
    return features is not None and online is not None and features.digest == online.digest


def must_refill(platform: Platform) -> bool:
    """Tell whether the online store was filled once and has lost it: Redis came back without its data."""
    from feature_repo.stores.filling import was_emptied

    return platform.results.find("online_features") is not None and was_emptied(platform.settings, platform.endpoints)


def write_changed(connection: "Connection[Any]", user_ids: list[int], at: "pd.Timestamp", now: "pd.Timestamp") -> None:
    """Write the rows of some people as a full materialisation at the same instant would."""
    import numpy as np

    from pipelines.features.aggregates import FeatureSnapshot, vectors_at
    from pipelines.features.events import Events
    from pipelines.features.profiles import profile_rows
    from pipelines.features.write import append_changes, write_people
    from pipelines.ingest.snapshots import interactions_of, people_of

    users = people_of(connection, user_ids)
    slots = dict(connection.execute("SELECT name, slot FROM duet.attribute_slots").fetchall())
    theirs = interactions_of(connection, user_ids, at.to_pydatetime())
    ids = users["user_id"].to_numpy(dtype=np.int64)
    events = Events.from_frame(theirs, np.union1d(ids, theirs[["actor_id", "target_id"]].to_numpy().ravel()))
    rows = profile_rows(users, slots, events)
    activity, reciprocity = vectors_at(events, at)
    here = np.searchsorted(events.user_ids, ids)
    for view, values in (("user_profile", rows.profile), ("user_attributes", rows.attributes)):
        append_changes(connection, view, rows.user_ids, rows.at_us, values, now=now)
    write_people(connection, FeatureSnapshot(at, ids, activity[here], reciprocity[here]), now)
