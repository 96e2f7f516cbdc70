"""Drift beyond the limit asks for a retraining."""

from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from pipelines.release.jobs import TRAIN_ALL, TRAINING
from pipelines.resources import Platform
from pipelines.runs.conditions import production_release, why_busy, why_not_retrain
from pipelines.runs.launchpad import default_config


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
