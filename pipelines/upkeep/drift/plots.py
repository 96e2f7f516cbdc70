"""A picture of drift: what moved furthest, and the limit."""

from collections.abc import Mapping

from pipelines.evaluation.figures import BLUE, GREY, ORANGE, canvas, picture

_SHOWN = 15


@picture
def drift_plot(psi: Mapping[str, float], threshold: float) -> bytes:
    """Draw the features that moved furthest against the index that asks for a retraining."""
    top = list(psi.items())[:_SHOWN][::-1]
    with canvas("Drift since the ranker's training rows", "population stability index", "", size=(6.4, 4.4)) as drawing:
        colors = [ORANGE if value > threshold else BLUE for _, value in top]
        drawing.axes.barh([name for name, _ in top], [value for _, value in top], color=colors, height=0.7)
        drawing.axes.axvline(threshold, color=GREY, ls="--", lw=1, label=f"retrain beyond {threshold:g}")
        drawing.axes.tick_params(axis="y", labelsize=7)
    return drawing.png
