"""The one Dagster code location: assets, checks, jobs and schedules of all domains, and nothing else."""

import dagster as dg

from pipelines.evaluation.assets import evaluation
from pipelines.features.assets import features, online_features
from pipelines.ingest.assets import snapshots
from pipelines.jobs import JOBS, SCHEDULES
from pipelines.ranking.assets import ranker, ranking_dataset
from pipelines.release.assets import release_candidate
from pipelines.resources import platform_resource
from pipelines.retrieval.assets import candidate_index, embeddings

defs = dg.Definitions(
    assets=[
        snapshots,
        features,
        online_features,
        embeddings,
        candidate_index,
        ranking_dataset,
        ranker,
        evaluation,
        release_candidate,
    ],
    jobs=JOBS,
    schedules=SCHEDULES,
    resources={"platform": platform_resource},
    executor=dg.in_process_executor,
)
