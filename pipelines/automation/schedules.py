"""What runs at which time (UTC).

All are on, and each says in the UI why it skips: nothing heavy starts by itself before a person has put a release into
Production and there are new data for it. A time that passed while the machine slept is caught up once, under the same
conditions.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import dagster as dg

from pipelines.automation.conditions import why_busy, why_not_retrain, why_unchanged, why_untrained
from pipelines.dagster_private import JobOfAssets
from pipelines.history.folding import FOLDS, fold_before, oldest_before
from pipelines.jobs import (
    FOLD_HISTORY,
    MATERIALIZE_FEATURES,
    MEASURE_ACTIVITY,
    MEASURE_DRIFT,
    REBUILD_INDEX,
    TRAIN_ALL,
    TRAINING,
    default_config,
)
from pipelines.resources import Platform

Decision = dg.RunRequest | dg.SkipReason


def clocked(
    name: str, cron: str, job: JobOfAssets, description: str
) -> Callable[[Callable[[dg.ScheduleEvaluationContext, Platform], Decision]], dg.ScheduleDefinition]:
    """Declare a schedule that is on, unless its job has not finished yet."""

    def declare(decide: Callable[[dg.ScheduleEvaluationContext, Platform], Decision]) -> dg.ScheduleDefinition:
        @dg.schedule(
            name=name,
            cron_schedule=cron,
            job=job,
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=description,
        )
        def schedule(context: dg.ScheduleEvaluationContext, platform: dg.ResourceParam[Platform]) -> Decision:
            busy = why_busy(context.instance, job.name)
            return dg.SkipReason(busy) if busy else decide(context, platform)

        return schedule

    return declare


def request(*steps: str, **changed: dict[str, Any]) -> dg.RunRequest:
    """Ask for a run with the defaults of the steps, but for what is changed."""
    return dg.RunRequest(run_config=default_config(*steps, **changed))


@clocked(
    "nightly_rebuild_index",
    "30 3 * * *",
    REBUILD_INDEX,
    "Every night at 03:30: who came, who left and who was liked, in a new index of the embedding in Production; "
    "promoted by itself when its gates pass.",
)
def nightly_rebuild_index(context: dg.ScheduleEvaluationContext, platform: Platform) -> Decision:
    """Rebuild where there is a release to rebuild, and something to add to it."""
    with platform.connection() as connection:
        why = why_untrained(connection) or why_unchanged(
            context.instance, connection, "candidate_index", "rebuild_index"
        )
    if why:
        return dg.SkipReason(why)
    return request("snapshots", "candidate_index", "promoted_release", promoted_release={"stage": "Production"})


@clocked(
    "weekly_retrain",
    "0 5 * * 0",
    TRAIN_ALL,
    "Every Sunday at 05:00: everything is trained anew; the release goes to Staging when its gates pass.",
)
def weekly_retrain(context: dg.ScheduleEvaluationContext, platform: Platform) -> Decision:
    """Retrain where there is a release to beat, something new to learn, and nobody's experiment in Staging."""
    with platform.connection() as connection:
        why = why_not_retrain(context.instance, connection)
    return dg.SkipReason(why) if why else request(*TRAINING, promoted_release={"stage": "Staging"})


@clocked(
    "nightly_materialize_features",
    "30 2 * * *",
    MATERIALIZE_FEATURES,
    "Every night at 02:30: everybody's features as of now, because `in the last 7 days` changes by itself.",
)
def nightly_materialize_features(context: dg.ScheduleEvaluationContext, platform: Platform) -> Decision:
    """Materialise where it was done before: the first time is a person's decision."""
    if context.instance.get_latest_materialization_event(dg.AssetKey("online_features")) is None:
        return dg.SkipReason("there are no features yet: run the job `materialize_features` or `train_all` once")
    del platform
    return request("snapshots", "features", features={"history": False})


@clocked(
    "daily_measure_activity",
    "40 0 * * *",
    MEASURE_ACTIVITY,
    "Every day at 00:40: the figures of the day before, and of days that were missed while nothing ran.",
)
def daily_measure_activity(context: dg.ScheduleEvaluationContext, platform: Platform) -> Decision:
    """Compute the days since the last computed one, at most a month of them; queries only, so it is always safe."""
    from pipelines.history.activity import last_stored_day

    yesterday = context.scheduled_execution_time.date() - timedelta(days=1)
    with platform.connection() as connection:
        last = last_stored_day(connection)
    if last is not None and last >= yesterday:
        return dg.SkipReason(f"{yesterday} is computed already")
    first = yesterday if last is None else max(last + timedelta(days=1), yesterday - timedelta(days=30))
    span = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": yesterday}
    return dg.RunRequest(tags={name: day.isoformat() for name, day in span.items()})


@clocked(
    "nightly_fold_history",
    "0 4 * * *",
    FOLD_HISTORY,
    "Every night at 04:00: impressions and answers older than `DUET_AUTOMATION__IMPRESSIONS_KEPT_DAYS` become totals.",
)
def nightly_fold_history(context: dg.ScheduleEvaluationContext, platform: Platform) -> Decision:
    """Fold where there is something old; short transactions, and no count is lost, so it is always safe."""
    kept = timedelta(days=platform.settings.automation.impressions_kept_days)
    with platform.connection() as connection:
        before = fold_before(connection, context.scheduled_execution_time, kept)
        if all(oldest_before(connection, fold, before) is None for fold in FOLDS):
            return dg.SkipReason(f"there are no rows from before {before:%Y-%m-%d}")
    return request("daily_totals")


@clocked(
    "nightly_measure_drift",
    "45 4 * * *",
    MEASURE_DRIFT,
    "Every night at 04:45: drift of the latest decisions from the training rows of the ranker in Production.",
)
def nightly_measure_drift(context: dg.ScheduleEvaluationContext, platform: Platform) -> Decision:
    """Measure where there is a release and something new; a sample of rows, so it is light."""
    with platform.connection() as connection:
        why = why_untrained(connection) or why_unchanged(context.instance, connection, "ranker", "train_all")
    return dg.SkipReason(why) if why else request("drift")


SCHEDULES = [
    daily_measure_activity,
    nightly_materialize_features,
    nightly_rebuild_index,
    nightly_fold_history,
    nightly_measure_drift,
    weekly_retrain,
]
