"""The job that indexes everybody present anew."""

import dagster as dg

from pipelines.ingest.assets import snapshots
from pipelines.release.assets import promoted_release
from pipelines.retrieval.assets import candidate_index
from pipelines.runs.launchpad import HEAVY, default_config

REBUILD_INDEX = dg.define_asset_job(
    "rebuild_index",
    selection=dg.AssetSelection.assets(
        "people", "interactions", "candidate_index", "release_candidate", "promoted_release"
    ),
    config=default_config(snapshots, candidate_index, promoted_release),
    tags=HEAVY,
    description="Everybody present, newcomers included, in a new index of the embedding in Production.",
)
