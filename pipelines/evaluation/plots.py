"""Pictures of the evaluation: methods with their intervals, calibration, and how scores separate likes from passes."""

import numpy as np
import pandas as pd

from pipelines.evaluation.figures import BLUE, GREEN, GREY, ORANGE, canvas, picture
from pipelines.metrics import CalibrationBins, Numbers


@picture
def comparison(table: pd.DataFrame, protocol: str) -> bytes:
    """Draw each method's most telling measure with its 95 % interval: the true matches where they are known."""
    measures = list(dict.fromkeys(table["measure"]))
    measure = next(
        name for name in ("true_match_precision_at_10", "match_precision_at_10", *measures) if name in measures
    )
    rows = table[table["measure"] == measure].iloc[::-1]
    mean = rows["mean"].to_numpy(dtype=float)
    low = np.nan_to_num(mean - rows["low"].to_numpy(dtype=float))
    high = np.nan_to_num(rows["high"].to_numpy(dtype=float) - mean)
    named = measure.replace("_", " ")
    with canvas(
        f"{named}, held-out window ({protocol})", f"{named}, mean over people with 95 % interval", ""
    ) as drawing:
        colors = [
            ORANGE if method == "two_stage" else GREY if method == "oracle" else BLUE for method in rows["method"]
        ]
        places = np.arange(len(rows))
        drawing.axes.barh(places, mean, color=colors, height=0.65)
        drawing.axes.errorbar(
            mean, places, xerr=np.clip(np.stack([low, high]), 0, None), fmt="none", ecolor="#333333", capsize=3, lw=1
        )
        drawing.axes.set_yticks(places, [str(method).replace("_", " ") for method in rows["method"]])
    return drawing.png


@picture
def cold_start(curve: pd.DataFrame) -> bytes:
    """Draw how good the list of a newcomer is after each of the first swipes, with 95 % intervals."""
    with canvas("Newcomers, swipe by swipe", "swipes that the list knows of", "mean over people") as drawing:
        for measure, color in zip(dict.fromkeys(curve["measure"]), (BLUE, ORANGE, GREEN), strict=False):
            rows = curve[curve["measure"] == measure]
            swipes, mean = rows["swipes"].to_numpy(dtype=float), rows["mean"].to_numpy(dtype=float)
            low, high = (rows[end].to_numpy(dtype=float) for end in ("low", "high"))
            drawing.axes.fill_between(swipes, low, high, color=color, alpha=0.2)
            drawing.axes.plot(swipes, mean, color=color, marker="o", ms=4, label=str(measure).replace("_", " "))
        drawing.axes.set_ylim(bottom=0)
    return drawing.png


@picture
def calibration(bins: CalibrationBins, of: str) -> bytes:
    """Draw the observed share of likes against the predicted probability."""
    with canvas(f"Calibration on {of} (error {bins.error:.3f})", "predicted P(like)", "observed share") as drawing:
        drawing.axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--", label="perfect")
        drawing.axes.plot(bins.predicted, bins.observed, color=BLUE, marker="o", ms=4, label="ranker")
        drawing.axes.set_xlim(0, 1)
        drawing.axes.set_ylim(0, 1)
    return drawing.png


@picture
def score_distribution(labels: Numbers, scores: Numbers, of: str) -> bytes:
    """Draw how predictions for likes and for passes are distributed."""
    edges = np.linspace(0, 1, 41)
    liked = np.asarray(labels) > 0
    with canvas(f"Predicted P(like) on {of}", "predicted P(like)", "share of rows") as drawing:
        for name, rows, color in (("passes", ~liked, GREY), ("likes", liked, BLUE)):
            if rows.any():
                weight = np.full(int(rows.sum()), 1.0 / rows.sum())
                drawing.axes.hist(scores[rows], bins=edges, weights=weight, color=color, alpha=0.6, label=name)
    return drawing.png
