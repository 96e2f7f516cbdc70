"""People who asked to be forgotten are erased within a minute, and looked for again until nothing is left."""

import dagster as dg

from pipelines.resources import Platform
from pipelines.runs.conditions import why_busy
from pipelines.runs.launchpad import default_config
from pipelines.upkeep.erasure.assets import erasures
from pipelines.upkeep.erasure.jobs import ERASE_PEOPLE


@dg.sensor(
    name="erase_people_soon",
    job=ERASE_PEOPLE,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Every half minute: carries on the erasures that are due, if there are any.",
)
def erase_people_soon(
    context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a run where an erasure has begun, or is to be looked at again."""
    from infra.db.erasures import open_erasures

    with platform.connection() as connection:
        due = open_erasures(connection, due_at=platform.clock.now())
    if not due:
        return dg.SkipReason("no erasure is due")
    busy = why_busy(context.instance, ERASE_PEOPLE.name)
    return dg.SkipReason(busy) if busy else dg.RunRequest(run_config=default_config(erasures))
