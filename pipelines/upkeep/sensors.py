"""A run that failed is told to whoever looks after the platform."""

import re
from typing import Final

import dagster as dg

from infra.alerts import send_alert
from infra.logging import configure_logging
from pipelines.resources import Platform
from pipelines.runs.reasons import innermost_reason

_MAX_SENTENCE: Final = 400
# Postgres names the values of the row after `DETAIL:`; they are nobody's business on a webhook.
_END_OF_SENTENCE: Final = re.compile(r"(?<=[.!?])\s|\sDETAIL:")


def first_error(context: dg.RunFailureSensorContext) -> tuple[str, str]:
    """Return the step that failed first and why in one sentence; the run itself where no step is to blame."""
    for event in context.get_step_failure_events():
        if event.event_specific_data is not None:
            told = innermost_reason(event.step_failure_data.error)
            return event.step_key or context.dagster_run.job_name, first_sentence(told)
    return context.dagster_run.job_name, first_sentence(context.failure_event.message or "no reason was recorded")


def first_sentence(text: str) -> str:
    """Return the first sentence of an error, on one line and bounded."""
    return _END_OF_SENTENCE.split(" ".join(text.split()), maxsplit=1)[0][:_MAX_SENTENCE]


@dg.run_failure_sensor(
    name="alert_on_failure",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
    description="A run that failed is logged and sent to the webhook of `DUET_ALERTS__WEBHOOK_URL`.",
)
def alert_on_failure(context: dg.RunFailureSensorContext, platform: dg.ResourceParam[Platform]) -> None:
    """Send an alert with the run, its job, the step that failed first, the sentence of its error and a link."""
    configure_logging(platform.settings)  # each time: no code of Duet starts a code server, and Dagster's own undoes it
    run = context.dagster_run
    step, reason = first_error(context)
    details = {
        "run_id": run.run_id,
        "job": run.job_name,
        "step": step,
        "error": reason,
        "schedule": run.tags.get("dagster/schedule_name"),
        "sensor": run.tags.get("dagster/sensor_name"),
        "link": platform.run_url(run.run_id),
    }
    send_alert(
        platform.settings,
        "run_failed",
        f"the step `{step}` of `{run.job_name}` failed: {reason}",
        {name: value for name, value in details.items() if value},
    )
