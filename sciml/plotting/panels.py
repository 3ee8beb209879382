"""Truth, prediction and error as images with their scales: what the pictures of fields share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from sciml.errors import DataError
from sciml.plotting import style
from sciml.plotting.looks import PLAIN, Look
from sciml.plotting.sheet import STACKED_FROM, Box
from sciml.plotting.solids import Mask, blanked, draw_solids, fluid_cells

Array = NDArray[np.float64]
Limits = tuple[float, float]


@dataclass(frozen=True)
class Panels:
    """Scalar images ``(frames, nx, ny)`` with their scales."""

    truth: Array
    prediction: Array
    error: Array
    relative_l2: Array
    """``||prediction - truth|| / ||truth||`` of each frame over all components; NaN where the truth is zero.
    """
    limits: Limits
    error_limits: Limits
    signed: bool
    """A scalar, whose error has a sign; otherwise a vector, of which the magnitude is shown."""
    fluid: Mask | None = None
    """Cells ``(nx, ny)``, or ``(frames, nx, ny)``, that are not solid; None where all are fluid."""
    look: Look = PLAIN

    @property
    def colour_map(self) -> str:
        return self.look.colours or colours_of(self.limits)

    @property
    def error_map(self) -> str:
        return style.DIVERGING if self.signed else style.ERROR

    @property
    def extend(self) -> str:
        """On which side the prediction leaves the scale, for the colour bar's arrows."""
        return extend_of(self.prediction, self.limits)

    @property
    def error_extend(self) -> str:
        return extend_of(self.error, self.error_limits)

    def fluid_in(self, frame: int) -> Mask | None:
        """The cells ``(nx, ny)`` of one image that are not solid."""
        return self.fluid[frame] if self.fluid is not None and self.fluid.ndim == 3 else self.fluid

    @property
    def error_name(self) -> str:
        return "prediction − truth" if self.signed else "|prediction − truth|"


def make_panels(truth: ArrayLike, prediction: ArrayLike, fluid: ArrayLike | None = None, look: Look = PLAIN) -> Panels:
    """Images of a scalar ``(frames, nx, ny)`` or a vector ``(frames, components, nx, ny)``, of which the
    magnitude is shown.

    One colour scale for truth and prediction, fixed by the truth of all frames: a prediction that leaves it
    saturates and the colour bar gets an arrow. Scalars of both signs get a scale symmetric about zero. The
    error of a vector is the magnitude of the difference vector (not the difference of magnitudes, which
    misses a wrong direction). Its scale runs to its own largest value, at most to the span of the truth.
    Not-finite values are left grey. Where ``fluid``, ``(nx, ny)`` or one for each frame, is 0, there is a body: its
    cells count in no scale and no error, and are not a number in the images. ``look`` says where colours end.

    Raises:
        DataError: shapes differ, have the wrong number of axes, or the truth holds no finite value.
    """
    t, p = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    if t.shape != p.shape or t.ndim not in (3, 4) or 0 in t.shape:
        raise DataError(
            f"truth {t.shape} and prediction {p.shape} must both be (frames, nx, ny) or (frames, components, nx, ny)"
        )
    shape = t.shape[-2:] if fluid is None or np.ndim(fluid) == 2 else (len(t), *t.shape[-2:])
    cells = fluid_cells(fluid, shape)
    if cells is not None:
        inside = cells[:, None] if cells.ndim == 3 and t.ndim == 4 else cells
        t, p = np.where(inside, t, 0.0), np.where(inside, p, 0.0)
    axes = tuple(range(1, t.ndim))
    # A prediction that blew up may overflow when squared: infinite is the right answer then.
    with np.errstate(over="ignore", invalid="ignore"):
        difference = p - t
        norm, size = (np.sqrt(np.sum(a**2, axis=axes)) for a in (t, difference))
        relative = np.where(np.isfinite(size), size, np.inf) / np.where(norm > 0, norm, np.nan)
        signed = t.ndim == 3
        if not signed:
            t, p, difference = (np.sqrt(np.sum(a**2, axis=1)) for a in (t, p, difference))
    t, p, difference = (blanked(a, cells) for a in (t, p, difference))
    low, high = limits_of(t, look, "truth")
    size = np.abs(within(difference[np.isfinite(difference)], look.quantile))
    top = min(float(size.max()) if size.size else 0.0, high - low) or 1e-12 * (high - low)
    return Panels(t, p, difference, relative, (low, high), (-top if signed else 0.0, top), signed, cells, look)


def within(values: Array, quantile: float) -> Array:
    """``values`` cut to the given quantile of their sizes, so that the few largest do not set a scale."""
    finite = values[np.isfinite(values)]
    if quantile == 1 or finite.size == 0:
        return values
    top = float(np.quantile(np.abs(finite), quantile))
    return np.clip(values, -top, top) if top > 0 else values


def limits_of(values: Array, look: Look, what: str = "field") -> Limits:
    """The ends of the colours of an array that is drawn with a look. Raises DataError when nothing is finite."""
    found = scale_of(within(values, look.quantile), what)
    return look.limits or found


def scale_of(values: Array, what: str = "field") -> Limits:
    """The colour scale of an array: symmetric about zero for both signs, from zero where that loses little.

    A side that reaches less than 2 % of the other is overshoot of a solver or rounding, and no sign.

    Raises DataError when nothing is finite.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        raise DataError(f"the {what} holds no finite value: nothing to draw")
    low, high = float(finite.min()), float(finite.max())
    if low < 0 < high and min(-low, high) > 0.02 * max(-low, high):
        low, high = -max(-low, high), max(-low, high)
    elif -0.02 * high <= low < 0.2 * high:
        low = 0.0
    elif low < 0 < high:
        high = 0.0
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return low, high


def colours_of(limits: Limits) -> str:
    """Two-sided colours for a scale about zero."""
    return style.DIVERGING if limits[0] < 0 < limits[1] else style.SEQUENTIAL


def bulk_scale(values: Array, what: str = "field") -> Limits:
    """As ``scale_of``, but without the few largest values where they are three times the rest (a singular corner)."""
    finite = values[np.isfinite(values)]
    if finite.size:
        low, high = np.quantile(finite, (0.005, 0.995))
        if np.ptp(finite) > 3 * (high - low) > 0:
            return scale_of(np.clip(finite, low, high), what)
    return scale_of(values, what)


def positive_scale(values: Array) -> Limits | None:
    """The limits of a logarithmic scale for positive values of which most lie far apart; otherwise None."""
    finite = values[np.isfinite(values)]
    if finite.size == 0 or finite.min() <= 0:
        return None
    low, high = np.quantile(finite, (0.25, 0.75))
    # Quartiles: a field that merely falls to zero at a wall is small in few places.
    return (float(finite.min()), float(finite.max())) if high > 6 * low else None


def extend_of(values: Array, limits: Limits) -> str:
    """On which sides values leave a scale: the arrows of its colour bar."""
    finite = values[np.isfinite(values)]
    # A hair over the limit is rounding or the last contour of a good prediction; an arrow there would alarm
    # for nothing.
    slack = 0.01 * (limits[1] - limits[0])
    below = bool(finite.size and finite.min() < limits[0] - slack)
    above = bool(finite.size and finite.max() > limits[1] + slack)
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[(below, above)]


def drawable(image: Array, limits: Limits) -> np.ma.MaskedArray:
    """Without what is not finite, and near the scale: matplotlib overflows on values of 1e200."""
    span = limits[1] - limits[0]
    return np.ma.clip(np.ma.masked_invalid(image), limits[0] - span, limits[1] + span)


def draw(
    axes: Axes,
    image: Array,
    box: Box,
    limits: Limits,
    colours: str,
    log: bool = False,
    fluid: Mask | None = None,
) -> AxesImage:
    """One ``(nx, ny)`` array in its box: x to the right, y up, sides in their true proportion; bodies are over it."""
    cmap = style.colour_map(colours).with_extremes(bad=style.NOT_FINITE)
    norm = LogNorm(*limits) if log else Normalize(*limits)
    values = np.ma.masked_invalid(image.T) if log else drawable(image.T, limits)
    shown = axes.imshow(values, origin="lower", extent=box.extent, norm=norm, cmap=cmap, aspect="equal")
    draw_solids(axes, fluid, box)
    largest = max(box.width, box.height)
    long = 8 if box.width >= STACKED_FROM * box.height else 4
    for axis, side in ((axes.xaxis, box.width), (axes.yaxis, box.height)):
        axis.set_major_locator(MaxNLocator(long if side > 0.6 * largest else 2, steps=[1, 2, 5, 10]))
    return shown


def per_cent(value: float) -> str:
    """``1.23 %``, ``0.045 %``, ``180 %``; words where the truth is zero or the prediction not finite."""
    if np.isnan(value):
        return "undefined"
    return f"{100 * value:.3g} %" if np.isfinite(value) else "not finite"
