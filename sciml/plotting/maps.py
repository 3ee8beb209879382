"""Static problems: the input beside the field that follows from it, and the errors of all cases."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from sciml.errors import DataError
from sciml.plotting import style
from sciml.plotting.panels import colours_of, draw, make_panels, per_cent, positive_scale, scale_of
from sciml.plotting.sheet import Box, make_box, make_sheet
from sciml.plotting.solids import blanked


def field_map(
    inputs: ArrayLike,
    truth: ArrayLike,
    prediction: ArrayLike,
    *,
    width: float,
    height: float,
    origin: Sequence[float] = (0.0, 0.0),
    points: ArrayLike | None = None,
    fluid: ArrayLike | None = None,
    labels: Sequence[str] = (),
    input_name: str = "input",
    input_unit: str = "",
    name: str | None = None,
    unit: str = "",
    length_unit: str = "m",
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """Draw input | truth | prediction | error, one row a case.

    ``inputs`` is a scalar ``(cases, nx, ny)``; ``truth`` and ``prediction`` are as in ``triptych``, cases in place of
    frames. ``points (cases, N, 2)``, in the unit of the box, mark where the input was observed. ``labels`` name the
    cases. ``fluid (cases, nx, ny)`` is 0 in bodies, which are drawn as such. A positive input whose values lie decades
    apart gets a logarithmic scale.

    Returns the figure, written to ``path`` when given. Raises DataError for shapes that do not fit.
    """
    given = np.asarray(inputs, dtype=np.float64)
    panels = make_panels(truth, prediction, fluid)
    if given.shape != panels.truth.shape:
        raise DataError(f"the input has shape {given.shape}; expected {panels.truth.shape}, as the truth")
    given = blanked(given, panels.fluid)
    marks = None if points is None else np.asarray(points, dtype=np.float64)
    if marks is not None and (marks.ndim != 3 or len(marks) != len(given) or marks.shape[2] != 2):
        raise DataError(f"points have shape {marks.shape}; expected ({len(given)}, N, 2)")
    box = make_box(width, height, origin, unit=length_unit)
    log = positive_scale(given)
    limits = log or scale_of(given, "input")
    with style.style():
        sheet = make_sheet([box] * len(given), (1, 2, 1), 2.1, bool(title))
        for row, axes in enumerate(sheet.axes):
            cells = panels.fluid_in(row)
            source = draw(axes[0], given[row], box, limits, colours_of(limits), log=log is not None, fluid=cells)
            if marks is not None:
                _mark(axes[0], marks[row] * (box.width / width), box)
            for axis, image in zip(axes[1:3], (panels.truth[row], panels.prediction[row]), strict=True):
                main = draw(axis, image, box, panels.limits, panels.colour_map, fluid=cells)
            error = draw(axes[3], panels.error[row], box, panels.error_limits, panels.error_map, fluid=cells)
            note = labels[row] if row < len(labels) else ""
            error_head = f"{'error, ' if row == 0 or sheet.stacked else ''}rel. L2 {per_cent(panels.relative_l2[row])}"
            sheet.label_row(row, ("input", "truth", "prediction", error_head), note, every=(3,))
        sheet.colour_bar(0, source, input_name, input_unit)
        sheet.colour_bar(1, main, name or ("field" if panels.signed else "speed"), unit, panels.extend)
        sheet.colour_bar(2, error, panels.error_name, unit, panels.error_extend)
        if title:
            sheet.heading(title)
        style.save(sheet.figure, path)
    return sheet.figure


def _mark(axes: Axes, points: NDArray[np.float64], box: Box) -> None:
    """Dots that are seen on light and dark, smaller where there are many."""
    size = float(np.clip(900 / max(len(points), 1), 1.5, 16))
    axes.scatter(*points.T, s=size, color="white", edgecolors=style.INK, linewidths=0.4, clip_on=False, zorder=3)
    axes.set(xlim=box.extent[:2], ylim=box.extent[2:])


def error_distribution(
    errors: ArrayLike,
    *,
    mean: ArrayLike | None = None,
    lookup: ArrayLike | None = None,
    name: str = "operator",
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """Draw the relative L2 errors of all cases of a static problem, sorted, beside what needs no learning.

    ``errors``, those of the training ``mean`` and of the ``lookup`` of the nearest training case are ``(cases,)``.
    At 0.9 of the axis stands the error that nine cases in ten stay below. Infinite errors are counted in the legend.

    Returns the figure, written to ``path`` when given. Raises DataError for arrays that are not ``(cases,)``.
    """
    given = [(name, errors, style.PREDICTION), ("look-up of the nearest training case", lookup, style.LOOKUP)]
    given.append(("training mean", mean, style.PERSISTENCE))
    with style.style():
        figure = style.new_figure(6.4, 4.2)
        axes = figure.subplots()
        cases = 1
        for label, values, colour in given:
            if values is None:
                continue
            sizes = np.asarray(values, dtype=np.float64)
            if sizes.ndim != 1 or sizes.size == 0:
                raise DataError(f"errors of {label} must be (cases,) and not empty, got {sizes.shape}")
            cases = max(cases, len(sizes))
            good = np.sort(sizes[np.isfinite(sizes)])
            lost = len(sizes) - len(good)
            # Case i of n stands for the part from i / n to (i + 1) / n.
            part = (np.arange(len(good)) + 0.5) / len(sizes)
            text = f"{label}, median {per_cent(np.median(np.where(np.isfinite(sizes), sizes, np.inf)))}"
            text += f", {lost} not finite" if lost else ""
            marker = {"marker": "o", "markersize": 3.0} if len(sizes) <= 40 else {}
            axes.plot(part, np.where(good > 0, good, np.nan), color=colour, label=text, **marker)
        axes.set(yscale="log", xlim=(0, 1), xlabel="part of the cases with a smaller error", ylabel="relative L2 error")
        style.light_grid(axes)
        axes.grid(True, which="minor", axis="y", linewidth=0.3)
        axes.set_title(title or f"Error of {cases} held-out case{'s' * (cases > 1)}", loc="left")
        figure.legend(loc="outside lower left")
        style.save(figure, path)
    return figure
