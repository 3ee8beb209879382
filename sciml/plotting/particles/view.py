"""From metres to the plane of the picture: two dimensions as they are, three from above at an angle."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sciml.plotting.particles.clouds import Scene
from sciml.plotting.sheet import Box, readable_length

Array = NDArray[Any]

AZIMUTH, ELEVATION = np.deg2rad(-62.0), np.deg2rad(22.0)
"""Where the eye is, seen from the middle of a box of three dimensions."""
MARGIN = 0.03
"""Of the longest side, around a plane box: points that lie on a wall are drawn whole."""
MARGIN_3D = 0.07
WALL, FLOOR = "#b8b8b8", "#f3f3f3"


@dataclass(frozen=True)
class View:
    """A parallel projection. ``box``: what the axes show, in a readable unit of length."""

    box: Box
    scale: float
    """Readable units in a metre."""
    axes: Array
    """``(2, d)``: what lies to the right and up in the picture."""
    towards: Array
    """``(d,)``: from the scene to the eye; zero in two dimensions."""
    bounds: Array

    @property
    def spatial(self) -> bool:
        return len(self.bounds) == 3

    def project(self, position: Array) -> tuple[Array, Array]:
        """Places in the picture ``(n, 2)`` and how far behind the front of the box they lie ``(n,)``, 0 to 1."""
        place = self.scale * position @ self.axes.T
        if not self.spatial:
            return place, np.zeros(len(place))
        corners = _corners(self.bounds) @ self.towards
        depth = (corners.max() - position @ self.towards) / np.ptp(corners)
        return place, np.clip(depth, 0.0, 1.0)

    def frame(self, axes: Axes, labels: bool) -> None:
        """The walls of the box, and of three dimensions (which have no ticks) its edges; ``labels``: with lengths."""
        axes.set_aspect("equal")
        axes.set(xlim=self.box.extent[:2], ylim=self.box.extent[2:])
        axes.spines[:].set_visible(False)
        if self.spatial:
            self._edges(axes, labels)
            return
        (left, right), (low, high) = self.scale * self.bounds
        corners = np.array([(left, low), (right, low), (right, high), (left, high)])
        axes.add_patch(Polygon(corners, closed=True, facecolor="none", edgecolor=WALL, linewidth=0.8, zorder=0))
        axes.tick_params(length=0)
        largest = max(self.box.width, self.box.height)
        for axis, side in ((axes.xaxis, self.box.width), (axes.yaxis, self.box.height)):
            axis.set_major_locator(MaxNLocator(4 if side > 0.6 * largest else 2, steps=[1, 2, 5, 10]))

    def _edges(self, axes: Axes, labels: bool) -> None:
        axes.set_axis_off()
        corners = _corners(self.bounds)
        places, depth = self.project(corners)
        up = int(np.argmax(np.abs(self.axes[1])))
        floor = [number for number in range(8) if corners[number, up] == self.bounds[up, 0]]
        a, b, c, d = places[floor]
        axes.add_patch(Polygon([a, b, d, c], closed=True, facecolor=FLOOR, edgecolor="none", zorder=0))
        near = int(np.argmin(depth))
        for first, second in _edges():
            # The three edges at the near corner lie before the points: faint, or they would cut them.
            front = near in (first, second)
            style = {"color": WALL, "linewidth": 0.6 if front else 0.8, "alpha": 0.6 if front else 1.0}
            axes.plot(*places[[first, second]].T, zorder=5 if front else 0.5, **style)
        if labels:
            self._label_edges(axes, corners, places, floor, depth)

    def _label_edges(self, axes: Axes, corners: Array, places: Array, floor: list[int], depth: Array) -> None:
        """Names and lengths along the two front edges of the floor and the upright at the left."""
        near = min(floor, key=lambda number: depth[number])
        left = min(floor, key=lambda number: places[number, 0])
        unit = self.box.unit
        for first, second in _edges():
            direction = int(np.argmax(corners[first] != corners[second]))
            pair = (first, second)
            upright = first not in floor or second not in floor
            if (upright and left not in pair) or (not upright and near not in pair):
                continue
            middle = places[list(pair)].mean(axis=0)
            length = self.scale * float(np.ptp(self.bounds[direction]))
            text = f"{'xyz'[direction]}, {length:.3g} {unit}"
            if upright:
                shift, align = (-4, 0), {"ha": "right", "va": "center", "rotation": 90}
            else:
                to_right = middle[0] > places[near, 0]
                shift, align = (3 if to_right else -3, -3), {"ha": "left" if to_right else "right", "va": "top"}
            axes.annotate(text, middle, shift, textcoords="offset points", fontsize=7, annotation_clip=False, **align)


def view_of(scene: Scene) -> View:
    """How a scene is looked at."""
    sides = np.ptp(scene.bounds, axis=1)
    width, _, unit = readable_length(*np.sort(sides)[[-1, 0]], "m")
    scale = width / sides.max()
    if scene.dim == 2:
        axes, towards = np.eye(2), np.zeros(2)
    else:
        axes, towards = _camera(scene.up)
    places = scale * _corners(scene.bounds) @ axes.T
    low, high = places.min(axis=0), places.max(axis=0)
    margin = (MARGIN if scene.dim == 2 else MARGIN_3D) * max(high - low)
    x, y = low - margin
    w, h = high - low + 2 * margin
    return View(Box(w, h, x, y, unit=unit), scale, axes, towards, scene.bounds)


def _camera(up: int) -> tuple[Array, Array]:
    """Right and up of the picture ``(2, 3)`` and the direction to the eye, with axis ``up`` upright."""
    sin_a, cos_a, sin_e, cos_e = np.sin(AZIMUTH), np.cos(AZIMUTH), np.sin(ELEVATION), np.cos(ELEVATION)
    right, upward = (-sin_a, cos_a, 0.0), (-sin_e * cos_a, -sin_e * sin_a, cos_e)
    towards = (cos_e * cos_a, cos_e * sin_a, sin_e)
    # Cyclic, so that the picture stays right-handed.
    order = [(up + 1) % 3, (up + 2) % 3, up]
    turned = np.zeros((3, 3))
    turned[:, order] = [right, upward, towards]
    return turned[:2], turned[2]


def _corners(bounds: Array) -> Array:
    return np.array(list(product(*bounds)))


def _edges() -> list[tuple[int, int]]:
    """Pairs of corners of a box, numbered as ``_corners`` lists them, that differ along one axis."""
    return [(a, a | bit) for bit in (1, 2, 4) for a in range(8) if not a & bit]
