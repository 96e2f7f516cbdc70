"""The job that searches hyperparameters."""

import dagster as dg

from pipelines.evaluation.search.assets import hyperparameter_search
from pipelines.runs.launchpad import HEAVY, default_config

SEARCH = dg.define_asset_job(
    "search_hyperparameters",
    selection=dg.AssetSelection.assets("hyperparameter_search"),
    config=default_config(hyperparameter_search),
    tags=HEAVY,
    description="Better hyperparameters for the last good rows: the ranker's or the embeddings'.",
)
