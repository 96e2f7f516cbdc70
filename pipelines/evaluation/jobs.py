"""The job that compares the newest ranker with every other order."""

import dagster as dg

from pipelines.evaluation.assets import evaluation
from pipelines.runs.launchpad import HEAVY, default_config

EVALUATE = dg.define_asset_job(
    "evaluate",
    selection=dg.AssetSelection.assets("evaluation"),
    config=default_config(evaluation),
    tags=HEAVY,
    description="The newest ranker against every other order, on the held-out window.",
)
