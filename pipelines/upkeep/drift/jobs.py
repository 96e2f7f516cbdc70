"""The job that measures drift."""

import dagster as dg

from pipelines.runs.launchpad import default_config
from pipelines.upkeep.drift.assets import drift

MEASURE_DRIFT = dg.define_asset_job(
    "measure_drift",
    selection=dg.AssetSelection.assets("drift"),
    config=default_config(drift),
    description="How far the latest decisions are from what the ranker in Production learned from.",
)
