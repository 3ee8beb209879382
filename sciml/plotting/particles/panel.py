"""One panel: the points of a cloud as discs, which can be moved from frame to frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sciml.plotting.particles.clouds import Cloud
from sciml.plotting.particles.colours import Colouring
from sciml.plotting.particles.view import View

Array = NDArray[Any]

SMALLEST, LARGEST = 1.0, 7.0
"""Diameter of a disc in points of print; between them it is the spacing at the start: a body looks closed, a spray not.
"""
RIM = 0.08
"""White around a disc of three dimensions, in diameters: it sets near discs off from those behind."""


class PointPanel:
    """A cloud in an axes whose limits, proportion and box are those of the view."""

    def __init__(self, axes: Axes, cloud: Cloud, view: View, colouring: Colouring, *, labels: bool = False) -> None:
        self.cloud, self.view, self.colouring = cloud, view, colouring
        view.frame(axes, labels)
        size = self._diameter(axes)
        rim = {"edgecolors": "white", "linewidths": RIM * size} if view.spatial else {"linewidths": 0.0}
        self.discs = axes.scatter([], [], s=[size**2], zorder=2, **rim)

    def show(self, frame: int) -> None:
        """Draw a frame: what is not finite is left out, the farthest point first, of a plane the fixed ones first."""
        position = self.cloud.position[frame].astype(np.float64)
        known = np.isfinite(position).all(axis=1)
        # Points that flew away are outside the axes; Agg overflows on 1e30.
        sides = np.ptp(self.view.bounds, axis=1)
        low, high = self.view.bounds[:, 0] - 10 * sides, self.view.bounds[:, 1] + 10 * sides
        place, depth = self.view.project(np.clip(np.where(known[:, None], position, low), low, high))
        colours = self.colouring.of(self.cloud, frame, depth)
        order = np.argsort(-depth if self.view.spatial else ~self.cloud.fixed, kind="stable")
        order = order[known[order]]
        self.discs.set_offsets(place[order])
        self.discs.set_facecolors(colours[order])

    def _diameter(self, axes: Axes) -> float:
        """Points of print across a disc, from the spacing of the cloud and the size of the axes."""
        where, box = axes.get_position(), self.view.box
        inches = axes.figure.get_size_inches()
        printed = 72 * min(where.width * inches[0] / box.width, where.height * inches[1] / box.height)
        return float(np.clip(self.view.scale * spacing(self.cloud.position[0]) * printed, SMALLEST, LARGEST))


def spacing(position: Array) -> float:
    """The median distance to the fourth nearest other point, in three dimensions the sixth; 0 without so many.

    Of a lattice that is its spacing, and of random points 1.1 times that of a lattice of as many, where the nearest
    point would be half as far.
    """
    known = position[np.isfinite(position).all(axis=1)]
    neighbours = 2 * position.shape[1]
    if len(known) <= neighbours:
        return 0.0
    distance, _ = cKDTree(known).query(known, k=[neighbours + 1])
    return float(np.median(distance))
