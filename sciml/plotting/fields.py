"""Truth, prediction and error side by side, frames below one another."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from sciml.plotting import style
from sciml.plotting.panels import draw, layout, make_panels, per_cent, readable_length


def triptych(
    truth: ArrayLike,
    prediction: ArrayLike,
    *,
    width: float,
    height: float,
    times: Sequence[float] | None = None,
    name: str | None = None,
    unit: str = "",
    length_unit: str = "m",
    time_unit: str = "s",
    title: str = "",
    streamlines: bool = False,
    path: str | Path | None = None,
) -> Figure:
    """Draw truth | prediction | error, one row a frame.

    ``truth`` and ``prediction`` are a scalar ``(frames, nx, ny)`` or a velocity ``(frames, 2, nx, ny)`` (its
    magnitude is shown, and the magnitude of the difference vector as error) on cells of a box ``width`` x
    ``height``. Truth and prediction have one colour scale over all frames, fixed by the truth; the error has
    its own, stated on its colour bar. ``name`` and ``unit`` label the field; ``streamlines`` draws those of a
    velocity.

    Returns the figure, written to ``path`` when given. Raises DataError for shapes that do not fit.
    """
    truth, prediction = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    panels = make_panels(truth, prediction)
    label = name or ("field" if panels.signed else "speed")
    rows = len(panels.truth)
    width, height, length_unit = readable_length(width, height, length_unit)
    with style.style():
        sheet = layout(rows, width, height, 2.3, bool(title))
        for row, axes in enumerate(sheet.axes):
            for axis, image in zip(axes, (panels.truth[row], panels.prediction[row]), strict=False):
                main = draw(axis, image, width, height, panels.limits, panels.colour_map)
            error = draw(axes[2], panels.error[row], width, height, panels.error_limits, panels.error_map)
            if streamlines and truth.ndim == 4:
                for axis, field in zip(axes, (truth[row], prediction[row]), strict=False):
                    _streamlines(axis, field, width, height)
            axes[0].set_ylabel(f"y ({length_unit})")
            if times is not None:
                where = {
                    "xycoords": "axes fraction",
                    "textcoords": "offset points",
                    "rotation": 90,
                    "va": "center",
                }
                axes[0].annotate(f"t = {times[row]:.4g} {time_unit}", (0, 0.5), (-50, 0), ha="center", **where)
            head = "error, " if row == 0 else ""
            axes[2].set_title(f"{head}rel. L2 {per_cent(panels.relative_l2[row])}", loc="left", pad=4)
        for axis, head in zip(sheet.axes[0], ("truth", "prediction"), strict=False):
            axis.set_title(head, loc="left", pad=4)
        for axis in sheet.axes[-1]:
            axis.set_xlabel(f"x ({length_unit})")
        sheet.colour_bars(panels, (main, error), label, unit)
        if title:
            sheet.heading(title)
        figure = sheet.figure
        style.save(figure, path)
    return figure


def _streamlines(axes: Axes, velocity: NDArray[np.float64], width: float, height: float) -> None:
    nx, ny = velocity.shape[-2:]
    x, y = ((np.arange(n) + 0.5) / n * length for n, length in ((nx, width), (ny, height)))
    if not np.isfinite(velocity).all() or not np.any(velocity):
        return
    axes.streamplot(
        x, y, velocity[0].T, velocity[1].T, density=0.9, color=(1, 1, 1, 0.75), linewidth=0.5, arrowsize=0.5
    )
    axes.set(xlim=(0, width), ylim=(0, height))
