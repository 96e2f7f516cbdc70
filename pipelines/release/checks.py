"""The gates of a release candidate as checks, and whether what stands in Production is one coherent release."""

from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from pipelines.presentation import plots, table
from pipelines.release.policy import Gate, Policy, asked
from pipelines.resources import Platform

if TYPE_CHECKING:
    from pipelines.release.history import ReleaseStanding
    from registry.promotion.gates import GateReport, GateResult

CHECK: Final = "production_is_coherent"
_DIGITS: Final = 6


def check_specs(policy: Policy) -> list[dg.AssetCheckSpec]:
    """Return one check per gate. None blocks: what fails is registered with the failure on it, and not promoted."""
    return [
        dg.AssetCheckSpec(gate.name, asset="release_candidate", blocking=False, description=_described(gate))
        for gate in policy.gates
    ]


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


def _described(gate: Gate) -> str:
    return f"{gate.meaning} `{gate.metric}` must be {asked(gate)}."


@dg.asset_check(
    asset="release_history", name=CHECK, description="What stands in Production is one coherent release, and serves."
)
def production_is_coherent(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
    """Look now, for a person who presses the button."""
    found = standing_now(platform)
    return dg.AssetCheckResult(
        passed=found.refusal is None, description=sentence_of(found), metadata=metadata_of(found)
    )


def standing_now(platform: Platform) -> "ReleaseStanding":
    """Return what stands where now; stages that were moved by hand are recorded."""
    from pipelines.release.history import look

    return look(platform)


def sentence_of(found: "ReleaseStanding") -> str:
    """Say why Production is refused, or that it is not."""
    return found.refusal or "What stands in Production is one coherent release, and nobody refuses it."


def metadata_of(found: "ReleaseStanding") -> dict[str, Any]:
    """Show which worker serves what."""
    return {
        "workers": table(
            [
                {"worker": worker.name, "serves": worker.release or "", "refused": worker.refused or ""}
                for worker in found.workers
            ]
        ),
        "pinned": found.pinned or "no",
    }
