"""Pictures of the offline features: how many people's vectors move at each snapshot."""

from collections.abc import Sequence

import pandas as pd

from pipelines.evaluation.figures import BLUE, canvas


def snapshot_volume(at: Sequence[pd.Timestamp], rows: Sequence[int]) -> bytes:
    """Draw how many people's vectors changed at each snapshot."""
    with canvas("People whose features changed", "snapshot", "people") as drawing:
        drawing.axes.plot(list(at), list(rows), color=BLUE, marker="o", ms=3, lw=1.2)
        drawing.axes.tick_params(axis="x", rotation=20)
        drawing.axes.set_ylim(bottom=0)
    return drawing.png
