"""Feature rows into the offline tables, and from there into the online store that serving reads."""

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
from psycopg import sql
from pydantic import Field

from feature_repo.layout import ACTIVITY_TTL_DAYS
from pipelines.changes import Look
from pipelines.features.config import FeatureConfig
from pipelines.presentation import table
from pipelines.resources import Platform
from pipelines.results import Result, combined_digest

if TYPE_CHECKING:
    import pandas as pd
    from psycopg import Connection

    from pipelines.inputs import Snapshot


TABLES = ("user_profile", "user_attributes", "user_activity", "user_reciprocity")


class FeaturesStep(FeatureConfig, dg.Config):
    """Say which feature rows a run writes."""

    history: bool = Field(
        default=True,
        description="write the snapshots of the training windows too; without, only everybody as of the run's instant",
    )


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
    interactions: Result,
) -> dg.MaterializeResult[Any]:
    """Write the rows of the four offline feature tables."""
    import pandas as pd

    from feature_repo.tables import add_missing_columns
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
    seen = Look.of(interactions.facts)
    facts = {
        "history": config.history,
        "rows": total,
        "oldest_written": oldest.isoformat() if oldest else None,
        **(seen.facts() if seen else {}),
    }
    made = Result(
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
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform], features: Result
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


def stale_before(snapshot: Result) -> datetime:
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


def instants_for(snapshot: "Snapshot", config: FeaturesStep) -> "list[pd.Timestamp]":
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
