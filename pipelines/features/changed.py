"""The features of those who changed, between two full materialisations: the cost is that of the changes.

What somebody did changes the features of both people of the interaction, and of nobody else; what only passes with
time (`in the last 7 days`) is left to the full materialisation. Nothing is written where nothing changed.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from pipelines.changes import Look, changed_people, look
from pipelines.errors import MissingUpstream
from pipelines.features.config import ChangesConfig
from pipelines.resources import Platform
from pipelines.results import Result, ResultStore, combined_digest

if TYPE_CHECKING:
    import pandas as pd
    from psycopg import Connection

MANY_PEOPLE = 50_000
"""From so many changed people, everybody is materialised instead: the stream of all costs less than looking them up."""
LIVE_WITHIN = timedelta(days=30)


class ChangesStep(ChangesConfig, dg.Config):
    """Say how changes reach the online store between two full materialisations."""


@dg.asset(
    deps=["online_features"],
    group_name="features",
    kinds={"numpy", "postgres", "redis"},
    pool="features",
    output_required=False,
    description="The features of whoever was edited or took part in something since, in Postgres and in Redis; of "
    "everybody where the online store was emptied.",
)
def changed_features(
    context: dg.AssetExecutionContext, config: ChangesStep, platform: dg.ResourceParam[Platform]
) -> Iterator[dg.MaterializeResult[Any]]:
    """Compute and bring online the features of the people who changed since the last look."""
    import pandas as pd
    from psycopg import IsolationLevel

    from feature_repo.store import materialize, materialize_people, online_until, open_feature_store
    from feature_repo.tables import add_missing_columns
    from pipelines.snapshots import choose_instant

    last = last_look(platform.results)
    if last is None:
        raise MissingUpstream("there are no features to go on from yet; run the job `materialize_features` first")
    now = platform.clock.now()
    with platform.connection() as connection:
        add_missing_columns(connection)
    with platform.connection() as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        seen = look(connection)
        people = sorted(changed_people(connection, last))
        refill = must_refill(platform)
        if not people and not refill:
            context.log.info("nobody has changed since %s", last.at)
            return
        instant = choose_instant(connection, "", now, LIVE_WITHIN)
        for start in range(0, len(people), config.chunk_people):
            part = people[start : start + config.chunk_people]
            write_changed(connection, part, pd.Timestamp(instant.at), pd.Timestamp(now))
            context.log.info("%d of %d people written", start + len(part), len(people))
    store = open_feature_store(platform.settings, platform.endpoints)
    refilled = 0
    if refill:
        context.log.warning("the online store was emptied: everybody is filled in again")
        refilled = materialize(store, now).rows
    announced = online_until(store)
    due = announced is not None and (now - announced).total_seconds() >= config.announce_s
    announce = due and is_online(platform.results)
    report = materialize_people(store, people, now, announce=announce)
    yield dg.MaterializeResult(
        value=_result(context.run.run_id, seen, len(people)),
        metadata={
            "dagster/row_count": len(people),
            "online_rows": report.rows + refilled,
            "refilled": refill,
            "announced": announce,
            "as_of": instant.at.isoformat(),
            "seen_until": seen.at.isoformat(),
        },
    )


def last_look(results: ResultStore) -> Look | None:
    """Return until when changes are in the features, by a full or a partial materialisation; None before the first."""
    made = [results.find(asset) for asset in ("features", "changed_features")]
    looks = [found for found in (Look.of(pointer.facts) for pointer in made if pointer is not None) if found]
    return max(looks, key=lambda found: found.at, default=None)


def is_online(results: ResultStore) -> bool:
    """Tell whether the last full features have reached the online store."""
    features, online = results.find("features"), results.find("online_features")
    return features is not None and online is not None and features.digest == online.digest


def must_refill(platform: Platform) -> bool:
    """Tell whether the online store was filled once and has lost it: Redis came back without its data."""
    from feature_repo.filling import was_emptied

    return platform.results.find("online_features") is not None and was_emptied(platform.settings, platform.endpoints)


def write_changed(connection: "Connection[Any]", user_ids: list[int], at: "pd.Timestamp", now: "pd.Timestamp") -> None:
    """Write the rows of some people as a full materialisation at the same instant would."""
    import numpy as np

    from pipelines.features.aggregates import Snapshot, vectors_at
    from pipelines.features.events import Events
    from pipelines.features.profiles import profile_rows
    from pipelines.features.write import append_changes, write_people
    from pipelines.snapshots import interactions_of, people_of

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
    write_people(connection, Snapshot(at, ids, activity[here], reciprocity[here]), now)


def _result(run_id: str, seen: Look, people: int) -> Result:
    """Return until when changes are in: published last, so that a run that broke off is done again."""
    facts = {**seen.facts(), "people": people}
    return Result(
        asset="changed_features", digest=combined_digest(seen.facts()), run_id=run_id, as_of=seen.at, facts=facts,
        has_files=False,
    )  # fmt: skip
