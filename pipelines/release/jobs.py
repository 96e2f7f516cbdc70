"""The job that judges a release again, or for the first time: any coherent triple, by its id."""

from typing import Any

import dagster as dg
from pydantic import Field

from pipelines.launchpad import checked_op
from pipelines.progress import telling
from pipelines.release.policy import Policy
from pipelines.resources import Platform

LATEST = "latest"


class JudgeConfig(dg.Config):
    """Say which release is judged."""

    release: str = Field(
        default=LATEST,
        pattern=r"^(latest|e[1-9][0-9]*-i[1-9][0-9]*-r[1-9][0-9]*)$",
        description="release id such as `e3-i5-r2`, whatever its versions are tagged with; `latest` is the newest "
        "candidate",
    )


def judge_job(policy: Policy) -> dg.JobDefinition:
    """Return the job `judge_release`, whose gates are those of `policy`."""

    @dg.op(
        name="judge",
        tags={"duet/heavy": "yes"},
        description="Measure a release on the newest snapshot, hold it against every gate and write the report on it.",
    )
    def judge(context: dg.OpExecutionContext, config: JudgeConfig, platform: dg.ResourceParam[Platform]) -> None:
        from pipelines.release.assets import shown_gates
        from pipelines.release.judging import judge_release
        from registry.contracts import ReleaseVersions

        latest = config.release == LATEST
        versions = platform.registry.release_candidate() if latest else ReleaseVersions.parse(config.release)
        _, report = judge_release(platform, policy, versions, telling(context.log.info, platform))
        metadata: dict[str, Any] = {"release": report.release, **shown_gates(report)}
        context.log_event(dg.AssetObservation("release_candidate", metadata=metadata))
        context.add_output_metadata(metadata)

    @dg.job(
        name="judge_release",
        tags={"duet/heavy": "yes"},
        description="Hold any release against the gates, so that it can be promoted.",
    )
    def judge_release_job() -> None:
        checked_op(judge)()

    return judge_release_job
