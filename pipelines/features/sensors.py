"""The features of people who changed follow them within minutes."""

import dagster as dg

from pipelines.features.assets import changed_features
from pipelines.features.changed import MANY_PEOPLE, last_look, must_refill
from pipelines.features.jobs import EVERYBODY_NOW, MATERIALIZE_CHANGES, MATERIALIZE_FEATURES
from pipelines.resources import Platform
from pipelines.results.changes import changed_people
from pipelines.runs.conditions import why_busy
from pipelines.runs.launchpad import default_config


@dg.sensor(
    name="frequent_materialize_features",
    jobs=[MATERIALIZE_CHANGES, MATERIALIZE_FEATURES],
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=300,
    description="Every five minutes: the features of whoever changed, or of everybody where very many did or the "
    "online store was emptied.",
)
def frequent_materialize_features(
    context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
) -> dg.RunRequest | dg.SkipReason:
    """Ask for what changed since the last time; light, and nothing before the first full materialisation."""
    last = last_look(platform.results)
    if last is None:
        return dg.SkipReason("there are no features yet: run the job `materialize_features` or `train_all` once")
    busy = why_busy(context.instance, MATERIALIZE_CHANGES.name) or why_busy(context.instance, MATERIALIZE_FEATURES.name)
    if busy:
        return dg.SkipReason(busy)
    with platform.connection() as connection:
        changed = len(changed_people(connection, last, limit=MANY_PEOPLE + 1))
    if not changed and not must_refill(platform):
        return dg.SkipReason(f"nobody has changed since {last.at:%Y-%m-%d %H:%M} UTC")
    if changed > MANY_PEOPLE:
        return dg.RunRequest(job_name=MATERIALIZE_FEATURES.name, run_config=EVERYBODY_NOW)
    return dg.RunRequest(job_name=MATERIALIZE_CHANGES.name, run_config=default_config(changed_features))
