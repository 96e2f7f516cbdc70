"""One sober look for every plot of the pipelines: a titled axis with labels, rendered to a small PNG."""

import base64
import functools
import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, ParamSpec

BLUE: Final = "#33658a"
GREY: Final = "#8d99ae"
ORANGE: Final = "#d17a22"
GREEN: Final = "#4f7942"
_SIZE: Final = (6.4, 3.6)
_DPI: Final = 110
# One transparent point: what is shown where nothing at all can be drawn.
_NOTHING: Final = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
_P = ParamSpec("_P")


def picture(draw: Callable[_P, bytes]) -> Callable[_P, bytes]:
    """Let a function that draws never fail its step: what cannot be drawn becomes a picture that says why.

    Plots are there to be looked at; training does not depend on them, so an odd value must not end it.
    """

    @functools.wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> bytes:
        try:
            return draw(*args, **kwargs)
        except Exception as broken:  # noqa: BLE001 - whatever it is, the step goes on
            reason = f"{type(broken).__name__}: {broken}"[:300]
            logging.getLogger(__name__).warning("the plot `%s` could not be drawn: %s", draw.__name__, reason)
            return _excuse(f"{draw.__name__.replace('_', ' ')} could not be drawn", reason)

    return drawn


def _excuse(title: str, reason: str) -> bytes:
    import textwrap

    try:
        with canvas(title, "", "") as drawing:
            text = "\n".join(textwrap.wrap(reason.replace("$", r"\$"), 60))
            drawing.axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=8, transform=drawing.axes.transAxes)
    except Exception:  # noqa: BLE001 - the library itself may be what is broken
        return _NOTHING
    return drawing.png


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
