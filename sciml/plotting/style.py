"""How our pictures look, and how they are made and written."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import style as matplotlib_style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

INK = "#222222"
TRUTH = "#222222"
PREDICTION = "#d1495b"
PERSISTENCE = "#8d99ae"
LOOKUP = "#2a788e"
DIRECT = "#edae49"
POINTS = "#2a788e"

SEQUENTIAL = "viridis"
DIVERGING = "RdBu_r"
ERROR = "magma"
NOT_FINITE = "#bdbdbd"
SOLID = "#8a8a8a"
LIQUID = "liquid"

DAY = 86400.0
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_RC = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.7,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "axes.grid": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "image.interpolation": "nearest",
    "figure.dpi": 100.0,
}


def colour_map(name: str) -> Colormap:
    """A colour map of matplotlib, or ``LIQUID``: white to a blue on which black lines are seen."""
    if name == LIQUID:
        return LinearSegmentedColormap.from_list(LIQUID, ["#f7fbff", "#c9dff0", "#85bce0", "#559fd3"])
    return matplotlib.colormaps[name]


@contextmanager
def style() -> Iterator[None]:
    """Our settings for as long as a picture is drawn; the caller's own matplotlib settings come back
    afterwards.
    """
    with matplotlib_style.context(["default", _RC]):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of ``width`` x ``height`` inches on the Agg canvas, unknown to pyplot."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: str | Path | None, dpi: float = 150) -> None:
    """Write the figure (type from the suffix, PNG without one) and make the folder it lies in; nothing for
    ``None``.
    """
    if path is None:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi)


def light_grid(axes: Axes) -> None:
    """A faint grid behind the curves and no box on the open sides."""
    axes.grid(True, which="major")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def with_unit(name: str, unit: str) -> str:
    """``"u (m/s)"``, ``"p (m²/s²)"``; a dimensionless quantity stands alone."""
    raised = re.sub(r"\^(-?\d+)", lambda power: power[1].translate(RAISED), unit)
    return f"{name} ({raised})" if unit and unit != "1" else name


def frame_colours(count: int) -> NDArray[np.float64]:
    """Colours of lines at increasing times, dark to light."""
    return matplotlib.colormaps["viridis"](np.linspace(0.0, 0.8, count))


def readable_time(times: Sequence[float] | None, unit: str) -> tuple[float, str]:
    """Factor and unit that make times readable: days for what is given in seconds and lasts longer than two days."""
    if unit == "s" and times is not None and len(times) and max(times) > 2 * DAY:
        return 1 / DAY, "d"
    return 1.0, unit


def value_limits(truth: NDArray[np.float64], prediction: NDArray[np.float64] | None = None) -> tuple[float, float]:
    """Limits of an axis of values: the truth's range with a margin, widened for a prediction by half at most.

    A prediction that blew up must not squeeze the truth to a line.
    """
    finite = truth[np.isfinite(truth)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    span = high - low or max(abs(high), 1.0)
    bottom, top = low, high
    if prediction is not None and (known := prediction[np.isfinite(prediction)]).size:
        bottom = min(low, max(float(known.min()), low - 0.5 * span))
        top = max(high, min(float(known.max()), high + 0.5 * span))
    return bottom - 0.06 * span, top + 0.06 * span


def spread(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` of ``count`` indices, evenly from the first to the last."""
    return sorted({int(index) for index in np.linspace(0, count - 1, wanted).round()})
