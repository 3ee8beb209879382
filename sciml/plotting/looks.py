"""How one quantity is drawn: its colours, which values set their scale, and a line of one value."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from numpy.typing import NDArray

from sciml.errors import ConfigError
from sciml.plotting import style
from sciml.plotting.sheet import Box


@dataclass(frozen=True)
class Look:
    """``quantile``: of the sizes of the values that the colours reach to; below 1 where a few are far above the rest.
    ``limits``: the colours' ends, for a quantity whose values are known to lie between them. ``contour``: where a line
    is drawn, of the truth and over the prediction. ``colours``: a colour map, by default two-sided where the values
    have both signs.

    Raises ConfigError for a quantile outside 0..1 and for limits that do not increase.
    """

    quantile: float = 1.0
    limits: tuple[float, float] | None = None
    contour: float | None = None
    colours: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.quantile <= 1:
            raise ConfigError(f"quantile is {self.quantile}; it must lie above 0 and not above 1")
        if self.limits is not None and not self.limits[0] < self.limits[1]:
            raise ConfigError(f"limits are {self.limits}; the second must be above the first")


PLAIN = Look()
WAKE = Look(quantile=0.985)
"""Vorticity of a flow past a body, whose boundary layer is many times stronger than its wake."""
LIQUID = Look(limits=(0.0, 1.0), contour=0.5, colours=style.LIQUID)
"""Volume fraction of a liquid under a gas, with the interface."""


def draw_contour(axes: Axes, values: NDArray[np.float64], box: Box, level: float) -> QuadContourSet | None:
    """The line where ``values (nx, ny)`` pass through ``level``; None where they do not. Cells that are not finite are
    left out.
    """
    known = values[np.isfinite(values)]
    if min(values.shape) < 2 or known.size == 0 or not known.min() < level < known.max():
        return None
    nx, ny = values.shape
    x = box.x + (np.arange(nx) + 0.5) / nx * box.width
    y = box.y + (np.arange(ny) + 0.5) / ny * box.height
    lines = axes.contour(x, y, np.ma.masked_invalid(values.T), levels=[level], colors=[style.INK], linewidths=0.9)
    axes.set(xlim=box.extent[:2], ylim=box.extent[2:])
    return lines
