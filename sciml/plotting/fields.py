"""Truth, prediction and error side by side, frames below one another."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from sciml.plotting import style
from sciml.plotting.looks import PLAIN, Look, draw_contour
from sciml.plotting.panels import draw, make_panels, per_cent
from sciml.plotting.sheet import Box, make_box, make_sheet
from sciml.plotting.solids import Mask


def triptych(
    truth: ArrayLike,
    prediction: ArrayLike,
    *,
    width: float,
    height: float,
    origin: Sequence[float] = (0.0, 0.0),
    times: Sequence[float] | None = None,
    name: str | None = None,
    unit: str = "",
    length_unit: str = "m",
    time_unit: str = "s",
    title: str = "",
    streamlines: bool = False,
    fluid: ArrayLike | None = None,
    look: Look = PLAIN,
    path: str | Path | None = None,
) -> Figure:
    """Draw truth | prediction | error, one row a frame; a box as long as a channel has its panels in a stack.

    ``truth`` and ``prediction`` are a scalar ``(frames, nx, ny)`` or a vector ``(frames, components, nx, ny)`` (its
    magnitude is shown, and the magnitude of the difference vector as error) on cells of a box ``width`` x
    ``height`` with its low corner at ``origin``. Truth and prediction have one colour scale over all frames, fixed by
    the truth; the error has its own, stated on its colour bar. ``name`` and ``unit`` label the field; ``streamlines``
    draws those of a velocity with two components. ``fluid (nx, ny)`` is 1 in the fluid and 0 in bodies, which are
    drawn as such and count in no scale and no error. ``look``: colours, and a line of one value of the truth.

    Returns the figure, written to ``path`` when given. Raises DataError for shapes that do not fit.
    """
    truth, prediction = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    panels = make_panels(truth, prediction, fluid, look)
    label = name or ("field" if panels.signed else "speed")
    box = make_box(width, height, origin, unit=length_unit)
    factor, time_unit = style.readable_time(times, time_unit)
    with style.style():
        sheet = make_sheet([box] * len(panels.truth), (2, 1), 2.3, bool(title))
        for row, axes in enumerate(sheet.axes):
            cells = panels.fluid_in(row)
            for axis, image in zip(axes, (panels.truth[row], panels.prediction[row]), strict=False):
                main = draw(axis, image, box, panels.limits, panels.colour_map, fluid=cells)
                if look.contour is not None:
                    draw_contour(axis, panels.truth[row], box, look.contour)
            error = draw(axes[2], panels.error[row], box, panels.error_limits, panels.error_map, fluid=cells)
            if streamlines and truth.ndim == 4 and truth.shape[1] == 2:
                for axis, field in zip(axes, (truth[row], prediction[row]), strict=False):
                    draw_streamlines(axis, field, box, cells)
            note = "" if times is None else f"t = {factor * times[row]:.4g} {time_unit}"
            error_head = f"{'error, ' if row == 0 or sheet.stacked else ''}rel. L2 {per_cent(panels.relative_l2[row])}"
            sheet.label_row(row, ("truth", "prediction", error_head), note, every=(2,))
        sheet.colour_bar(0, main, label, unit, panels.extend)
        sheet.colour_bar(1, error, panels.error_name, unit, panels.error_extend)
        if title:
            sheet.heading(title)
        style.save(sheet.figure, path)
    return sheet.figure


def draw_streamlines(axes: Axes, velocity: NDArray[np.float64], box: Box, fluid: Mask | None = None) -> None:
    """Streamlines of a velocity ``(2, nx, ny)``, white; they end at bodies."""
    nx, ny = velocity.shape[-2:]
    x = box.x + (np.arange(nx) + 0.5) / nx * box.width
    y = box.y + (np.arange(ny) + 0.5) / ny * box.height
    if fluid is not None:
        velocity = np.where(fluid, velocity, 0.0)
    # Beyond 1e100 the speed overflows; such a prediction has no streamlines worth drawing.
    if not (np.abs(velocity) < 1e100).all() or not np.any(velocity):
        return
    # matplotlib spreads lines by the axes' fraction: fewer rows of them in a low box.
    density = (0.9, max(0.25, 0.9 * min(1.0, 2.5 * box.height / box.width)))
    u, v = velocity if fluid is None else (np.ma.masked_where(~fluid, component) for component in velocity)
    axes.streamplot(x, y, u.T, v.T, density=density, color=(1, 1, 1, 0.75), linewidth=0.5, arrowsize=0.5)
    axes.set(xlim=box.extent[:2], ylim=box.extent[2:])
