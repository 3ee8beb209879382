"""A rollout as an animated GIF: truth, prediction and error side by side; and a field by itself."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.contour import QuadContourSet
from numpy.typing import ArrayLike, NDArray

from sciml.errors import DataError
from sciml.plotting import style
from sciml.plotting.gif import colours_of_maps, palette_of, snapshot, write_gif
from sciml.plotting.looks import PLAIN, Look, draw_contour
from sciml.plotting.panels import colours_of, draw, drawable, extend_of, limits_of, make_panels, per_cent
from sciml.plotting.sheet import Box, make_box, make_sheet
from sciml.plotting.solids import blanked, fluid_cells


def animate_rollout(
    truth: ArrayLike,
    prediction: ArrayLike,
    *,
    width: float,
    height: float,
    path: str | Path,
    origin: Sequence[float] = (0.0, 0.0),
    times: Sequence[float] | None = None,
    name: str | None = None,
    unit: str = "",
    length_unit: str = "m",
    time_unit: str = "s",
    title: str = "",
    fluid: ArrayLike | None = None,
    look: Look = PLAIN,
    size: float = 2.4,
    frames_per_second: float = 6.0,
    pause: float = 1.5,
    dpi: int = 80,
) -> Path:
    """Write the frames of a rollout as a GIF that repeats, with ``pause`` seconds on the last frame.

    Arrays, scales and labels as in ``triptych``; the colour scales are those of all frames together. ``size``: inches
    of a panel's longer side. The pictures share one palette of 256 colours, which keeps a rollout of 20 frames near
    half a megabyte and free of flicker.

    Returns the path. Raises DataError for shapes that do not fit.
    """
    panels = make_panels(truth, prediction, fluid, look)
    label = name or ("field" if panels.signed else "speed")
    box = make_box(width, height, origin, unit=length_unit)
    factor, time_unit = style.readable_time(times, time_unit)
    with style.style():
        sheet = make_sheet([box], (2, 1), size, heading=True)
        axes, figure = sheet.axes[0], sheet.figure
        figure.set_dpi(dpi)
        canvas = FigureCanvasAgg(figure)
        fields = (panels.truth, panels.prediction, panels.error)
        scales = [(panels.limits, panels.colour_map)] * 2 + [(panels.error_limits, panels.error_map)]
        shown = [
            draw(axis, field[0], box, *scale, fluid=panels.fluid_in(0))
            for axis, field, scale in zip(axes, fields, scales, strict=True)
        ]
        sheet.label_row(0, ("truth", "prediction", "error"))
        sheet.colour_bar(0, shown[0], label, unit, panels.extend)
        sheet.colour_bar(1, shown[2], panels.error_name, unit, panels.error_extend)
        heading = sheet.heading()
        palette = palette_of(colours_of_maps(panels.colour_map, panels.error_map))
        move_line = _moving_line(axes[:2], panels.truth, box, look)
        images = []
        for frame in range(len(panels.truth)):
            for image, field, (limits, _) in zip(shown, fields, scales, strict=True):
                image.set_data(drawable(field[frame].T, limits))
            move_line(frame)
            time = f"frame {frame}" if times is None else f"t = {factor * times[frame]:.4g} {time_unit}"
            words = [title, time, f"relative L2 {per_cent(panels.relative_l2[frame])}"]
            heading.set_text("    ".join(word for word in words if word))
            images.append(snapshot(canvas, palette))
    return write_gif(images, path, frames_per_second, pause)


def animate_field(
    values: ArrayLike,
    *,
    width: float,
    height: float,
    path: str | Path,
    origin: Sequence[float] = (0.0, 0.0),
    times: Sequence[float] | None = None,
    name: str = "field",
    unit: str = "",
    length_unit: str = "m",
    time_unit: str = "s",
    title: str = "",
    fluid: ArrayLike | None = None,
    look: Look = PLAIN,
    frames_per_second: float = 8.0,
    pause: float = 1.0,
    dpi: int = 80,
) -> Path:
    """Write a scalar ``(frames, nx, ny)`` as a GIF that repeats, with ``pause`` seconds on the last frame.

    Labels, ``fluid (nx, ny)`` and ``look`` as in ``triptych``. Returns the path. Raises DataError for shapes that do
    not fit.
    """
    field = np.asarray(values, dtype=np.float64)
    if field.ndim != 3 or 0 in field.shape:
        raise DataError(f"the field has shape {field.shape}; expected (frames, nx, ny)")
    cells = fluid_cells(fluid, field.shape[1:])
    field = blanked(field, cells)
    limits = limits_of(field, look, name)
    colours = look.colours or colours_of(limits)
    box = make_box(width, height, origin, unit=length_unit)
    factor, time_unit = style.readable_time(times, time_unit)
    with style.style():
        sheet = make_sheet([box], (1,), 5.6, heading=True, may_stack=False)
        axes, figure = sheet.axes[0], sheet.figure
        figure.set_dpi(dpi)
        canvas = FigureCanvasAgg(figure)
        shown = draw(axes[0], field[0], box, limits, colours, fluid=cells)
        sheet.label_row(0, ("",))
        sheet.colour_bar(0, shown, name, unit, extend_of(field, limits))
        heading = sheet.heading()
        palette = palette_of(colours_of_maps(colours))
        move_line = _moving_line(axes, field, box, look)
        images = []
        for frame in range(len(field)):
            shown.set_data(drawable(field[frame].T, limits))
            move_line(frame)
            time = f"frame {frame}" if times is None else f"t = {factor * times[frame]:.4g} {time_unit}"
            heading.set_text("    ".join(word for word in (title, time) if word))
            images.append(snapshot(canvas, palette))
    return write_gif(images, path, frames_per_second, pause)


def _moving_line(axes: Sequence[Axes], values: NDArray[np.float64], box: Box, look: Look) -> Callable[[int], None]:
    """What draws the line of one value of ``values (frames, nx, ny)`` in a frame, and removes that before."""
    drawn: list[QuadContourSet] = []

    def move(frame: int) -> None:
        while drawn:
            drawn.pop().remove()
        if look.contour is not None:
            lines = [draw_contour(axis, values[frame], box, look.contour) for axis in axes]
            drawn.extend(line for line in lines if line is not None)

    return move
