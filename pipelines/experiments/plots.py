"""Pictures of an experiment: the difference with its always-valid interval over time, and the rates of each arm."""

import numpy as np

from pipelines.evaluation.figures import BLUE, GREEN, GREY, ORANGE, canvas, picture
from pipelines.experiments.reading import SHADOW
from pipelines.experiments.report import MEASURES, ExperimentReport, RateStep


def figures_of(report: ExperimentReport) -> dict[str, bytes]:
    """Draw every picture of a read-out."""
    drawn = {f"{measure}_difference": difference(measure, steps) for measure, steps in report.steps.items() if steps}
    return {**drawn, "rates": rates(report)}


@picture
def difference(measure: str, steps: list[RateStep]) -> bytes:
    """Draw challenger less champion at every look, with the interval that holds at all of them together."""
    named = measure.replace("_", " ")
    hours = np.array([(step.at - steps[0].at).total_seconds() / 3600 for step in steps])
    values = [step.look.difference for step in steps]
    low, high = ([getattr(step.look, side) for step in steps] for side in ("low", "high"))
    shown = max(3 * (high[-1] - low[-1]), 1e-6)
    with canvas(f"Difference of the {named}, with its always-valid interval", "hours of looking", named) as drawing:
        drawing.axes.axhline(0, color=GREY, lw=1, ls="--")
        drawing.axes.fill_between(hours, low, high, color=BLUE, alpha=0.2, label="always valid")
        drawing.axes.plot(hours, values, color=BLUE, marker="o", ms=3, label="challenger less champion")
        # The first intervals are so wide that they would hide the last.
        drawing.axes.set_ylim(min(-shown, *values), max(shown, *values))
    return drawing.png


@picture
def rates(report: ExperimentReport) -> bytes:
    """Draw the like and match rates of each arm with their intervals."""
    arms = [arm for arm in report.arms if arm.name != SHADOW]
    with canvas(f"Rates per arm of {report.stretch.name}", "", "share of people shown") as drawing:
        width = 0.8 / len(arms)
        for place, (arm, color) in enumerate(zip(arms, (BLUE, ORANGE, GREEN), strict=False)):
            found = [arm.figures[measure] for measure in MEASURES]
            value = np.nan_to_num([one.value for one in found])
            reach = np.nan_to_num([[v - one.low, one.high - v] for v, one in zip(value, found, strict=True)]).T
            at = np.arange(len(MEASURES)) + (place - (len(arms) - 1) / 2) * width
            drawing.axes.bar(at, value, width * 0.9, color=color, label=arm.name)
            drawing.axes.errorbar(
                at, value, yerr=np.clip(reach, 0, None), fmt="none", ecolor="#333333", capsize=3, lw=1
            )
        drawing.axes.set_xticks(np.arange(len(MEASURES)), [measure.replace("_", " ") for measure in MEASURES])
    return drawing.png
