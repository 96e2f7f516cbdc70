"""Feature rows into the offline tables, and from there into the online store that serving reads."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
from psycopg import sql
from pydantic import Field

from feature_repo.layout import ACTIVITY_TTL_DAYS
from pipelines.errors import MissingUpstream
from pipelines.features.changed import LIVE_WITHIN, is_online, last_look, must_refill, write_changed
from pipelines.features.config import ChangesConfig, FeatureConfig
from pipelines.presentation import table
from pipelines.resources import Platform
from pipelines.results.changes import ReadHorizon, changed_people, look
from pipelines.results.store import StepResult, combined_digest

if TYPE_CHECKING:
    import pandas as pd
    from psycopg import Connection

    from pipelines.results.inputs import DataSnapshot


TABLES = ("user_profile", "user_attributes", "user_activity", "user_reciprocity")


class FeaturesStep(FeatureConfig, dg.Config):
    """Say which feature rows a run writes."""

    history: bool = Field(
        default=True,
        description="write the snapshots of the training windows too; without, only everybody as of the run's instant",
    )


class ChangesStep(ChangesConfig, dg.Config):
    """Say how changes reach the online store between two full materialisations."""


@dg.asset(
    deps=["people"],
    group_name="features",
    kinds={"numpy", "postgres"},
    pool="features",
    description="Profile, attributes, activity and reciprocity of everybody, as of a sequence of instants.",
)
def features(
    context: dg.AssetExecutionContext,
    config: FeaturesStep,
    platform: dg.ResourceParam[Platform],
    interactions: StepResult,
) -> dg.MaterializeResult[Any]:
    """Write the rows of the four offline feature tables."""
    import pandas as pd

    from feature_repo.stores.tables import add_missing_columns
    from pipelines.features.aggregates import snapshots
    from pipelines.features.write import append_changes, prune_snapshots, write_snapshot

    snapshot = platform.snapshot(interactions)
    now = pd.Timestamp(platform.clock.now())
    instants = instants_for(snapshot, config)
    written: dict[str, int] = {}
    began = platform.clock.monotonic()
    with platform.connection() as connection:
        if added := add_missing_columns(connection):
            context.log.info("new columns: %s", ", ".join(added))
        rows = snapshot.rows
        for view, values in (("user_profile", rows.profile), ("user_attributes", rows.attributes)):
            ids, at_us = rows.user_ids, rows.at_us
            written[view] = append_changes(
                connection, view, ids, at_us, values, now=now, chunk_rows=config.write_chunk_rows
            )
        connection.commit()
        for number, taken in enumerate(snapshots(snapshot.events, instants), start=1):
            count = write_snapshot(connection, taken, now, config.write_chunk_rows)
            connection.commit()
            written["user_activity"] = written.get("user_activity", 0) + count // 2
            written["user_reciprocity"] = written.get("user_reciprocity", 0) + count // 2
            context.log.info("snapshot %d of %d, as of %s: %d rows", number, len(instants), taken.at, count)
        pruned = prune_snapshots(connection, stale_before(interactions))
        connection.commit()
        context.log.info("%d rows that no join can see any more were pruned", pruned)
        oldest = oldest_written(connection, now.to_pydatetime())
    seconds = max(platform.clock.monotonic() - began, 1e-9)
    total = sum(written.values())
    digest = combined_digest(snapshot.digests | {"config": config.model_dump_json(), "as_of": str(interactions.as_of)})
    seen = ReadHorizon.of(interactions.facts)
    facts = {
        "history": config.history,
        "rows": total,
        "oldest_written": oldest.isoformat() if oldest else None,
        **(seen.facts() if seen else {}),
    }
    made = StepResult(
        asset="features", digest=digest, run_id=context.run.run_id, as_of=interactions.as_of,
        t0=interactions.t0, t1=interactions.t1, inputs=snapshot.digests, facts=facts, has_files=False,
    )  # fmt: skip
    return dg.MaterializeResult(
        value=made,
        metadata={
            "dagster/row_count": total,
            "tables": table([{"table": f"features.{name}", "rows": count} for name, count in written.items()]),
            "instants": len(instants),
            "first_instant": str(instants[0]),
            "last_instant": str(instants[-1]),
            "rows_per_s": round(total / seconds),
            "pruned_rows": pruned,
            "digest": digest,
        },
    )


@dg.asset(
    group_name="features",
    kinds={"feast", "redis"},
    pool="features",
    description="The newest features of everybody in Redis, through Feast; only what changed is written.",
)
def online_features(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform], features: StepResult
) -> dg.MaterializeResult[Any]:
    """Apply the feature catalogue and bring the online store up to the newest features."""
    from feature_repo.store import apply_catalogue, materialize, open_feature_store

    store = open_feature_store(platform.settings, platform.endpoints)
    apply_catalogue(store)

    def progress(view: str, done: int, total: int) -> None:
        context.log.info("%s: %d of %d people", view, done, total)

    oldest = features.facts.get("oldest_written")
    since = datetime.fromisoformat(str(oldest)) if oldest else None
    # Up to now, not to the run's instant: somebody who joined after the end of old data is served too.
    report = materialize(store, platform.clock.now(), since=since, progress=progress)
    return dg.MaterializeResult(
        value=features.model_copy(update={"asset": "online_features", "run_id": context.run.run_id}),
        metadata={
            "dagster/row_count": report.rows,
            "seconds": round(report.seconds, 3),
            "rows_per_s": round(report.rows_per_s),
            "as_of": features.as_of.isoformat(),
            "views": table([asdict(view) for view in report.views]),
        },
    )


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
    from feature_repo.stores.tables import add_missing_columns
    from pipelines.ingest.snapshots import choose_instant

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
        value=_seen(context.run.run_id, seen, len(people)),
        metadata={
            "dagster/row_count": len(people),
            "online_rows": report.rows + refilled,
            "refilled": refill,
            "announced": announce,
            "as_of": instant.at.isoformat(),
            "seen_until": seen.at.isoformat(),
        },
    )


def stale_before(snapshot: StepResult) -> datetime:
    """Return the instant whose earlier rows are too old for every join: training looks back from T0 at the furthest."""
    return min(snapshot.t0 or snapshot.as_of, snapshot.as_of) - timedelta(days=ACTIVITY_TTL_DAYS)


def oldest_written(connection: "Connection[Any]", written_at: datetime) -> datetime | None:
    """Return the earliest instant among the rows that the write stamped `written_at` added or changed."""
    oldest = [
        connection.execute(
            sql.SQL("SELECT min(event_timestamp) FROM {} WHERE created_timestamp = %s").format(
                sql.Identifier("features", name)
            ),
            (written_at,),
        ).fetchone()
        for name in TABLES
    ]
    return min((row[0] for row in oldest if row is not None and row[0] is not None), default=None)


def instants_for(snapshot: "DataSnapshot", config: FeaturesStep) -> "list[pd.Timestamp]":
    """Return as of when people are photographed: T0, then regularly to the run's instant; or only that instant."""
    import pandas as pd

    from pipelines.features.aggregates import snapshot_instants

    end = pd.Timestamp(snapshot.as_of)
    start = snapshot.interactions_pointer.t0
    if not config.history or start is None:
        return [end]
    first = pd.Timestamp(start)
    later = snapshot_instants(first, end, config.interval_s, config.max_snapshots)
    return [first, *(at for at in later if at > first)]


def _seen(run_id: str, seen: ReadHorizon, people: int) -> StepResult:
    """Return until when changes are in: published last, so that a run that broke off is done again."""
    facts = {**seen.facts(), "people": people}
    return StepResult(
        asset="changed_features", digest=combined_digest(seen.facts()), run_id=run_id, as_of=seen.at, facts=facts,
        has_files=False,
    )  # fmt: skip
