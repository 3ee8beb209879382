"""Truth, prediction and error as images: what ``triptych`` and ``animate_rollout`` share."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from sciml.errors import DataError
from sciml.plotting import style

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Panels:
    """Scalar images ``(frames, nx, ny)`` with their scales."""

    truth: Array
    prediction: Array
    error: Array
    relative_l2: Array
    """``||prediction - truth|| / ||truth||`` of each frame over all components; NaN where the truth is zero.
    """
    limits: tuple[float, float]
    error_limits: tuple[float, float]
    signed: bool
    """A scalar, whose error has a sign; otherwise a vector, of which the magnitude is shown."""

    @property
    def colour_map(self) -> str:
        return style.DIVERGING if self.limits[0] < 0 else style.SEQUENTIAL

    @property
    def error_map(self) -> str:
        return style.DIVERGING if self.signed else style.ERROR

    @property
    def extend(self) -> str:
        """On which side the prediction leaves the scale, for the colour bar's arrows."""
        return _extend(self.prediction, self.limits)

    @property
    def error_extend(self) -> str:
        return _extend(self.error, self.error_limits)


def make_panels(truth: ArrayLike, prediction: ArrayLike) -> Panels:
    """Images of a scalar ``(frames, nx, ny)`` or a vector ``(frames, components, nx, ny)``, of which the
    magnitude is shown.

    One colour scale for truth and prediction, fixed by the truth of all frames: a prediction that leaves it
    saturates and the colour bar gets an arrow. Scalars of both signs get a scale symmetric about zero. The
    error of a vector is the magnitude of the difference vector (not the difference of magnitudes, which
    misses a wrong direction). Its scale runs to its own largest value, at most to the span of the truth.
    Not-finite values are left grey.

    Raises:
        DataError: shapes differ, have the wrong number of axes, or the truth holds no finite value.
    """
    t, p = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    if t.shape != p.shape or t.ndim not in (3, 4) or 0 in t.shape:
        raise DataError(
            f"truth {t.shape} and prediction {p.shape} must both be (frames, nx, ny) or (frames, components, nx, ny)"
        )
    difference = p - t
    axes = tuple(range(1, t.ndim))
    norm, size = (np.sqrt(np.sum(a**2, axis=axes)) for a in (t, difference))
    relative = np.where(np.isfinite(size), size, np.inf) / np.where(norm > 0, norm, np.nan)
    signed = t.ndim == 3
    if not signed:
        t, p, difference = (np.sqrt(np.sum(a**2, axis=1)) for a in (t, p, difference))
    finite = t[np.isfinite(t)]
    if finite.size == 0:
        raise DataError("the truth holds no finite value: nothing to draw")
    low, high = float(finite.min()), float(finite.max())
    if low < 0 < high:
        low, high = -max(-low, high), max(-low, high)
    elif low >= 0 and low < 0.2 * high:
        low = 0.0
    if high <= low:
        low, high = low - 0.5, high + 0.5
    size = np.abs(difference[np.isfinite(difference)])
    top = min(float(size.max()) if size.size else 0.0, high - low) or 1e-12 * (high - low)
    return Panels(t, p, difference, relative, (low, high), (-top if signed else 0.0, top), signed)


def _extend(values: Array, limits: tuple[float, float]) -> str:
    finite = values[np.isfinite(values)]
    # A hair over the limit is rounding or the last contour of a good prediction; an arrow there would alarm
    # for nothing.
    slack = 0.01 * (limits[1] - limits[0])
    below = bool(finite.size and finite.min() < limits[0] - slack)
    above = bool(finite.size and finite.max() > limits[1] + slack)
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[(below, above)]


def layout(rows: int, width: float, height: float, largest: float, heading: bool) -> Layout:
    """An empty sheet of ``rows`` x 3 panels for a box ``width`` x ``height`` whose longer side is ``largest``
    inches.

    Placed by hand, in inches: automatic layouts leave gaps beside panels of fixed proportion and shift
    between the frames of an animation.
    """
    scale = largest / max(width, height)
    # Very thin boxes get a panel in which their labels still have room; the box keeps its proportion inside.
    w, h = max(width * scale, 0.4 * largest), max(height * scale, 0.3 * largest)
    left, right, bottom, top, gap, row_gap, bar, bar_label = 0.9, 0.05, 0.5, 0.3, 0.22, 0.3, 0.11, 0.75
    top += 0.35 * heading
    total_width = left + 3 * w + gap + 2 * (0.1 + bar + bar_label) + right
    total_height = bottom + rows * h + (rows - 1) * row_gap + top
    figure = style.new_figure(total_width, total_height)
    figure.set_layout_engine("none")

    def place(x: float, y: float, dx: float, dy: float) -> Axes:
        return figure.add_axes((x / total_width, y / total_height, dx / total_width, dy / total_height))

    columns = (left, left + w + gap, left + 2 * w + gap + 0.1 + bar + bar_label)
    axes = []
    for row in range(rows):
        y = bottom + (rows - 1 - row) * (h + row_gap)
        axes.append([place(x, y, w, h) for x in columns])
        for axis in axes[-1][1:]:
            axis.tick_params(labelleft=False)
        if row < rows - 1:
            for axis in axes[-1]:
                axis.tick_params(labelbottom=False)
    bar_height = min(rows * h + (rows - 1) * row_gap, 2 * h + row_gap)
    bar_bottom = (bottom + total_height - top - bar_height) / 2
    bars = [place(columns[number] + w + 0.1, bar_bottom, bar, bar_height) for number in (1, 2)]
    return Layout(figure, axes, bars)


@dataclass(frozen=True)
class Layout:
    """A sheet: ``axes[row][column]``, and the two axes of the colour bars (fields, error)."""

    figure: Figure
    axes: list[list[Axes]]
    bars: list[Axes]

    def heading(self, text: str = "") -> Text:
        """The line over everything."""
        size = self.figure.get_size_inches()
        return self.figure.text(0.15 / size[0], 1 - 0.12 / size[1], text, ha="left", va="top", fontsize=11)

    def colour_bars(self, panels: Panels, images: tuple[AxesImage, AxesImage], label: str, unit: str) -> None:
        """The shared scale of truth and prediction, and the scale of the error, each with its unit."""
        what = "prediction − truth" if panels.signed else "|prediction − truth|"
        names, extends = (label, what), (panels.extend, panels.error_extend)
        for image, axes, name, extend in zip(images, self.bars, names, extends, strict=True):
            bar = self.figure.colorbar(image, cax=axes, extend=extend, label=style.with_unit(name, unit))
            bar.outline.set_visible(False)


def draw(axes: Axes, image: Array, width: float, height: float, limits: tuple[float, float], colours: str) -> AxesImage:
    """One ``(nx, ny)`` array in its box: x to the right, y up, sides in their true proportion."""
    cmap = matplotlib.colormaps[colours].with_extremes(bad=style.NOT_FINITE)
    shown = axes.imshow(
        np.ma.masked_invalid(image.T),
        origin="lower",
        extent=(0.0, width, 0.0, height),
        vmin=limits[0],
        vmax=limits[1],
        cmap=cmap,
        aspect="equal",
    )
    largest = max(width, height)
    for axis, side in ((axes.xaxis, width), (axes.yaxis, height)):
        axis.set_major_locator(MaxNLocator(4 if side > 0.6 * largest else 2, steps=[1, 2, 5, 10]))
    return shown


def readable_length(width: float, height: float, unit: str) -> tuple[float, float, str]:
    """The box in millimetres when it is given in metres and small, so that ticks read 5 and not 0.005."""
    if unit == "m" and max(width, height) < 0.1:
        return 1e3 * width, 1e3 * height, "mm"
    return width, height, unit


def per_cent(value: float) -> str:
    """``1.23 %``, ``0.045 %``, ``180 %``; words where the truth is zero or the prediction not finite."""
    if np.isnan(value):
        return "undefined"
    return f"{100 * value:.3g} %" if np.isfinite(value) else "not finite"
