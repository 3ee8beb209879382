"""One space dimension: the course of a field as an image of x and t."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from sciml.errors import DataError
from sciml.plotting import style
from sciml.plotting.panels import Limits, drawable, make_panels, per_cent
from sciml.plotting.sheet import Box, make_sheet, readable_length

Array = NDArray[np.float64]


def space_time(
    truth: ArrayLike,
    prediction: ArrayLike,
    *,
    length: float,
    times: Sequence[float],
    origin: float = 0.0,
    name: str = "field",
    unit: str = "",
    length_unit: str = "m",
    time_unit: str = "s",
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """Draw truth | prediction | error of a scalar on a line, x to the right and time upwards.

    ``truth`` and ``prediction`` are ``(frames, nx)`` on cells of a line of ``length`` that begins at ``origin``;
    ``times (frames,)`` need not be evenly spaced. Scales as in ``triptych``.

    Returns the figure, written to ``path`` when given. Raises DataError for shapes that do not fit.
    """
    t, p = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    if t.shape != p.shape or t.ndim != 2 or t.shape[0] != len(times):
        raise DataError(
            f"truth {t.shape}, prediction {p.shape} and {len(times)} times do not fit; expected (frames, nx) twice "
            "and one time a frame"
        )
    panels = make_panels(t.T[None], p.T[None])
    shared = (panels.limits, panels.colour_map)
    with style.style():
        sheet = make_sheet([SQUARE], (2, 1), 2.4, bool(title))
        images = [
            draw_space_time(axes, image, *scale, length=length, times=times, origin=origin, unit=length_unit)
            for axes, image, scale in zip(
                sheet.axes[0],
                (panels.truth[0], panels.prediction[0], panels.error[0]),
                (shared, shared, (panels.error_limits, panels.error_map)),
                strict=True,
            )
        ]
        heads = ("truth", "prediction", f"error, rel. L2 {per_cent(panels.relative_l2[0])}")
        for axes, head in zip(sheet.axes[0], heads, strict=True):
            axes.set_title(head, loc="left", pad=4)
        sheet.axes[0][0].set_ylabel(f"t ({style.readable_time(times, time_unit)[1]})")
        sheet.colour_bar(0, images[0], name, unit, panels.extend)
        sheet.colour_bar(1, images[2], panels.error_name, unit, panels.error_extend)
        if title:
            sheet.heading(title)
        style.save(sheet.figure, path)
    return sheet.figure


SQUARE = Box(1.0, 1.0)
"""Space and time have no proportion: their diagrams are square."""


def draw_space_time(
    axes: Axes,
    image: Array,
    limits: Limits,
    colours: str,
    *,
    length: float,
    times: Sequence[float],
    origin: float = 0.0,
    unit: str = "m",
    time_unit: str = "s",
) -> QuadMesh:
    """One ``(nx, frames)`` array over x and t, with the label of x; a frame reaches half-way to its neighbours."""
    length, _, readable = readable_length(length, length, unit)
    origin *= 1e3 if readable != unit else 1.0
    factor, _ = style.readable_time(times, time_unit)
    moments = factor * np.asarray(times, dtype=np.float64)
    middles = 0.5 * (moments[1:] + moments[:-1])
    edges = np.concatenate([moments[:1], middles, moments[-1:]]) if len(moments) > 1 else moments[0] + np.array([0, 1])
    mesh = axes.pcolormesh(
        origin + np.linspace(0.0, length, len(image) + 1),
        edges,
        drawable(image.T, limits),
        vmin=limits[0],
        vmax=limits[1],
        cmap=matplotlib.colormaps[colours].with_extremes(bad=style.NOT_FINITE),
        rasterized=True,
    )
    # A mesh leaves masked cells empty.
    axes.set_facecolor(style.NOT_FINITE)
    axes.set_xlabel(f"x ({readable})")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    return mesh
