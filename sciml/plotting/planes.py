"""Three space dimensions: the planes through the middle of a box."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from sciml.errors import DataError
from sciml.plotting import style
from sciml.plotting.panels import colours_of, draw, extend_of, make_panels, per_cent, scale_of
from sciml.plotting.sheet import Box, make_sheet, readable_length

PLANES = ((0, 1), (0, 2), (1, 2))
AXES = "xyz"


def mid_plane(field: ArrayLike, axis: int = -1) -> NDArray[np.float64]:
    """Values on the plane through the middle of a grid axis, between the two middle cells if their number is even."""
    values = np.asarray(field, dtype=np.float64)
    n = values.shape[axis]
    with np.errstate(over="ignore", invalid="ignore"):
        return 0.5 * (values.take((n - 1) // 2, axis) + values.take(n // 2, axis))


def slices(
    truth: ArrayLike,
    prediction: ArrayLike,
    *,
    lengths: Sequence[float],
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    name: str | None = None,
    unit: str = "",
    length_unit: str = "m",
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """Draw truth | prediction | error of one frame on the three planes through the middle of the box.

    ``truth`` and ``prediction`` are a scalar ``(nx, ny, nz)`` or a vector ``(components, nx, ny, nz)`` (its magnitude
    is shown) on cells of a box of sides ``lengths``. One colour scale for all planes, as in ``triptych``.

    Returns the figure, written to ``path`` when given. Raises DataError for shapes that do not fit.
    """
    t, p = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    if t.shape != p.shape or t.ndim not in (3, 4) or len(lengths) != 3 or 0 in t.shape:
        raise DataError(
            f"truth {t.shape} and prediction {p.shape} must both be (nx, ny, nz) or (components, nx, ny, nz), with "
            f"three lengths, not {len(lengths)}"
        )
    planes = []
    for first, second in PLANES:
        normal = 3 - first - second
        planes.append(make_panels(mid_plane(t, normal - 3)[None], mid_plane(p, normal - 3)[None]))
    limits = scale_of(np.concatenate([plane.truth.ravel() for plane in planes]), "truth")
    top = max(plane.error_limits[1] for plane in planes)
    signed = planes[0].signed
    error_limits = (-top if signed else 0.0, top)
    # One unit of length for all planes.
    largest, _, readable = readable_length(max(lengths), max(lengths), length_unit)
    factor = largest / max(lengths)
    boxes = [
        Box(
            factor * lengths[a],
            factor * lengths[b],
            factor * origin[a],
            factor * origin[b],
            (AXES[a], AXES[b]),
            readable,
        )
        for a, b in PLANES
    ]
    with style.style():
        sheet = make_sheet(boxes, (2, 1), 2.2, bool(title))
        colours = colours_of(limits)
        for row, (plane, box) in enumerate(zip(planes, boxes, strict=True)):
            axes = sheet.axes[row]
            main = draw(axes[0], plane.truth[0], box, limits, colours)
            draw(axes[1], plane.prediction[0], box, limits, colours)
            error = draw(axes[2], plane.error[0], box, error_limits, plane.error_map)
            head = f"{'error, ' if row == 0 or sheet.stacked else ''}rel. L2 {per_cent(plane.relative_l2[0])}"
            normal = 3 - sum(PLANES[row])
            note = f"{AXES[normal]} = {factor * (origin[normal] + 0.5 * lengths[normal]):.3g} {readable}"
            sheet.label_row(row, ("truth", "prediction", head), note, every=(2,))
        extend = extend_of(np.concatenate([plane.prediction.ravel() for plane in planes]), limits)
        sheet.colour_bar(0, main, name or ("field" if signed else "speed"), unit, extend)
        sheet.colour_bar(1, error, planes[0].error_name, unit)
        if title:
            sheet.heading(title)
        style.save(sheet.figure, path)
    return sheet.figure
