"""The release candidate: one coherent triple, judged by its gates, that a person can promote."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from pipelines.comparison import compared
from pipelines.io_manager import MAY_BE_MISSING
from pipelines.presentation import frame, link, plots, table
from pipelines.progress import telling
from pipelines.release.candidate import find_candidate, name_candidate, register_candidate
from pipelines.release.policy import Gate, Policy, asked
from pipelines.resources import Platform
from pipelines.results import Result, combined_digest
from registry.contracts import ArtifactKind

if TYPE_CHECKING:
    from pipelines.release.candidate import Candidate
    from registry.gates import GateReport, GateResult

_DIGITS: Final = 6


def check_specs(policy: Policy) -> list[dg.AssetCheckSpec]:
    """Return one check per gate. None blocks: what fails is registered with the failure on it, and not promoted."""
    return [
        dg.AssetCheckSpec(gate.name, asset="release_candidate", blocking=False, description=_described(gate))
        for gate in policy.gates
    ]


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
    def release_candidate(
        context: dg.AssetExecutionContext,
        platform: dg.ResourceParam[Platform],
        candidate_index: Result,
        ranker: Result | None,
        evaluation: Result | None,
    ) -> Iterator[dg.MaterializeResult[Any]]:
        """Verify the set, tag its versions and judge it."""
        from pipelines.release.judging import judge_release

        candidate = find_candidate(platform, candidate_index, ranker, context.run.run_id)
        versions = register_candidate(platform, candidate)
        release, report = judge_release(
            platform, policy, versions, telling(context.log.info, platform), candidate.directories
        )
        name_candidate(platform, candidate, release)
        inputs = {
            **candidate.index.inputs,
            "candidate_index": candidate.index.digest,
            "ranker": candidate.ranker.digest,
        }
        digest = combined_digest({key: inputs[key] for key in ("embeddings", "candidate_index", "ranker")})
        made = Result(
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


def check_result(result: "GateResult") -> dg.AssetCheckResult:
    """Show one gate as an asset check."""
    numbers = {"value": result.value, "production": result.production}
    words = {"metric": result.metric, "verdict": result.verdict}
    from pipelines.release.presentation import threshold_text

    bounds = {"threshold": threshold_text(result), "tolerance": str(result.tolerance or "")}
    return dg.AssetCheckResult(
        asset_key="release_candidate",
        check_name=result.name,
        passed=result.passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=result.why,
        metadata={
            **{name: round(value, _DIGITS) for name, value in numbers.items() if value is not None},
            **{name: value for name, value in {**bounds, **words}.items() if value},
        },
    )


def shown_gates(report: "GateReport") -> dict[str, Any]:
    """Show a whole report: verdict, table, plot."""
    from pipelines.release.presentation import headroom_plot, rows

    return {
        "gates": report.verdict,
        **plots({"gate_headroom": headroom_plot(report)}),
        "gates_table": table(rows(report)),
        "gates_against": report.against or "nothing in Production",
        "gates_policy": report.policy,
    }


def promote_with(report: "GateReport") -> str:
    """Say which command promotes the release, or what stands in the way."""
    command = f"duet promote --release-candidate {report.release}"
    if report.passed:
        return command
    return f"not without `{command} --force --reason ...`, because it {report.verdict}"


def _described(gate: Gate) -> str:
    return f"{gate.meaning} `{gate.metric}` must be {asked(gate)}."


def _evaluation(judged: Result | None, candidate: "Candidate") -> dict[str, Any]:
    """Show the comparison that judged this ranker, or say that none did."""
    from pipelines.evaluation.assets import TABLE_FILE

    if judged is None or judged.inputs.get("ranker") != candidate.ranker.digest:
        return {"evaluation": "this ranker was not evaluated here; run the job `evaluate`"}
    import pandas as pd

    return {
        "evaluation": frame(pd.read_csv(judged.path / TABLE_FILE)),
        "evaluation_protocol": str(judged.facts.get("protocol")),
    }
