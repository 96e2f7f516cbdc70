"""The step that promotes what a run has made, by itself: only past its gates, and never into an experiment.

Nothing happens unless the run's configuration names a stage, which runs started by hand do not. The gates are not
overruled from here; a person can, with `duet promote --force`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import Field

from pipelines.presentation import link
from pipelines.resources import Platform
from pipelines.results import Result
from registry.contracts import STAGING, ArtifactKind, ReleaseVersions

if TYPE_CHECKING:
    from registry.audit import Promotion

SCHEDULE_TAG = "dagster/schedule_name"
SENSOR_TAG = "dagster/sensor_name"


class PromotionStep(dg.Config):
    """Say whether this run promotes the release candidate that it made."""

    stage: Literal["none", "Staging", "Production"] = Field(
        default="none", description="stage that the candidate moves to if its gates pass; none leaves it to a person"
    )
    reason: str = Field(default="", max_length=300, description="why, for the audit; empty names the run")


@dg.asset(
    group_name="release",
    kinds={"mlflow", "postgres"},
    output_required=False,
    description="The release that this pipeline promoted by itself last: its gates passed and a schedule asked for it.",
)
def promoted_release(
    context: dg.AssetExecutionContext,
    config: PromotionStep,
    platform: dg.ResourceParam[Platform],
    release_candidate: Result,
) -> Iterator[dg.MaterializeResult[Any]]:
    """Move the candidate to the stage of the configuration, audited as automation."""
    versions = ReleaseVersions.parse(str(release_candidate.facts["release"]))
    if config.stage == "none":
        context.log.info("release candidate %s is left to a person: no stage was asked for", versions.release_id)
        return
    actor = actor_of(context.run)
    reason = config.reason or f"run {context.run.run_id}"
    promoted = promote_candidate(platform, versions, config.stage, actor, reason)
    context.log.info("%s is in %s", versions.release_id, config.stage)
    yield dg.MaterializeResult(
        metadata={
            "release": versions.release_id,
            "stage": config.stage,
            "actor": actor,
            "reason": reason,
            "gates": dg.MetadataValue.json(dict(promoted.gates)),
            "mlflow": link(platform.model_url(ArtifactKind.INDEX, versions.index)),
        }
    )


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
    from pipelines.automation.conditions import running_experiment
    from registry.audit import PostgresPromotionLog
    from registry.cache import ReleaseCache
    from registry.errors import GatesNotPassed, PromotionConflict
    from registry.promotion import promote

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
