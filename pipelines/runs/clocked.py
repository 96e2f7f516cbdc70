"""How every schedule is declared: on, in UTC, and never while its job has not finished yet.

Each says in the UI why it skips: nothing heavy starts by itself before a person has put a release into Production and
there are new data for it. A time that passed while the machine slept is caught up once, under the same conditions.
"""

from collections.abc import Callable

import dagster as dg

from pipelines.dagster_private import JobOfAssets
from pipelines.resources import Platform
from pipelines.runs.conditions import why_busy

Decision = dg.RunRequest | dg.SkipReason


def clocked(
    name: str, cron: str, job: JobOfAssets, description: str
) -> Callable[[Callable[[dg.ScheduleEvaluationContext, Platform], Decision]], dg.ScheduleDefinition]:
    """Declare a schedule that is on, unless its job has not finished yet."""

    def declare(decide: Callable[[dg.ScheduleEvaluationContext, Platform], Decision]) -> dg.ScheduleDefinition:
        @dg.schedule(
            name=name,
            cron_schedule=cron,
            job=job,
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=description,
        )
        def schedule(context: dg.ScheduleEvaluationContext, platform: dg.ResourceParam[Platform]) -> Decision:
            busy = why_busy(context.instance, job.name)
            return dg.SkipReason(busy) if busy else decide(context, platform)

        return schedule

    return declare
