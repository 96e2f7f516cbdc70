"""When everything is trained anew by itself."""

import dagster as dg

from pipelines.release.jobs import TRAIN_ALL, TRAINING
from pipelines.resources import Platform
from pipelines.runs.clocked import Decision, clocked
from pipelines.runs.conditions import why_not_retrain
from pipelines.runs.launchpad import default_config


@clocked(
    "weekly_retrain",
    "0 5 * * 0",
    TRAIN_ALL,
    "Every Sunday at 05:00: everything is trained anew; the release goes to Staging when its gates pass.",
)
def weekly_retrain(context: dg.ScheduleEvaluationContext, platform: Platform) -> Decision:
    """Retrain where there is a release to beat, something new to learn, and nobody's experiment in Staging."""
    with platform.connection() as connection:
        why = why_not_retrain(context.instance, connection)
    staged = default_config(*TRAINING, promoted_release={"stage": "Staging"})
    return dg.SkipReason(why) if why else dg.RunRequest(run_config=staged)
