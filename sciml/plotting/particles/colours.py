"""What the colour of a point says: its speed, or its kind where a scene holds several that move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize
from numpy.typing import NDArray

from sciml.plotting import style
from sciml.plotting.particles.clouds import Cloud, Scene
from sciml.plotting.sheet import Sheet

Array = NDArray[Any]

FIXED = "#9a9a9a"
KINDS = (style.LOOKUP, style.DIRECT, style.PREDICTION, "#5f4b8b", "#6a994e", "#bc6c25", "#8ecae6", "#e5989b")
FADE = 0.4
"""How far the colour of the farthest point goes to white."""
SPEEDS, SHADES = 40, 5
"""Colours of an animation, which has 224: of the scale, and steps of each to white."""


@dataclass(frozen=True)
class Colouring:
    """Colours of the points of all panels; ``top``: the speed in m/s at the end of the scale, None by kind."""

    colours: Colormap
    top: float | None
    kinds: tuple[tuple[int, str], ...]
    extend: str
    interval: float

    def of(self, cloud: Cloud, frame: int, depth: Array) -> Array:
        """``(n, 3)``, the farther away (``depth`` 0 to 1) the paler."""
        if self.top is not None:
            colours = self.colours(cloud.speed(frame, self.interval) / self.top)[:, :3]
        else:
            place = {kind: number for number, (kind, _) in enumerate(self.kinds)}
            colours = self.colours(np.array([place.get(int(kind), 0) for kind in cloud.kind]))[:, :3]
        colours[cloud.fixed] = matplotlib.colors.to_rgb(FIXED)
        return _fade(colours, FADE * depth[:, None])

    def palette(self) -> Array:
        """The colours ``(n, 3)``, n at most 224, of an animation: also paler, as depth and the rims of points are."""
        base = self.colours(np.linspace(0, 1, SPEEDS) if self.top is not None else np.arange(len(self.kinds)))[:, :3]
        steps = max(SHADES, min(24, 224 // len(base)))
        return np.concatenate([_fade(base, part) for part in np.arange(steps) / steps])[:224]

    def key(self, sheet: Sheet) -> None:
        """The scale of speeds, or the names of the kinds, in the first colour bar of a sheet."""
        if self.top is not None:
            shown = ScalarMappable(Normalize(0.0, self.top), self.colours)
            sheet.colour_bar(0, shown, "speed", "m/s", self.extend)
            return
        count = len(self.kinds)
        shown = ScalarMappable(BoundaryNorm(np.arange(count + 1) - 0.5, count), self.colours)
        bar = sheet.figure.colorbar(shown, cax=sheet.bars[0], ticks=range(count))
        bar.outline.set_visible(False)
        bar.minorticks_off()
        bar.ax.tick_params(length=0)
        bar.ax.set_yticklabels([name.replace("_", " ") for _, name in self.kinds])


def colouring_of(clouds: Sequence[Cloud], scene: Scene, frames: Sequence[int]) -> Colouring:
    """Speeds from zero to nearly the highest of the first cloud (the truth), or kinds where several move."""
    truth = clouds[0]
    moving = tuple((int(kind), scene.kinds[kind]) for kind in np.unique(truth.kind[~truth.fixed]))
    if len(moving) > 1:
        some = KINDS if len(moving) <= len(KINDS) else matplotlib.colormaps["turbo"](np.linspace(0, 1, len(moving)))
        return Colouring(ListedColormap(some[: len(moving)]), None, moving, "neither", scene.interval)
    # A few splashes must not take the whole scale.
    speeds = [cloud_speeds(truth, frame, scene.interval) for frame in frames]
    together = np.concatenate(speeds)
    top = float(np.quantile(together, 0.995)) if together.size else 0.0
    top = top or 1.0
    fastest = max(cloud_speeds(cloud, frame, scene.interval).max(initial=0.0) for cloud in clouds for frame in frames)
    extend = "max" if fastest > 1.01 * top else "neither"
    return Colouring(matplotlib.colormaps[style.SEQUENTIAL], top, moving, extend, scene.interval)


def cloud_speeds(cloud: Cloud, frame: int, interval: float) -> Array:
    """The speeds in m/s of the points that are not fixed."""
    return cloud.speed(frame, interval)[~cloud.fixed]


def _fade(colours: Array, part: Array | float) -> Array:
    return colours + part * (1.0 - colours)
