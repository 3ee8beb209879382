"""Bodies in a box: the cells that hold no fluid are not part of any field, and are drawn as what they are."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from numpy.typing import ArrayLike, NDArray

from sciml.errors import DataError
from sciml.plotting import style
from sciml.plotting.sheet import Box

Mask = NDArray[np.bool_]


def fluid_cells(fluid: ArrayLike | None, shape: tuple[int, ...]) -> Mask | None:
    """Which cells of ``shape`` (``(nx, ny)``, or ``(cases, nx, ny)``) are in the fluid: where ``fluid`` is above 0.5.

    None without bodies. Raises DataError for another shape, and where nothing is fluid.
    """
    if fluid is None:
        return None
    mask = np.asarray(fluid, dtype=np.float64) > 0.5
    if mask.shape != shape:
        raise DataError(f"fluid has shape {mask.shape}; expected {shape}, 1 in the fluid and 0 in the solid")
    if not mask.any():
        raise DataError("no cell is in the fluid: nothing to draw; fluid is 1 in the fluid and 0 in the solid")
    return None if mask.all() else mask


def blanked(values: NDArray[np.float64], fluid: Mask | None) -> NDArray[np.float64]:
    """``values (..., nx, ny)``, not a number in solid cells."""
    return values if fluid is None else np.where(fluid, values, np.nan)


def draw_solids(axes: Axes, fluid: Mask | None, box: Box) -> None:
    """The solid cells in one grey over whatever lies there, with a thin outline."""
    if fluid is None:
        return
    nx, ny = fluid.shape
    body = np.zeros((ny, nx, 4))
    body[~fluid.T] = to_rgba(style.SOLID)
    axes.imshow(body, origin="lower", extent=box.extent, aspect="equal", zorder=2.5)
    x = box.x + np.arange(nx + 1) / nx * box.width
    y = box.y + np.arange(ny + 1) / ny * box.height
    # A side of the body lies between two cells of different kind.
    upright = [((x[i + 1], y[a]), (x[i + 1], y[b])) for i, a, b in _runs(fluid[1:] != fluid[:-1])]
    level = [((x[a], y[j + 1]), (x[b], y[j + 1])) for j, a, b in _runs((fluid[:, 1:] != fluid[:, :-1]).T)]
    outline = LineCollection(upright + level, colors=style.INK, linewidths=0.7, capstyle="projecting", zorder=2.6)
    axes.add_collection(outline, autolim=False)


def _runs(rows: Mask) -> list[tuple[int, int, int]]:
    """Row, first column and the column after the last of every run of True."""
    steps = np.diff(np.pad(rows.astype(np.int8), [(0, 0), (1, 1)]), axis=1)
    first, after = np.argwhere(steps == 1), np.argwhere(steps == -1)
    return [(int(row), int(a), int(b)) for (row, a), (_, b) in zip(first, after, strict=True)]
