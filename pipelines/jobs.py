"""What can be run: the whole training, and parts of it on the last good results of the rest.

Each job names every hyperparameter of its steps as its default configuration, which is what its Launchpad opens with.
All steps of a job share one process: a process of its own would cost each step seconds of imports.
"""

from typing import Any

import dagster as dg

from pipelines.drift.assets import DriftStep
from pipelines.evaluation.assets import EvaluationStep
from pipelines.features.assets import FeaturesStep
from pipelines.features.changed import ChangesStep
from pipelines.history.assets import FoldingConfig
from pipelines.ingest.assets import SnapshotStep
from pipelines.launchpad import defaults_of
from pipelines.ranking.assets import DatasetStep, RankerStep
from pipelines.release.promotion import PromotionStep
from pipelines.retrieval.assets import EmbeddingStep, IndexStep
from pipelines.search.assets import SearchStep

HEAVY = {"duet/heavy": "yes"}
STEPS: dict[str, type[dg.Config]] = {
    "snapshots": SnapshotStep,
    "features": FeaturesStep,
    "embeddings": EmbeddingStep,
    "candidate_index": IndexStep,
    "ranking_dataset": DatasetStep,
    "ranker": RankerStep,
    "evaluation": EvaluationStep,
    "promoted_release": PromotionStep,
}
TRAINING = (*STEPS,)
"""The configured steps of the whole training; those of other jobs follow."""
STEPS |= {
    "changed_features": ChangesStep,
    "hyperparameter_search": SearchStep,
    "daily_totals": FoldingConfig,
    "drift": DriftStep,
}


def default_config(*steps: str, **changed: dict[str, Any]) -> dict[str, Any]:
    """Return the run configuration with the default of every field of `steps`; `changed` names steps and fields."""
    return {"ops": {step: {"config": {**defaults_of(STEPS[step]), **changed.get(step, {})}} for step in steps}}


TRAIN_ALL = dg.define_asset_job(
    "train_all",
    selection=dg.AssetSelection.assets("promoted_release").upstream() | dg.AssetSelection.assets("online_features"),
    config=default_config(*TRAINING),
    tags=HEAVY,
    description="Snapshots, features, embeddings, index, ranker, evaluation, release candidate.",
)
TRAIN_RANKER = dg.define_asset_job(
    "train_ranker",
    selection=dg.AssetSelection.assets(
        "ranking_dataset", "ranker", "evaluation", "release_candidate", "promoted_release"
    ),
    config=default_config("ranking_dataset", "ranker", "evaluation", "promoted_release"),
    tags=HEAVY,
    description="A new ranker on the last good embeddings and features.",
)
REBUILD_INDEX = dg.define_asset_job(
    "rebuild_index",
    selection=dg.AssetSelection.assets(
        "people", "interactions", "candidate_index", "release_candidate", "promoted_release"
    ),
    config=default_config("snapshots", "candidate_index", "promoted_release"),
    tags=HEAVY,
    description="Everybody present, newcomers included, in a new index of the embedding in Production.",
)
MATERIALIZE_FEATURES = dg.define_asset_job(
    "materialize_features",
    selection=dg.AssetSelection.assets("people", "interactions", "features", "online_features"),
    config=default_config("snapshots", "features", features={"history": False}),
    description="Everybody's features as of now, into the online store.",
)
MATERIALIZE_CHANGES = dg.define_asset_job(
    "materialize_changes",
    selection=dg.AssetSelection.assets("changed_features"),
    config=default_config("changed_features"),
    description="The features of whoever changed since, into the online store.",
)
EVALUATE = dg.define_asset_job(
    "evaluate",
    selection=dg.AssetSelection.assets("evaluation"),
    config=default_config("evaluation"),
    tags=HEAVY,
    description="The newest ranker against every other order, on the held-out window.",
)
SEARCH = dg.define_asset_job(
    "search_hyperparameters",
    selection=dg.AssetSelection.assets("hyperparameter_search"),
    config=default_config("hyperparameter_search"),
    tags=HEAVY,
    description="Better hyperparameters for the last good rows: the ranker's or the embeddings'.",
)
MEASURE_ACTIVITY = dg.define_asset_job(
    "measure_activity",
    selection=dg.AssetSelection.assets("daily_activity"),
    description="The figures of one day, or of a range of days as a backfill.",
)
MEASURE_DRIFT = dg.define_asset_job(
    "measure_drift",
    selection=dg.AssetSelection.assets("drift"),
    config=default_config("drift"),
    description="How far the latest decisions are from what the ranker in Production learned from.",
)
FOLD_HISTORY = dg.define_asset_job(
    "fold_history",
    selection=dg.AssetSelection.assets("daily_totals"),
    config=default_config("daily_totals"),
    description="Old impressions and answers into daily totals.",
)
JOBS = [
    TRAIN_ALL,
    TRAIN_RANKER,
    REBUILD_INDEX,
    MATERIALIZE_FEATURES,
    MATERIALIZE_CHANGES,
    EVALUATE,
    SEARCH,
    MEASURE_ACTIVITY,
    FOLD_HISTORY,
    MEASURE_DRIFT,
]
