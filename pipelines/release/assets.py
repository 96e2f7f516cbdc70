"""The release candidate: one coherent triple, judged by its gates; and the one that a run promotes by itself.

Nothing is promoted unless the run's configuration names a stage, which runs started by hand do not.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Literal

import dagster as dg
from pydantic import Field

from pipelines.io_manager import MAY_BE_MISSING
from pipelines.presentation import frame, link, table
from pipelines.release.candidate import find_candidate, name_candidate, register_candidate
from pipelines.release.checks import check_result, check_specs, shown_gates
from pipelines.release.policy import Policy
from pipelines.release.promotion import actor_of, promote_candidate
from pipelines.resources import Platform
from pipelines.results.comparison import compared
from pipelines.results.store import StepResult, combined_digest
from pipelines.runs.progress import telling
from registry.contracts import ArtifactKind, ReleaseVersions

if TYPE_CHECKING:
    from pipelines.release.candidate import Candidate
    from registry.promotion.gates import GateReport

HISTORY: Final = dg.AssetKey("release_history")
RELEASE_HISTORY = dg.AssetSpec(
    HISTORY,
    group_name="release",
    kinds={"mlflow", "postgres"},
    description="Which release was in Production and Staging when, by whom, which way, why, and what its gates said.",
)


def release_candidate_asset(policy: Policy) -> dg.AssetsDefinition:
    """Return the asset whose checks are the gates of `policy`."""

    @dg.asset(
        name="release_candidate",
        deps=["embeddings"],
        ins={name: dg.AssetIn(metadata=MAY_BE_MISSING) for name in ("ranker", "evaluation")},
        group_name="release",
        kinds={"mlflow"},
        pool="training",
        check_specs=check_specs(policy),
        description="Embedding, index and ranker that belong together, verified, tried and judged; `duet promote` "
        "promotes it where every gate passed.",
    )
    def release_candidate(  # noqa: PLR0917 - an argument for each input
        context: dg.AssetExecutionContext,
        platform: dg.ResourceParam[Platform],
        interactions: StepResult,
        candidate_index: StepResult,
        ranker: StepResult | None,
        evaluation: StepResult | None,
    ) -> Iterator[dg.MaterializeResult[Any]]:
        """Verify the set, tag its versions and judge it."""
        from pipelines.release.judging import judge_release

        candidate = find_candidate(platform, candidate_index, ranker, context.run.run_id)
        versions = register_candidate(platform, candidate)
        release, report = judge_release(
            platform, policy, versions, interactions, telling(context.log.info, platform),
            directories=candidate.directories,
        )  # fmt: skip
        name_candidate(platform, candidate, release)
        inputs = {
            **candidate.index.inputs,
            "candidate_index": candidate.index.digest,
            "ranker": candidate.ranker.digest,
        }
        digest = combined_digest({key: inputs[key] for key in ("embeddings", "candidate_index", "ranker")})
        made = StepResult(
            asset="release_candidate", digest=digest, run_id=context.run.run_id,
            as_of=candidate.index.as_of, t0=candidate.index.t0, t1=candidate.index.t1,
            inputs=inputs, facts={"release": versions.release_id, "passed": report.passed}, has_files=False,
        )  # fmt: skip
        parts = [
            {
                "model": kind.value,
                "version": versions[kind],
                "mlflow": platform.model_url(kind, versions[kind]),
                "path": str(candidate.directories[kind]),
            }
            for kind in ArtifactKind
        ]
        yield dg.MaterializeResult(
            value=made,
            metadata={
                "release": versions.release_id,
                "promote_with": promote_with(report),
                **shown_gates(report),
                **compared(platform, release.manifests),
                **_evaluation(evaluation, candidate),
                "parts": table(parts),
                "mlflow": link(platform.model_url(ArtifactKind.RANKER, versions.ranker)),
                "digest": digest,
            },
            check_results=[check_result(result) for result in report.results],
        )

    return release_candidate


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
    release_candidate: StepResult,
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


def promote_with(report: "GateReport") -> str:
    """Say which command promotes the release, or what stands in the way."""
    command = f"duet promote --release-candidate {report.release}"
    if report.passed:
        return command
    return f"not without `{command} --force --reason ...`, because it {report.verdict}"


def _evaluation(judged: StepResult | None, candidate: "Candidate") -> dict[str, Any]:
    """Show the comparison that judged this ranker, or say that none did."""
    from pipelines.evaluation.assets import TABLE_FILE

    if judged is None or judged.inputs.get("ranker") != candidate.ranker.digest:
        return {"evaluation": "this ranker was not evaluated here; run the job `evaluate`"}
    import pandas as pd

    return {
        "evaluation": frame(pd.read_csv(judged.path / TABLE_FILE)),
        "evaluation_protocol": str(judged.facts.get("protocol")),
    }
