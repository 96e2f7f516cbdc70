"""What can be run: the whole training, parts of it on the last good results of the rest, and on which clock.

All steps of a job share one process: a process of its own would cost each step seconds of imports.
"""

import dagster as dg

HEAVY = {"duet/heavy": "yes"}

TRAIN_ALL = dg.define_asset_job(
    "train_all",
    selection=dg.AssetSelection.all(),
    tags=HEAVY,
    description="Snapshots, features, embeddings, index, ranker, evaluation, release candidate.",
)
TRAIN_RANKER = dg.define_asset_job(
    "train_ranker",
    selection=dg.AssetSelection.assets("ranking_dataset", "ranker", "evaluation", "release_candidate"),
    tags=HEAVY,
    description="A new ranker on the last good embeddings and features.",
)
REBUILD_INDEX = dg.define_asset_job(
    "rebuild_index",
    selection=dg.AssetSelection.assets("people", "interactions", "candidate_index", "release_candidate"),
    tags=HEAVY,
    description="Everybody present, newcomers included, in a new index of the embedding in Production.",
)
MATERIALIZE_FEATURES = dg.define_asset_job(
    "materialize_features",
    selection=dg.AssetSelection.assets("people", "interactions", "features", "online_features"),
    config={"ops": {"features": {"config": {"history": False}}}},
    description="Everybody's features as of now, into the online store.",
)
EVALUATE = dg.define_asset_job(
    "evaluate",
    selection=dg.AssetSelection.assets("evaluation"),
    tags=HEAVY,
    description="The newest ranker against every other order, on the held-out window.",
)
JOBS = [TRAIN_ALL, TRAIN_RANKER, REBUILD_INDEX, MATERIALIZE_FEATURES, EVALUATE]

# Both are stopped until a person starts them: a laptop that wakes up must not begin to train by itself.
NIGHTLY_INDEX = dg.ScheduleDefinition(
    name="nightly_rebuild_index",
    job=REBUILD_INDEX,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Every night at 03:30 UTC.",
)
FREQUENT_FEATURES = dg.ScheduleDefinition(
    name="frequent_materialize_features",
    job=MATERIALIZE_FEATURES,
    cron_schedule="*/10 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Every ten minutes.",
)
SCHEDULES = [NIGHTLY_INDEX, FREQUENT_FEATURES]
