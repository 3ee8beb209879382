"""How our pictures look, and how they are made and written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib import style as matplotlib_style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK = "#222222"
TRUTH = "#222222"
PREDICTION = "#d1495b"
PERSISTENCE = "#8d99ae"
LOOKUP = "#2a788e"
POINTS = "#2a788e"

SEQUENTIAL = "viridis"
DIVERGING = "RdBu_r"
ERROR = "magma"
NOT_FINITE = "#bdbdbd"

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
    """``"u (m/s)"``; a dimensionless quantity stands alone."""
    return f"{name} ({unit})" if unit and unit != "1" else name
