"""Velocity along the centre lines of a box: u(y) at half the width and v(x) at half the height."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from numpy.typing import ArrayLike, NDArray

from sciml.errors import DataError
from sciml.plotting import ghia, style
from sciml.plotting.sheet import readable_length


def centre_line(field: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Values of cells ``(nx, ny)`` on the line through the middle of ``axis``, between the two middle cells
    if even.
    """
    n = field.shape[axis]
    return 0.5 * (field.take((n - 1) // 2, axis) + field.take(n // 2, axis))


def centreline_profiles(
    truth: ArrayLike,
    prediction: ArrayLike,
    *,
    width: float,
    height: float,
    lid_velocity: float | None = None,
    reynolds: float | None = None,
    time: float | None = None,
    velocity_unit: str = "m/s",
    length_unit: str = "m",
    time_unit: str = "s",
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """Draw u(y) at x = W/2 and v(x) at y = H/2 of truth and prediction, each with its error beside it.

    ``truth`` and ``prediction`` are velocities ``(2, nx, ny)`` on cells of a box ``width`` x ``height``. With
    ``lid_velocity`` the axes are dimensionless (u / U, y / H). The points of Ghia, Ghia and Shin (1982),
    which are of steady flow, are drawn only then, and only when the box is square and ``reynolds`` is 100,
    400 or 1000.

    Returns the figure, written to ``path`` when given. Raises DataError for shapes that do not fit.
    """
    t, p = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    if t.shape != p.shape or t.ndim != 3 or t.shape[0] != 2:
        raise DataError(f"truth {t.shape} and prediction {p.shape} must both be a velocity (2, nx, ny)")
    scaled = bool(lid_velocity)
    if scaled:
        t, p, length = t / lid_velocity, p / lid_velocity, [1.0, 1.0]
        names, unit, places = ("u / U", "v / U"), "", ("x / W", "y / H")
    else:
        *length, length_unit = readable_length(width, height, length_unit)
        names, unit = ("u", "v"), velocity_unit
        places = (f"x ({length_unit})", f"y ({length_unit})")
    known = ghia.tabulated(reynolds, height / width) if scaled else None
    x, y = ((np.arange(n) + 0.5) / n * span for n, span in zip(t.shape[1:], length, strict=True))

    with style.style():
        figure = style.new_figure(8.4, 4.0 + 0.3 * bool(title))
        grid = figure.add_gridspec(2, 3, width_ratios=(1.0, 0.4, 1.4), height_ratios=(1.0, 0.42))
        u_axes = figure.add_subplot(grid[:, 0])
        u_error = figure.add_subplot(grid[:, 1], sharey=u_axes)
        v_axes = figure.add_subplot(grid[0, 2])
        v_error = figure.add_subplot(grid[1, 2], sharex=v_axes)

        u_true, u_pred = centre_line(t[0], 0), centre_line(p[0], 0)
        v_true, v_pred = centre_line(t[1], 1), centre_line(p[1], 1)
        u_axes.plot(u_true, y, color=style.TRUTH, label="truth (solver)")
        u_axes.plot(u_pred, y, color=style.PREDICTION, linestyle=(0, (4, 2)), label="prediction")
        v_axes.plot(x, v_true, color=style.TRUTH)
        v_axes.plot(x, v_pred, color=style.PREDICTION, linestyle=(0, (4, 2)))
        if known is not None:
            points = {
                "linestyle": "none",
                "marker": "o",
                "markersize": 4.5,
                "markerfacecolor": "none",
                "clip_on": False,
            }
            label = f"Ghia et al. 1982, Re {known}, steady"
            u_axes.plot(ghia.U[known], ghia.Y, color=style.POINTS, label=label, **points)
            v_axes.plot(ghia.X, ghia.V[known], color=style.POINTS, **points)
        factor, error_label = (100, "error (% of U)") if scaled else (1, style.with_unit("error", velocity_unit))
        u_error.plot(factor * (u_pred - u_true), y, color=style.PREDICTION)
        v_error.plot(x, factor * (v_pred - v_true), color=style.PREDICTION)

        u_axes.set(xlabel=style.with_unit(names[0], unit), ylabel=places[1], ylim=(0, length[1]))
        u_axes.set_title("u at x = W/2" if not scaled else "u along the vertical centre line", loc="left")
        u_error.set(xlabel=error_label)
        u_error.tick_params(labelleft=False)
        v_axes.set(ylabel=style.with_unit(names[1], unit), xlim=(0, length[0]))
        v_axes.set_title("v at y = H/2" if not scaled else "v along the horizontal centre line", loc="left")
        v_axes.tick_params(labelbottom=False)
        v_error.set(xlabel=places[0], ylabel=error_label)
        for axes in (u_axes, u_error, v_axes, v_error):
            style.light_grid(axes)
        symmetric_axis(u_error, "x", factor * (u_pred - u_true))
        symmetric_axis(v_error, "y", factor * (v_pred - v_true))
        u_error.axvline(0, color=style.INK, linewidth=0.6)
        v_error.axhline(0, color=style.INK, linewidth=0.6)
        figure.legend(loc="outside lower center", ncols=3)
        head = [title] if title else []
        head += [f"Re {reynolds:.0f}"] if not title and reynolds is not None else []
        head += [f"t = {time:.4g} {time_unit}"] if time is not None else []
        head += [f"(t U/W = {time * lid_velocity / width:.3g})"] if time is not None and lid_velocity else []
        if head:
            figure.suptitle("   ".join(head), x=0.01, ha="left", fontsize=11)
        style.save(figure, path)
    return figure


def symmetric_axis(axes: Axes, which: str, error: NDArray[np.float64]) -> None:
    """Centre the error axis on zero with three ticks, so that its size can be read off."""
    finite = error[np.isfinite(error)]
    top = 1.15 * float(np.abs(finite).max()) if finite.size else 0.0
    if top > 0:
        axes.set(**{f"{which}lim": (-top, top)})
    axes.locator_params(axis=which, nbins=3)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(StrMethodFormatter("{x:.2g}"))
