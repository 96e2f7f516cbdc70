"""The one Dagster code location: assets, checks, jobs, schedules and sensors of all domains, and nothing else.

Each domain adds what it has by a line of its own; nothing is defined here.
"""

import dagster as dg

from pipelines.evaluation.assets import evaluation
from pipelines.features.assets import features, online_features
from pipelines.ingest.assets import snapshots
from pipelines.jobs import JOBS, SCHEDULES
from pipelines.ranking.assets import ranker, ranking_dataset
from pipelines.release.assets import release_candidate
from pipelines.resources import Platform, platform_resource
from pipelines.retrieval.assets import candidate_index, embeddings


def build_definitions(platform: Platform | None = None) -> dg.Definitions:
    """Merge all domains; `platform` replaces the one that each run otherwise builds from its settings."""
    return dg.Definitions(
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
        asset_checks=[],
        jobs=[*JOBS],
        schedules=[*SCHEDULES],
        sensors=[],
        resources={"platform": platform or platform_resource},
        executor=dg.in_process_executor,
    )


defs = build_definitions()
