"""The release candidate: one coherent triple that a person can promote."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from pipelines.presentation import frame, link, table
from pipelines.release.candidate import find_candidate, judge_candidate, register_candidate
from pipelines.resources import Platform
from pipelines.state import Current, combined_digest
from registry.contracts import ArtifactKind

if TYPE_CHECKING:
    from pipelines.release.candidate import Candidate


@dg.asset(
    deps=["embeddings", "candidate_index", "ranker", "evaluation"],
    group_name="release",
    kinds={"mlflow"},
    pool="training",
    description="Embedding, index and ranker that belong together, verified and tried; promote it with `duet promote`.",
)
def release_candidate(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult[Any]:
    """Verify the set, tag its versions and say how to promote it."""
    candidate = find_candidate(platform, context.run.run_id)
    versions = register_candidate(platform, candidate)
    report = judge_candidate(platform, versions)
    inputs = {**candidate.index.inputs, "candidate_index": candidate.index.digest, "ranker": candidate.ranker.digest}
    digest = combined_digest({key: inputs[key] for key in ("embeddings", "candidate_index", "ranker")})
    directory = platform.state.directory("release_candidate", digest)
    directory.mkdir(parents=True, exist_ok=True)
    platform.state.publish(
        Current(
            asset="release_candidate", path=directory, digest=digest, run_id=context.run.run_id,
            as_of=candidate.index.as_of, t0=candidate.index.t0, t1=candidate.index.t1,
            inputs=inputs, facts={"release": versions.release_id},
        )
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
    context.log.info("release candidate %s", versions.release_id)
    return dg.MaterializeResult(
        metadata={
            "release": versions.release_id,
            "parts": table(parts),
            "promote_with": f"duet promote --release-candidate {versions.release_id}",
            "mlflow": link(platform.model_url(ArtifactKind.RANKER, versions.ranker)),
            "digest": digest,
            "gates": report.verdict,
            **_evaluation(platform, candidate),
        }
    )


def _evaluation(platform: Platform, candidate: "Candidate") -> dict[str, Any]:
    """Show the comparison that judged this ranker, or say that none did."""
    from pipelines.evaluation.assets import TABLE_FILE

    judged = platform.state.find("evaluation")
    if judged is None or judged.inputs.get("ranker") != candidate.ranker.digest:
        return {"evaluation": "this ranker was not evaluated here; run the job `evaluate`"}
    import pandas as pd

    return {
        "evaluation": frame(pd.read_csv(judged.path / TABLE_FILE)),
        "evaluation_protocol": str(judged.facts.get("protocol")),
    }
