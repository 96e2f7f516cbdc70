"""Pictures of the ranker's training: its learning curve, what it leans on, and how honest its probabilities are."""

from collections.abc import Mapping

from pydantic import JsonValue

from pipelines.evaluation.figures import BLUE, GREEN, GREY, ORANGE, canvas, picture
from pipelines.evaluation.plots import calibration, score_distribution
from pipelines.ranking.train import TrainingReport

_SHOWN_FEATURES = 15


def training_figures(report: TrainingReport) -> dict[str, bytes]:
    """Return every picture of a training by name."""
    of = "the validation slice" if report.validation_rows else "its own training rows"
    return {
        "training_curve": training_curve(report),
        "feature_importance": feature_importance(report),
        "calibration": calibration(report.calibration, of),
        "score_distribution": score_distribution(report.validation_labels, report.validation_scores, of),
    }


@picture
def lists_plot(figures: Mapping[str, JsonValue]) -> bytes:
    """Draw NDCG@20 of every compared order on the held-out lists, the served one marked."""
    by_policy = figures["policies"]
    rows = [(name, values) for name, values in by_policy.items()] if isinstance(by_policy, dict) else []
    shown = [(name, float(str(values["ndcg_at_20"] or 0.0))) for name, values in rows if isinstance(values, dict)]
    shown.sort(key=lambda row: row[1])
    with canvas("Orders on held-out lists", "NDCG@20", "", size=(6.4, 4.4)) as drawing:
        colors = [GREEN if name == figures["chosen"] else BLUE for name, _ in shown]
        drawing.axes.barh([name for name, _ in shown], [value for _, value in shown], color=colors, height=0.7)
        drawing.axes.tick_params(axis="y", labelsize=7)
    return drawing.png


@picture
def training_curve(report: TrainingReport) -> bytes:
    """Draw the loss on the early rows and on the validation slice, and where growth was stopped."""
    with canvas("Training curve", "trees", "log loss") as drawing:
        for name, color in (("training", GREY), ("validation", BLUE)):
            if name in report.curve:
                values = report.curve[name]
                drawing.axes.plot(range(1, len(values) + 1), values, color=color, lw=1.5, label=name)
        drawing.axes.axvline(report.rounds, color=GREEN, ls="--", lw=1, label=f"kept: {report.rounds} trees")
        drawing.axes.axhline(report.base_log_loss, color=ORANGE, ls=":", lw=1, label="always the mean")
    return drawing.png


@picture
def feature_importance(report: TrainingReport) -> bytes:
    """Draw the features that explain most of the loss the trees took away."""
    top = list(report.importance.items())[:_SHOWN_FEATURES][::-1]
    with canvas("Feature importance", "share of total gain", "", size=(6.4, 4.4)) as drawing:
        drawing.axes.barh([name for name, _ in top], [share for _, share in top], color=BLUE, height=0.7)
        drawing.axes.tick_params(axis="y", labelsize=7)
    return drawing.png
