"""Days as assets: the figures of each, which a backfill computes for any range, and old rows folded into totals."""

import warnings
from dataclasses import asdict
from datetime import date, timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from pipelines.presentation import plots, table
from pipelines.resources import Platform

PLOTTED_DAYS = 90


class FoldingConfig(dg.Config):
    """Say in which steps old rows are folded; how old they must be is `DUET_AUTOMATION__IMPRESSIONS_KEPT_DAYS`."""

    batch_rows: int = Field(
        default=20_000, ge=1, le=1_000_000, description="rows of one transaction; fewer hold their locks shorter"
    )


def daily_activity_asset(begins: date) -> dg.AssetsDefinition:
    """Return the asset of days from `begins` on, any range of which is computed by one run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # what Dagster calls a backfill policy until it is settled
        return dg.asset(
            name="daily_activity",
            partitions_def=dg.DailyPartitionsDefinition(start_date=begins.isoformat(), timezone="UTC"),
            backfill_policy=dg.BackfillPolicy.single_run(),
            group_name="history",
            kinds={"postgres"},
            description="Likes, passes, matches, active people, impressions and their spread, of each day (UTC).",
        )(_daily_activity)


def _daily_activity(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> None:
    """Compute each day of the run; a day computed again is replaced."""
    from pipelines.upkeep.activity import store_day, stored_days
    from pipelines.upkeep.plots import daily_activity_plot, exposure_plot

    days = sorted(date.fromisoformat(key) for key in context.partition_keys)
    with platform.connection() as connection:
        for number, day in enumerate(days, start=1):
            figures = asdict(store_day(connection, day)) | {"day": day.isoformat()}
            context.log.info("%s, %d of %d: %s", day, number, len(days), figures)
            context.add_asset_metadata(
                {name: value for name, value in figures.items() if value is not None}, partition_key=day.isoformat()
            )
        shown = stored_days(connection, max(days[0], days[-1] - timedelta(days=PLOTTED_DAYS)), days[-1])
    # Once: the pictures of a long backfill would fill the event log.
    pictures = {"daily_activity": daily_activity_plot(shown), "exposure": exposure_plot(shown)}
    rows = table([asdict(figures) | {"day": figures.day.isoformat()} for figures in shown])
    context.add_asset_metadata({"days": rows, **plots(pictures)}, partition_key=days[-1].isoformat())


@dg.asset(
    group_name="history",
    kinds={"postgres"},
    pool="history",
    description="Impressions and answers older than `DUET_AUTOMATION__IMPRESSIONS_KEPT_DAYS`, as daily totals.",
)
def daily_totals(
    context: dg.AssetExecutionContext, config: FoldingConfig, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult[Any]:
    """Fold what is old enough; before it goes, how its days were spread over people is kept."""
    from pipelines.upkeep.activity import store_day
    from pipelines.upkeep.folding import FOLDS, fold_before, fold_rows, oldest_before

    kept = timedelta(days=platform.settings.automation.impressions_kept_days)
    folded: dict[str, int] = {}
    with platform.connection() as connection:
        before = fold_before(connection, platform.clock.now(), kept)
        oldest = oldest_before(connection, FOLDS[0], before)
        if oldest is not None:
            for number in range((before.date() - oldest.date()).days):
                store_day(connection, oldest.date() + timedelta(days=number))
        for fold in FOLDS:

            def progress(rows: int, table_name: str = fold.table) -> None:
                context.log.info("%s: %d rows folded", table_name, rows)

            connection.commit()
            folded[fold.table] = fold_rows(connection, fold, before, config.batch_rows, progress)
    return dg.MaterializeResult(
        metadata={
            "before": before.isoformat(),
            "dagster/row_count": sum(folded.values()),
            "folded": table([{"table": f"duet.{name}", "rows": rows} for name, rows in folded.items()]),
        }
    )
