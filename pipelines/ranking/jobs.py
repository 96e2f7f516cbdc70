"""The job that trains a ranker alone."""

import dagster as dg

from pipelines.evaluation.assets import evaluation
from pipelines.ranking.assets import ranker, ranking_dataset
from pipelines.release.assets import promoted_release
from pipelines.runs.launchpad import HEAVY, default_config

TRAIN_RANKER = dg.define_asset_job(
    "train_ranker",
    selection=dg.AssetSelection.assets(
        "ranking_dataset", "ranker", "evaluation", "release_candidate", "promoted_release"
    ),
    config=default_config(ranking_dataset, ranker, evaluation, promoted_release),
    tags=HEAVY,
    description="A new ranker on the last good embeddings and features.",
)
