"""How the judgement of a release is shown: a table for Dagster, rows for a terminal, and a plot of the headroom."""

import math
from collections.abc import Mapping

from pipelines.evaluation.figures import BLUE, GREY, ORANGE, canvas, picture
from registry.promotion.gates import GateReport, GateResult

_FURTHEST = 1.0
_LONG = 10_000


def rows(report: GateReport) -> list[dict[str, str | float | None]]:
    """Return one row per gate, failures first; the sentence stands near the front, where no page cuts it off."""
    ordered = sorted(report.results, key=lambda result: result.passed)
    return [
        {
            "gate": result.name,
            "verdict": result.verdict,
            "why": result.why,
            "metric": result.metric,
            "value": result.value,
            "threshold": threshold_text(result),
            "production": result.production,
            "tolerance": str(result.tolerance or ""),
        }
        for result in ordered
    ]


def threshold_text(result: GateResult) -> str:
    """Write a gate's own bound, such as `>= 0.9`; empty without one."""
    if result.threshold is None:
        return ""
    if isinstance(result.threshold, tuple):
        return " to ".join(map(shown_number, result.threshold))
    return f"{'>=' if result.direction == 'higher' else '<='} {shown_number(result.threshold)}"


def shown_number(value: object) -> str:
    """Write a number in four figures; empty for what is no number."""
    if not isinstance(value, (int, float)):
        return ""
    return f"{value:.4g}" if abs(value) < _LONG else f"{value:,.0f}"


def headroom(result: GateResult) -> float | None:
    """Return how far the value is from its tightest bound, as a share of the bound: negative where it failed.

    None where the gate was skipped or nothing was measured.
    """
    value = result.value
    if result.skipped or value is None:
        return None
    low = [_share(value - bound.low, bound.low) for bound in result.bounds if math.isfinite(bound.low)]
    high = [_share(bound.high - value, bound.high) for bound in result.bounds if math.isfinite(bound.high)]
    return min([*low, *high], default=None)


def _share(room: float, bound: float) -> float:
    if bound:
        return room / abs(bound)
    return math.copysign(_FURTHEST, room) if room else 0.0


@picture
def headroom_plot(report: GateReport) -> bytes:
    """Draw how far each gate is from failing; what failed lies left of the line."""
    found: Mapping[str, float | None] = {result.name: headroom(result) for result in reversed(report.results)}
    failed = {result.name for result in report.failures()}
    title = f"Gates of {report.release}"
    with canvas(title, "distance to the tightest bound, share of the bound", "", size=(6.4, 4.4)) as drawing:
        for place, (name, room) in enumerate(found.items()):
            color = ORANGE if name in failed else BLUE
            shown = max(min(room, _FURTHEST), -_FURTHEST) if room is not None else 0.0
            drawing.axes.barh(place, shown, color=color, height=0.7)
            if room is None:
                note = "not measured" if name in failed else "skipped"
                drawing.axes.text(0.02, place, note, color=GREY, fontsize=7, va="center")
        drawing.axes.axvline(0, color="#333333", lw=1)
        drawing.axes.set_xlim(-_FURTHEST, _FURTHEST)
        drawing.axes.set_yticks(range(len(found)), list(found), fontsize=7)
    return drawing.png
