"""When drift is measured by itself."""

import dagster as dg

from pipelines.resources import Platform
from pipelines.runs.clocked import Decision, clocked
from pipelines.runs.conditions import why_unchanged, why_untrained
from pipelines.runs.launchpad import default_config
from pipelines.upkeep.drift.assets import drift
from pipelines.upkeep.drift.jobs import MEASURE_DRIFT


@clocked(
    "nightly_measure_drift",
    "45 4 * * *",
    MEASURE_DRIFT,
    "Every night at 04:45: drift of the latest decisions from the training rows of the ranker in Production.",
)
def nightly_measure_drift(context: dg.ScheduleEvaluationContext, platform: Platform) -> Decision:
    """Measure where there is a release and something new; a sample of rows, so it is light."""
    with platform.connection() as connection:
        why = why_untrained(connection) or why_unchanged(context.instance, connection, "ranker", "train_all")
    return dg.SkipReason(why) if why else dg.RunRequest(run_config=default_config(drift))
