"""Jobs that make a release from everything, and that judge one again or for the first time: any triple, by its id."""

from typing import Any

import dagster as dg
from pydantic import Field

from pipelines.evaluation.assets import evaluation
from pipelines.features.assets import features
from pipelines.ingest.assets import snapshots
from pipelines.ranking.assets import ranker, ranking_dataset
from pipelines.release.assets import promoted_release
from pipelines.release.policy import Policy
from pipelines.resources import Platform
from pipelines.results.store import StepResult
from pipelines.retrieval.assets import candidate_index, embeddings
from pipelines.runs.launchpad import HEAVY, checked_op, default_config
from pipelines.runs.progress import telling

LATEST = "latest"
TRAINING = (snapshots, features, embeddings, candidate_index, ranking_dataset, ranker, evaluation, promoted_release)
"""The steps of the whole training that can be configured."""

TRAIN_ALL = dg.define_asset_job(
    "train_all",
    selection=dg.AssetSelection.assets("promoted_release").upstream() | dg.AssetSelection.assets("online_features"),
    config=default_config(*TRAINING),
    tags=HEAVY,
    description="Snapshots, features, embeddings, index, ranker, evaluation, release candidate.",
)


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
        tags=HEAVY,
        description="Measure a release on the newest snapshot, hold it against every gate and write the report on it.",
    )
    def judge(
        context: dg.OpExecutionContext,
        config: JudgeConfig,
        platform: dg.ResourceParam[Platform],
        interactions: StepResult,
    ) -> None:
        from pipelines.release.checks import shown_gates
        from pipelines.release.judging import judge_release
        from registry.contracts import ReleaseVersions

        latest = config.release == LATEST
        versions = platform.registry.release_candidate() if latest else ReleaseVersions.parse(config.release)
        _, report = judge_release(platform, policy, versions, interactions, telling(context.log.info, platform))
        metadata: dict[str, Any] = {"release": report.release, **shown_gates(report)}
        context.log_event(dg.AssetObservation("release_candidate", metadata=metadata))
        context.add_output_metadata(metadata)

    @dg.job(
        name="judge_release",
        tags=HEAVY,
        description="Hold any release against the gates, so that it can be promoted.",
    )
    def judge_release_job() -> None:
        # An asset is the op's input: the newest snapshot comes through the IO manager.
        checked_op(judge)(snapshots.get_asset_spec(dg.AssetKey("interactions")))

    return judge_release_job
