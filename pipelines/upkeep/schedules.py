"""When days are counted, and old rows folded, by themselves."""

from datetime import timedelta

import dagster as dg

from pipelines.resources import Platform
from pipelines.runs.clocked import Decision, clocked
from pipelines.runs.launchpad import default_config
from pipelines.upkeep.assets import daily_totals
from pipelines.upkeep.folding import FOLDS, fold_before, oldest_before
from pipelines.upkeep.jobs import FOLD_HISTORY, MEASURE_ACTIVITY


@clocked(
    "daily_measure_activity",
    "40 0 * * *",
    MEASURE_ACTIVITY,
    "Every day at 00:40: the figures of the day before, and of days that were missed while nothing ran.",
)
def daily_measure_activity(context: dg.ScheduleEvaluationContext, platform: Platform) -> Decision:
    """Compute the days since the last computed one, at most a month of them; queries only, so it is always safe."""
    from pipelines.upkeep.activity import last_stored_day

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
    return dg.RunRequest(run_config=default_config(daily_totals))
