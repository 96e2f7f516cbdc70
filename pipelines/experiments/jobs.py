"""The job that reads an experiment out."""

import dagster as dg

from pipelines.experiments.assets import experiment_report
from pipelines.runs.launchpad import default_config

READ_OUT = dg.define_asset_job(
    "read_out_experiment",
    selection=dg.AssetSelection.assets("experiment_report"),
    config=default_config(experiment_report),
    description="The active experiment, or the one named, as table, plots and decision.",
)
