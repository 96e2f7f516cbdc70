"""The job that measures drift."""

import dagster as dg

from pipelines.drift.assets import drift
from pipelines.launchpad import default_config

MEASURE_DRIFT = dg.define_asset_job(
    "measure_drift",
    selection=dg.AssetSelection.assets("drift"),
    config=default_config(drift),
    description="How far the latest decisions are from what the ranker in Production learned from.",
)
