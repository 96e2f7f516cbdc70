"""Picture of what was imported: how many interactions of each kind happened when."""

import io
from typing import TYPE_CHECKING

from pipelines.evaluation.figures import picture

if TYPE_CHECKING:
    import pandas as pd

BINS = 60


@picture
def interaction_volume(interactions: "pd.DataFrame") -> bytes:
    """Return a PNG of interactions per kind over time."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    seconds = interactions["occurred_at"].dt.tz_localize(None).to_numpy().astype("datetime64[s]").astype(np.int64)
    edges = np.linspace(seconds.min(), seconds.max() + 1, BINS + 1)
    kinds = interactions["kind"].astype(str).to_numpy()
    names = sorted(set(kinds.tolist()))
    for name in names:
        counts, _ = np.histogram(seconds[kinds == name], bins=edges)
        axes.stairs(counts, edges.astype("datetime64[s]"), label=name)
    axes.set_ylabel("interactions")
    axes.legend(fontsize=8, ncols=max(len(names), 1), loc="upper left")
    axes.tick_params(axis="x", labelrotation=20, labelsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=80, metadata={"Software": None})
    return out.getvalue()
