"""One sober look for every plot of the pipelines: a titled axis with labels, rendered to a small PNG."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

BLUE: Final = "#33658a"
GREY: Final = "#8d99ae"
ORANGE: Final = "#d17a22"
GREEN: Final = "#4f7942"
_SIZE: Final = (6.4, 3.6)
_DPI: Final = 110


@dataclass
class Canvas:
    """A figure's axes while it is drawn, and its PNG bytes afterwards."""

    axes: Any
    png: bytes = field(default=b"", repr=False)


@contextmanager
def canvas(title: str, x: str, y: str, size: tuple[float, float] = _SIZE) -> Iterator[Canvas]:
    """Draw on one set of axes without a display or global state; the PNG is ready when the block ends."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    drawing = Canvas(axes)
    yield drawing
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, frameon=False)
    buffer = io.BytesIO()
    # No version or time stamp: equal data give equal bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    drawing.png = buffer.getvalue()
