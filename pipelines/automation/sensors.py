"""What Dagster does when something happens: a run failed, people changed, the world moved."""

import re
from datetime import datetime, timedelta
from typing import Any, Final

import dagster as dg

from infra.alerts import send_alert
from infra.logging import configure_logging
from pipelines.automation.conditions import production_release, why_busy, why_not_retrain
from pipelines.changes import changed_people
from pipelines.features.changed import MANY_PEOPLE, last_look, must_refill
from pipelines.jobs import MATERIALIZE_CHANGES, MATERIALIZE_FEATURES, TRAIN_ALL, TRAINING, default_config
from pipelines.reasons import innermost_reason
from pipelines.resources import Platform

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
        everybody = default_config("snapshots", "features", features={"history": False})
        return dg.RunRequest(job_name=MATERIALIZE_FEATURES.name, run_config=everybody)
    return dg.RunRequest(job_name=MATERIALIZE_CHANGES.name, run_config=default_config("changed_features"))


@dg.sensor(
    name="retrain_on_drift",
    job=TRAIN_ALL,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=300,
    description="Drift beyond `DUET_AUTOMATION__DRIFT_PSI` asks for a full retraining into Staging, once for each "
    "release in Production and not sooner than `DUET_AUTOMATION__DRIFT_COOLDOWN_DAYS` after the last one.",
)
def retrain_on_drift(
    context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
) -> dg.SensorResult | dg.SkipReason:
    """Ask for a retraining where the last measurement is of the release in Production and beyond the limit."""
    told = measured_drift(context.instance)
    if not told.get("beyond"):
        return dg.SkipReason(str(told.get("why") or f"drift is {told.get('worst_psi')}, within the limit"))
    now, release = platform.clock.now(), str(told["release"])
    with platform.connection() as connection:
        standing = production_release(connection)
        why = why_busy(context.instance, TRAIN_ALL.name) or why_not_retrain(context.instance, connection)
    if standing != release:
        return dg.SkipReason(f"drift was measured of {release}, but {standing} is in Production")
    asked_at = datetime.fromisoformat(context.cursor) if context.cursor else None
    wait = timedelta(days=platform.settings.automation.drift_cooldown_days)
    if asked_at is not None and now - asked_at < wait:
        why = why or f"a retraining was asked for at {asked_at:%Y-%m-%d %H:%M} UTC; the next may come {wait} later"
    if why:
        return dg.SkipReason(why)
    reason = f"drift: `{told['worst']}` has moved by {told['worst_psi']:.3f} since {release} was trained"
    asked = default_config(*TRAINING, promoted_release={"stage": "Staging", "reason": reason})
    request = dg.RunRequest(run_key=f"drift-{release}", run_config=asked, tags={"duet/why": reason})
    return dg.SensorResult([request], cursor=now.isoformat())


def measured_drift(instance: dg.DagsterInstance) -> dict[str, Any]:
    """Return what the last measurement of drift said."""
    event = instance.get_latest_materialization_event(dg.AssetKey("drift"))
    if event is None or event.asset_materialization is None:
        return {"why": "drift was never measured: run the job `measure_drift`"}
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


SENSORS = [alert_on_failure, frequent_materialize_features, retrain_on_drift]
