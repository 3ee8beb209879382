"""How values at points are drawn: as a line, as the image of a grid, or on the triangles of scattered points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator
from matplotlib.tri import Triangulation
from numpy.typing import NDArray

from sciml.errors import DataError
from sciml.plotting import style
from sciml.plotting.panels import Limits, drawable

Array = NDArray[np.float64]
Box = tuple[tuple[float, ...], tuple[float, ...]]
Inside = Callable[[Array], NDArray[np.bool_]]


@dataclass(frozen=True)
class Layout:
    """Points ``(N, d)`` of one or two coordinates, and what joins them.

    ``axes``: names of the coordinates; ``extent``: lowest and highest of each, ``cells`` of a grid included.
    ``edges``: of the cells along both axes, of points that are a grid in C order; else ``triangles``.
    """

    points: Array
    axes: tuple[str, ...]
    extent: tuple[tuple[float, float], ...]
    edges: tuple[Array, Array] | None = None
    triangles: Triangulation | None = None

    @property
    def is_line(self) -> bool:
        return self.points.shape[1] == 1

    @property
    def in_time(self) -> bool:
        """Space and time have no proportion: their diagrams are square."""
        return "t" in self.axes

    @property
    def proportion(self) -> float:
        """Height over width of a panel."""
        if self.is_line or self.in_time:
            return 1.0
        (left, right), (bottom, top) = self.extent
        return (top - bottom) / (right - left)

    def draw(self, axes: Axes, values: Array, limits: Limits, colours: str) -> ScalarMappable:
        """Values ``(N,)`` of two coordinates, the first to the right."""
        cmap = matplotlib.colormaps[colours].with_extremes(bad=style.NOT_FINITE)
        norm = Normalize(*limits)
        shown = drawable(values, limits)
        if self.edges is not None:
            across, up = self.edges
            image = shown.reshape(len(across) - 1, len(up) - 1).T
            mesh = axes.pcolormesh(across, up, image, norm=norm, cmap=cmap, rasterized=True)
        else:
            assert self.triangles is not None
            # A triangle with a corner that is not finite cannot be shaded: its value is the mean of what is known.
            filled = np.ma.filled(shown, np.nan)
            known = filled if np.isfinite(filled).all() else np.nan_to_num(filled, nan=limits[0])
            mesh = axes.tripcolor(self.triangles, known, norm=norm, cmap=cmap, shading="gouraud", rasterized=True)
        self.frame(axes)
        return mesh

    def frame(self, axes: Axes) -> None:
        """Limits, ticks and names of the axes."""
        (left, right), (bottom, top) = self.extent
        axes.set(xlim=(left, right), ylim=(bottom, top), xlabel=_label(self.axes[0]), ylabel=_label(self.axes[1]))
        axes.set_facecolor(style.NOT_FINITE)
        if not self.in_time:
            axes.set_aspect("equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


def make_layout(points: Array, axes: tuple[str, ...], box: Box | None = None, inside: Inside | None = None) -> Layout:
    """The layout of points ``(N, d)``.

    ``box``: lowest and highest coordinates of the domain, which cells do not leave; ``inside (M, d) -> (M,)``: whether
    places belong to it, where it is not the whole box.

    Raises DataError for more than two coordinates, or for points that span no area.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != len(axes) or len(axes) not in (1, 2) or len(points) < 2:
        raise DataError(
            f"points {points.shape} with axes {', '.join(axes)} cannot be drawn; expected one or two coordinates"
        )
    if len(axes) == 1:
        return Layout(points, axes, ((float(points.min()), float(points.max())),))
    across, up = (np.unique(points[:, axis]) for axis in (0, 1))
    product = np.stack(np.meshgrid(across, up, indexing="ij"), -1).reshape(-1, 2)
    if min(len(across), len(up)) > 1 and product.shape == points.shape and np.allclose(product, points):
        edges = _edges(across), _edges(up)
        if box is not None:
            edges = tuple(np.clip(each, low, high) for each, low, high in zip(edges, *box, strict=True))
        extent = tuple((float(each[0]), float(each[-1])) for each in edges)
        return Layout(points, axes, extent, edges=edges)
    try:
        triangles = Triangulation(*points.T)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{len(points)} points span no area ({error}): nothing to draw") from None
    if inside is not None:  # a hole is covered by triangles between the points of its rim
        triangles.set_mask(~inside(points[triangles.triangles].mean(1)))
    extent = tuple((float(low), float(high)) for low, high in zip(points.min(0), points.max(0), strict=True))
    return Layout(points, axes, extent, triangles=triangles)


def _edges(centres: Array) -> Array:
    """Each value reaches half-way to its neighbours, as far outwards as inwards."""
    middles = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[2 * centres[0] - middles[0]], middles, [2 * centres[-1] - middles[-1]]])


def _label(axis: str) -> str:
    return f"{axis} ({'s' if axis == 't' else 'm'})"
