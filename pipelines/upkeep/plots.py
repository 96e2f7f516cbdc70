"""A picture of the marketplace over its days."""

from collections.abc import Sequence

from pipelines.evaluation.figures import BLUE, GREEN, GREY, ORANGE, canvas, picture
from pipelines.upkeep.activity import DailyActivity


@picture
def daily_activity_plot(days: Sequence[DailyActivity]) -> bytes:
    """Draw people, likes, matches and impressions per day."""
    with canvas("The marketplace by day", "", "per day") as drawing:
        at = [figures.day for figures in days]
        for name, color in (("likes", BLUE), ("matches", GREEN), ("people_active", GREY), ("shown", ORANGE)):
            values = [getattr(figures, name) for figures in days]
            drawing.axes.plot(at, values, color=color, lw=1.4, marker=".", ms=4, label=name.replace("_", " "))
        drawing.axes.tick_params(axis="x", rotation=30)
    return drawing.png


@picture
def exposure_plot(days: Sequence[DailyActivity]) -> bytes:
    """Draw how unevenly those shown were shown, where that is known."""
    with canvas("How unevenly people were shown", "", "Gini of exposure") as drawing:
        known = [figures for figures in days if figures.exposure_gini is not None]
        drawing.axes.plot([f.day for f in known], [f.exposure_gini for f in known], color=ORANGE, lw=1.4, marker=".")
        drawing.axes.set_ylim(0, 1)
        drawing.axes.tick_params(axis="x", rotation=30)
    return drawing.png
