"""Flow through a channel: profiles of the velocity at several sections, and Poiseuille's at the outlet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from sciml.errors import DataError
from sciml.plotting import style
from sciml.plotting.sheet import readable_length

SECTIONS = (0.05, 0.2, 0.5, 1.0)
"""Where the profiles are drawn, in parts of the length; 1 is the last cell."""


def channel_profiles(
    truth: ArrayLike,
    prediction: ArrayLike,
    *,
    width: float,
    height: float,
    mean_velocity: float | None = None,
    sections: Sequence[float] = SECTIONS,
    time: float | None = None,
    velocity_unit: str = "m/s",
    length_unit: str = "m",
    time_unit: str = "s",
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """Draw u(y) of truth and prediction at sections of a channel, the error below, Poiseuille's profile at the outlet.

    ``truth`` and ``prediction`` are velocities ``(2, nx, ny)`` on cells of a channel of length ``width`` between walls
    ``height`` apart. Poiseuille's profile is ``6 U y/h (1 - y/h)`` with U the mean velocity, by default that of the
    truth at the outlet.

    Returns the figure, written to ``path`` when given. Raises DataError for shapes that do not fit.
    """
    t, p = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    if t.shape != p.shape or t.ndim != 3 or t.shape[0] != 2 or 0 in t.shape:
        raise DataError(f"truth {t.shape} and prediction {p.shape} must both be a velocity (2, nx, ny)")
    _, nx, ny = t.shape
    mean = float(t[0, -1].mean()) if mean_velocity is None else mean_velocity
    columns = [min(int(part * nx), nx - 1) for part in sections]
    readable = readable_length(width, height, length_unit)
    y = (np.arange(ny) + 0.5) / ny
    wall = np.linspace(0.0, 1.0, 101)
    developed = 6 * mean * wall * (1 - wall)
    limits = style.value_limits(np.concatenate([t[0, columns].ravel(), developed]), p[0, columns])
    span = limits[1] - limits[0]
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.clip(np.where(np.isfinite(p[0] - t[0]), p[0] - t[0], np.nan), -span, span)
    predicted = np.clip(np.where(np.isfinite(p[0]), p[0], np.nan), limits[0] - span, limits[1] + span)
    with style.style():
        figure = style.new_figure(1.2 + 1.9 * len(columns), 4.6 + 0.3 * bool(title))
        grid = figure.subplots(2, len(columns), sharey=True, sharex="row", squeeze=False, height_ratios=(1.5, 1))
        for number, column in enumerate(columns):
            axes, below = grid[:, number]
            axes.plot(t[0, column], y, color=style.TRUTH, label="truth (solver)")
            axes.plot(predicted[column], y, color=style.PREDICTION, linestyle=(0, (4, 2)), label="prediction")
            if column == nx - 1:
                label = "Poiseuille, 6 U y/h (1 − y/h)"
                axes.plot(developed[::5], wall[::5], color=style.POINTS, linestyle="none", marker="o", markersize=4.0)
                axes.lines[-1].set(markerfacecolor="none", label=label, clip_on=False)
            below.plot(error[column], y, color=style.PREDICTION)
            below.axvline(0, color=style.INK, linewidth=0.6)
            where = (column + 0.5) / nx
            axes.set_title(f"x = {where * readable[0]:.3g} {readable[2]} ({where * width / height:.3g} h)", loc="left")
            axes.set(xlabel=style.with_unit("u", velocity_unit), xlim=limits)
            below.set_xlabel(style.with_unit("error", velocity_unit))
            for each in (axes, below):
                style.light_grid(each)
                each.xaxis.set_major_locator(MaxNLocator(3))
        for axes in grid[:, 0]:
            axes.set(ylabel="y / h", ylim=(0, 1))
        shown = error[columns][np.isfinite(error[columns])]
        if shown.size and (top := 1.15 * float(np.abs(shown).max())) > 0:
            grid[1, 0].set_xlim(-top, top)
        handles = {line.get_label(): line for axes in grid[0] for line in axes.lines}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
        head = [title] if title else []
        head += [f"t = {time:.4g} {time_unit}"] if time is not None else []
        if head:
            figure.suptitle("   ".join(head), x=0.01, ha="left", fontsize=11)
        style.save(figure, path)
    return figure
