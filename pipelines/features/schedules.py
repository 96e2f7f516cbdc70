"""When everybody's features are brought up to date by themselves."""

import dagster as dg

from pipelines.features.jobs import EVERYBODY_NOW, MATERIALIZE_FEATURES
from pipelines.resources import Platform
from pipelines.runs.clocked import Decision, clocked


@clocked(
    "nightly_materialize_features",
    "30 2 * * *",
    MATERIALIZE_FEATURES,
    "Every night at 02:30: everybody's features as of now, because `in the last 7 days` changes by itself.",
)
def nightly_materialize_features(context: dg.ScheduleEvaluationContext, platform: Platform) -> Decision:
    """Materialise where it was done before: the first time is a person's decision."""
    if context.instance.get_latest_materialization_event(dg.AssetKey("online_features")) is None:
        return dg.SkipReason("there are no features yet: run the job `materialize_features` or `train_all` once")
    del platform
    return dg.RunRequest(run_config=EVERYBODY_NOW)
