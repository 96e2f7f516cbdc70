"""The read-out as a table for people, as JSON for machines and as metrics for MLflow."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.experiments.clustered import Estimate
from pipelines.experiments.counterfactual import Counterfactual
from pipelines.experiments.report import ExperimentReport
from pipelines.metrics.off_policy import OffPolicyEstimate


def rows_of(report: ExperimentReport) -> list[dict[str, Any]]:
    """Return the table of the read-out: one row per figure, one column per arm, intervals beside the values."""
    counts = [
        {"figure": name, **{arm.name: f"{getattr(arm, name):,}" for arm in report.arms}}
        for name in ("people", "answers", "exposures")
    ]
    served = {"figure": "releases", **{arm.name: ", ".join(arm.releases) or "-" for arm in report.arms}}
    rates = [
        {"figure": _named(figure), **{arm.name: _shown(figure, arm.figures[figure]) for arm in report.arms}}
        for figure in report.arms[0].figures
    ]
    return [*counts, served, *rates]


def as_json(report: ExperimentReport) -> dict[str, Any]:
    """Return the read-out for machines: numbers, no rounding; what is unknown is null."""
    stretch = report.stretch
    return {
        "experiment": stretch.name,
        "state": stretch.state.value,
        "running": stretch.running,
        "share": stretch.share,
        "since": stretch.since.isoformat(),
        "until": stretch.until.isoformat(),
        "attribution_s": report.choices.window.total_seconds(),
        "alpha": report.choices.alpha,
        "decide_by": report.choices.decide_by,
        "decision": report.decision.value,
        "sentence": report.sentence,
        "sample_ratio_p": report.sample_ratio_p,
        "people_in_both_arms": report.people.both,
        "arms": {
            arm.name: {
                "people": arm.people,
                "answers": arm.answers,
                "exposures": arm.exposures,
                "releases": list(arm.releases),
                **{name: _numbers((one.value, one.low, one.high)) for name, one in arm.figures.items()},
            }
            for arm in report.arms
        },
        "differences": {
            measure: [
                {"at": step.at.isoformat(), "p": step.look.p}
                | dict(
                    zip(
                        ("value", "low", "high"),
                        _numbers((step.look.difference, step.look.low, step.look.high)),
                        strict=True,
                    )
                )
                for step in steps
            ]
            for measure, steps in report.steps.items()
        },
        "shadow_would_have_reached": _shadow_numbers(report.counterfactual),
    }


def shadow_rows(found: Counterfactual) -> list[dict[str, Any]]:
    """Return what the shadow would have reached: one row per measure, the champion's own rate and each estimator's."""
    return [
        {
            "figure": _named(measure),
            "champion": f"{found.own[measure]:.4f}",
            **{name: _estimated(one) for name, one in estimates.items()},
            "effective showings": f"{next(iter(estimates.values())).effective_rows:,.0f}",
        }
        for measure, estimates in found.estimates.items()
    ]


def _estimated(one: OffPolicyEstimate) -> str:
    if not np.isfinite(one.value):
        return "-"
    low, high = one.interval()
    return f"{one.value:.4f} ({low:.4f}..{high:.4f})"


def _shadow_numbers(found: Counterfactual | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "showings": found.showings,
        **{
            measure: {
                "champion": found.own[measure],
                "effective_showings": next(iter(estimates.values())).effective_rows,
                **{name.replace(" ", "_"): _numbers((one.value, *one.interval())) for name, one in estimates.items()},
            }
            for measure, estimates in found.estimates.items()
        },
    }


def metrics_of(report: ExperimentReport) -> dict[str, float]:
    """Return the figures that are finite, named `<arm>.<figure>`, and the last differences."""
    found = {f"{arm.name}.{name}": one.value for arm in report.arms for name, one in arm.figures.items()}
    found |= {f"{arm.name}.people": float(arm.people) for arm in report.arms}
    for measure, steps in report.steps.items():
        if steps:
            last = steps[-1].look
            found |= {
                f"{measure}.difference": last.difference,
                f"{measure}.low": last.low,
                f"{measure}.high": last.high,
            }
    if report.counterfactual is not None:
        for measure, estimates in report.counterfactual.estimates.items():
            found |= {f"shadow.{measure}.{name.replace(' ', '_')}": one.value for name, one in estimates.items()}
    if report.sample_ratio_p is not None:
        found["sample_ratio_p"] = report.sample_ratio_p
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _numbers(values: Sequence[float]) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values]


def _named(figure: str) -> str:
    return figure.replace("_", " ")


def _shown(figure: str, found: Estimate) -> str:
    if not np.isfinite(found.value):
        return "-"
    if figure.endswith("_ms"):
        return f"{found.value:.1f} ({found.low:.1f}..{found.high:.1f})"
    if not np.isfinite(found.variance):
        return f"{found.value:.4f}"
    return f"{found.value:.4f} ({found.low:.4f}..{found.high:.4f})"
