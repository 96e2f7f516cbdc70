"""Promote what a run has made, by itself: only past its gates, and never into an experiment.

The gates are not overruled from here; a person can, with `duet promote --force`.
"""

from typing import TYPE_CHECKING

import dagster as dg

from pipelines.resources import Platform
from registry.contracts import STAGING, ReleaseVersions

if TYPE_CHECKING:
    from registry.promotion.audit import Promotion

SCHEDULE_TAG = "dagster/schedule_name"
SENSOR_TAG = "dagster/sensor_name"


def actor_of(run: dg.DagsterRun) -> str:
    """Name who asked for the run: its schedule, its sensor, else its job."""
    return f"dagster:{run.tags.get(SCHEDULE_TAG) or run.tags.get(SENSOR_TAG) or run.job_name}"


def promote_candidate(
    platform: Platform, versions: ReleaseVersions, stage: str, actor: str, reason: str
) -> "Promotion":
    """Promote un-forced and return the row of the audit.

    Raises:
        dagster.Failure: a gate did not pass, another promotion is under way, or an experiment runs on Staging.
    """
    from feature_repo.schema import offered_schema
    from pipelines.runs.conditions import running_experiment
    from registry.errors import GatesNotPassed, PromotionConflict
    from registry.promotion.audit import PostgresPromotionLog
    from registry.promotion.promotion import promote
    from registry.promotion.release_cache import ReleaseCache

    with platform.connection() as connection:
        experiment = running_experiment(connection) if stage == STAGING else None
        if experiment is not None:
            raise refused(
                versions,
                f"the experiment `{experiment}` runs on the release in Staging: stop it, then run this step again",
            )
        connection.commit()
        log = PostgresPromotionLog(connection)
        try:
            promote(
                platform.registry,
                log,
                versions,
                actor=actor,
                way="automation",
                reason=reason,
                stage=stage,
                feature_schema=offered_schema(),
                cache=ReleaseCache(platform.settings.data_dir / "releases"),
            )
        except (GatesNotPassed, PromotionConflict) as why:
            raise refused(versions, str(why)) from why
        return log.history(stage, limit=1)[-1]


def refused(versions: ReleaseVersions, why: str) -> dg.Failure:
    """Return the failure of this step: nothing has moved, and trying again by itself would change nothing."""
    return dg.Failure(
        f"{versions.release_id} was not promoted: {why}", metadata={"release": versions.release_id}, allow_retries=False
    )
