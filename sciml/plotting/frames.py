"""One field at several times."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from sciml.errors import DataError
from sciml.plotting import style
from sciml.plotting.looks import PLAIN, Look, draw_contour
from sciml.plotting.panels import colours_of, draw, extend_of, limits_of
from sciml.plotting.sheet import STACKED_FROM, Box, make_box, make_sheet
from sciml.plotting.solids import Mask, blanked, fluid_cells

ARROWS = 28
"""Along the longer side."""


def field_frames(
    values: ArrayLike,
    *,
    width: float,
    height: float,
    origin: Sequence[float] = (0.0, 0.0),
    times: Sequence[float] | None = None,
    name: str = "field",
    unit: str = "",
    length_unit: str = "m",
    time_unit: str = "s",
    title: str = "",
    fluid: ArrayLike | None = None,
    look: Look = PLAIN,
    arrows: ArrayLike | None = None,
    path: str | Path | None = None,
) -> Figure:
    """Draw a scalar ``(frames, nx, ny)`` in a box ``width`` x ``height``, two frames a row, of a channel one.

    All have one colour scale. ``fluid (nx, ny)`` is 0 in bodies; ``look``: colours, and a line of one value;
    ``arrows (frames, 2, nx, ny)`` is a vector that is drawn over it, longest where it is largest.

    Returns the figure, written to ``path`` when given. Raises DataError for shapes that do not fit.
    """
    field = np.asarray(values, dtype=np.float64)
    if field.ndim != 3 or 0 in field.shape:
        raise DataError(f"the field has shape {field.shape}; expected (frames, nx, ny)")
    vectors = None if arrows is None else np.asarray(arrows, dtype=np.float64)
    expected = (len(field), 2, *field.shape[1:])
    if vectors is not None and vectors.shape != expected:
        raise DataError(f"the arrows have shape {vectors.shape}; expected {expected}")
    cells = fluid_cells(fluid, field.shape[1:])
    field = blanked(field, cells)
    limits = limits_of(field, look, name)
    colours = look.colours or colours_of(limits)
    box = make_box(width, height, origin, unit=length_unit)
    factor, time_unit = style.readable_time(times, time_unit)
    columns = 1 if box.width >= STACKED_FROM * box.height else min(2, len(field))
    rows = -(-len(field) // columns)
    with style.style():
        sheet = make_sheet([box] * rows, (columns,), 3.4, bool(title))
        panels = [axis for axes in sheet.axes for axis in axes]
        for number, (axis, image) in enumerate(zip(panels, field, strict=False)):
            shown = draw(axis, image, box, limits, colours, fluid=cells)
            if look.contour is not None:
                draw_contour(axis, image, box, look.contour)
            if vectors is not None:
                _arrows(axis, vectors[number], float(np.nanmax(np.abs(vectors), initial=0.0)), box, cells)
        for axis in panels[len(field) :]:
            axis.set_visible(False)
        heads = [""] * len(panels)
        if times is not None:
            heads[: len(field)] = [f"t = {factor * time:.4g} {time_unit}" for time in times]
        for row in range(rows):
            sheet.label_row(row, heads[row * columns : (row + 1) * columns], every=range(columns))
        sheet.colour_bar(0, shown, name, unit, extend_of(field, limits))
        if title:
            sheet.heading(title)
        style.save(sheet.figure, path)
    return sheet.figure


def _arrows(axes: Axes, vectors: NDArray[np.float64], largest: float, box: Box, fluid: Mask | None) -> None:
    """A vector ``(2, nx, ny)`` at every few cells, not where it is next to nothing, nor in bodies."""
    size = np.linalg.norm(vectors, axis=0)
    nx, ny = size.shape
    step = max(1, round(max(nx, ny) / ARROWS))
    chosen = np.zeros((nx, ny), dtype=bool)
    chosen[step // 2 :: step, step // 2 :: step] = True
    chosen &= size > 0.02 * largest
    if fluid is not None:
        chosen &= fluid
    i, j = np.nonzero(chosen)
    x, y = box.x + (i + 0.5) / nx * box.width, box.y + (j + 0.5) / ny * box.height
    # The largest arrow is a little longer than the step.
    scale = largest / (1.6 * step * max(box.width / nx, box.height / ny)) if largest > 0 else 1.0
    axes.quiver(x, y, *vectors[:, i, j], angles="xy", scale_units="xy", scale=scale, width=0.0016, color=style.INK)
    axes.set(xlim=box.extent[:2], ylim=box.extent[2:])
