"""Pictures of a search: how good each trial was and the best so far, and which parameters matter."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.evaluation.figures import BLUE, GREEN, GREY, canvas, picture
from pipelines.evaluation.search.config import MAXIMISED, MEASURES, Stage
from pipelines.evaluation.search.study import COMPLETE, PRUNED, TrialOutcome


@picture
def search_history(outcomes: Sequence[TrialOutcome], stage: Stage) -> bytes:
    """Draw every trial and the best so far."""
    measure = MEASURES[stage].replace("_", " ")
    with canvas("Search", "trial", measure) as drawing:
        for state, color in ((COMPLETE, BLUE), (PRUNED, GREY)):
            numbers, values = _points([outcome for outcome in outcomes if outcome.state == state])
            if numbers:
                drawing.axes.scatter(numbers, values, s=14, color=color, label=state)
        numbers, values = _points([outcome for outcome in outcomes if outcome.state == COMPLETE])
        if numbers:
            best = (np.maximum if stage in MAXIMISED else np.minimum).accumulate(values)
            drawing.axes.step(numbers, best, where="post", color=GREEN, lw=1.5, label="best so far")
    return drawing.png


@picture
def parameter_importance(importance: Mapping[str, float]) -> bytes:
    """Draw how much of the trials' differences each parameter explains."""
    ordered = list(importance.items())[::-1]
    with canvas("Which parameters matter", "explained share of the variance", "") as drawing:
        drawing.axes.barh([name for name, _ in ordered], [share for _, share in ordered], color=BLUE, height=0.6)
    return drawing.png


def _points(outcomes: Sequence[TrialOutcome]) -> tuple[list[int], list[float]]:
    return [outcome.number for outcome in outcomes], [outcome.value for outcome in outcomes]
