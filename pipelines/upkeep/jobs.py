"""Jobs over days: the figures of each, and old rows folded into totals."""

import dagster as dg

from pipelines.runs.launchpad import default_config
from pipelines.upkeep.assets import daily_totals

MEASURE_ACTIVITY = dg.define_asset_job(
    "measure_activity",
    selection=dg.AssetSelection.assets("daily_activity"),
    description="The figures of one day, or of a range of days as a backfill.",
)
FOLD_HISTORY = dg.define_asset_job(
    "fold_history",
    selection=dg.AssetSelection.assets("daily_totals"),
    config=default_config(daily_totals),
    description="Old impressions and answers into daily totals.",
)
