"""Pictures of candidate generation: how long the factors are, and what recall costs."""

import numpy as np

from pipelines.evaluation.figures import BLUE, GREEN, GREY, ORANGE, canvas, picture
from registry.models.embedding import Embedding
from registry.models.item_index import BuildReport


@picture
def embedding_norms(embedding: Embedding) -> bytes:
    """Draw the lengths of everybody's two factors: long means that much is known or that taste is outspoken."""
    sides = (("as chooser (P)", embedding.chooser, BLUE), ("as chosen (Q)", embedding.chosen, ORANGE))
    lengths = [np.linalg.norm(factors, axis=1) for _, factors, _ in sides]
    edges = np.linspace(0, max(float(values.max(initial=0.0)) for values in lengths) or 1.0, 61)
    with canvas("Length of the factors", "Euclidean norm", "people") as drawing:
        for (name, _, color), values in zip(sides, lengths, strict=True):
            drawing.axes.hist(values, bins=edges, color=color, alpha=0.55, label=name)
    return drawing.png


@picture
def recall_curve(report: BuildReport, target: float) -> bytes:
    """Draw recall against exact search for growing `nprobe`; a flat index is one point at 1."""
    probes = [point.nprobe for point in report.curve]
    title = f"Recall of the {report.kind.value} index over {report.people:,} people"
    with canvas(title, "nprobe (lists searched)", f"recall@{report.recall_at}") as drawing:
        drawing.axes.axhline(target, color=GREY, ls="--", lw=1, label=f"target {target:g}")
        drawing.axes.plot(probes, [point.recall for point in report.curve], color=BLUE, marker="o", ms=4)
        drawing.axes.plot(
            [report.nprobe], [report.recall], color=GREEN, marker="o", ms=8, ls="", label=f"chosen: {report.nprobe}"
        )
        if probes and max(probes) > 8:
            drawing.axes.set_xscale("log")
        drawing.axes.set_ylim(0, 1.05)
    return drawing.png
