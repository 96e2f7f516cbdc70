"""When the index is rebuilt by itself."""

import dagster as dg

from pipelines.ingest.assets import snapshots
from pipelines.release.assets import promoted_release
from pipelines.resources import Platform
from pipelines.retrieval.assets import candidate_index
from pipelines.retrieval.jobs import REBUILD_INDEX
from pipelines.runs.clocked import Decision, clocked
from pipelines.runs.conditions import why_unchanged, why_untrained
from pipelines.runs.launchpad import default_config


@clocked(
    "nightly_rebuild_index",
    "30 3 * * *",
    REBUILD_INDEX,
    "Every night at 03:30: who came, who left and who was liked, in a new index of the embedding in Production; "
    "promoted by itself when its gates pass.",
)
def nightly_rebuild_index(context: dg.ScheduleEvaluationContext, platform: Platform) -> Decision:
    """Rebuild where there is a release to rebuild, and something to add to it."""
    with platform.connection() as connection:
        why = why_untrained(connection) or why_unchanged(
            context.instance, connection, "candidate_index", "rebuild_index"
        )
    if why:
        return dg.SkipReason(why)
    steps = (snapshots, candidate_index, promoted_release)
    return dg.RunRequest(run_config=default_config(*steps, promoted_release={"stage": "Production"}))
