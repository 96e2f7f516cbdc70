"""Why something that runs by itself should rather not run now: read from Postgres and Dagster, quickly.

A machine that wakes must not begin to train: nothing heavy starts before a person has promoted a release, nor without
new data. MLflow is not asked, so its absence stops no schedule from saying why it skips.
"""

from datetime import UTC, datetime
from typing import Any

from dagster import AssetKey, DagsterInstance, DagsterRunStatus, RunsFilter
from psycopg import Connection

from pipelines.results.changes import ReadHorizon, anything_changed
from registry.contracts import PRODUCTION

_UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
_STANDING = "select release from duet.promotions where to_stage = %s order by promotion_id desc limit 1"
_EXPERIMENT = "select name from duet.experiments where state <> 'off' limit 1"


def production_release(connection: Connection[Any]) -> str | None:
    """Return the release that the audit says stands in Production, None before the first."""
    row = connection.execute(_STANDING, (PRODUCTION,)).fetchone()
    return None if row is None else str(row[0])


def running_experiment(connection: Connection[Any]) -> str | None:
    """Return the name of the experiment that has an effect now, None where there is none."""
    row = connection.execute(_EXPERIMENT).fetchone()
    return None if row is None else str(row[0])


def unfinished_run(instance: DagsterInstance, job: str) -> str | None:
    """Return the id of a run of the job that waits or works, None where there is none."""
    found = instance.get_runs(RunsFilter(job_name=job, statuses=_UNFINISHED), limit=1)
    return found[0].run_id if found else None


def why_busy(instance: DagsterInstance, job: str) -> str | None:
    """Say that the job waits or works already, or None."""
    run = unfinished_run(instance, job)
    return None if run is None else f"`{job}` has not finished yet: run {run[:8]}"


def why_untrained(connection: Connection[Any]) -> str | None:
    """Say that nobody has promoted a release yet, or None."""
    if production_release(connection) is None:
        return "no release is in Production: a person promotes the first one with `duet promote`"
    return None


def why_unchanged(instance: DagsterInstance, connection: Connection[Any], asset: str, job: str) -> str | None:
    """Say that nothing happened since the run that made `asset` last began, or that none did; or None."""
    last = last_made(instance, asset)
    if last is None:
        return f"there is no `{asset}` yet: run the job `{job}` once"
    if anything_changed(connection, last):
        return None
    return f"nothing has changed since {last.at:%Y-%m-%d %H:%M} UTC"


def last_made(instance: DagsterInstance, asset: str) -> ReadHorizon | None:
    """Return what the run that made `asset` last has certainly seen, None where no run did."""
    event = instance.get_latest_materialization_event(AssetKey(asset))
    record = None if event is None else instance.get_run_record_by_id(event.run_id)
    if record is None or record.start_time is None:
        return None
    return ReadHorizon(datetime.fromtimestamp(record.start_time, UTC), horizon=0)


def why_not_retrain(instance: DagsterInstance, connection: Connection[Any]) -> str | None:
    """Say why a full training that ends in Staging should not start now, or None."""
    why = why_untrained(connection) or why_unchanged(instance, connection, "embeddings", "train_all")
    experiment = running_experiment(connection)
    if why is None and experiment is not None:
        why = f"the experiment `{experiment}` runs on the release in Staging, which this would replace"
    return why
