"""One space dimension: a field as lines at several times."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from sciml.errors import DataError
from sciml.plotting import style
from sciml.plotting.panels import per_cent
from sciml.plotting.profiles import symmetric_axis
from sciml.plotting.sheet import readable_length


def line_profiles(
    truth: ArrayLike,
    prediction: ArrayLike | None = None,
    *,
    length: float,
    origin: float = 0.0,
    times: Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
    name: str = "field",
    unit: str = "",
    length_unit: str = "m",
    time_unit: str = "s",
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """Draw a scalar on a line at several times: truth solid, prediction dashed, and the errors below.

    ``truth`` and ``prediction`` are ``(lines, nx)`` on cells of a line of ``length`` that begins at ``origin``. The
    lines are labelled with ``labels`` (cases of a static problem, say) or with their ``times``. The axis of the
    values is fixed by the truth: a prediction that blew up leaves it.

    Returns the figure, written to ``path`` when given. Raises DataError for shapes that do not fit.
    """
    t = np.asarray(truth, dtype=np.float64)
    p = None if prediction is None else np.asarray(prediction, dtype=np.float64)
    if t.ndim != 2 or 0 in t.shape or (p is not None and p.shape != t.shape):
        shape = "" if p is None else f" and prediction {p.shape}"
        raise DataError(f"truth {t.shape}{shape} must be (lines, nx) and not empty")
    factor, time_unit = style.readable_time(times, time_unit)
    if labels is None:
        labels = (
            [f"{i}" for i in range(len(t))] if times is None else [f"t = {factor * v:.4g} {time_unit}" for v in times]
        )
    if len(labels) != len(t):
        raise DataError(f"{len(t)} lines cannot have {len(labels)} labels; give one time or label a line")
    length, _, readable = readable_length(length, length, length_unit)
    origin *= 1e3 if readable != length_unit else 1.0
    x = origin + (np.arange(t.shape[1]) + 0.5) / t.shape[1] * length
    colours = style.frame_colours(len(t))
    with style.style():
        figure = style.new_figure(6.8, (4.8 if p is not None else 3.8) + 0.3 * bool(title))
        rows = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1)) if p is not None else [figure.subplots()]
        axes = rows[0]
        for colour, label, values in zip(colours, labels, t, strict=True):
            axes.plot(x, values, color=colour, label=label)
        axes.set(ylabel=style.with_unit(name, unit), ylim=style.value_limits(t, p), xlim=(origin, origin + length))
        if p is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                error = np.where(np.isfinite(p - t), p - t, np.nan)
                size = np.linalg.norm(p - t) / np.linalg.norm(t) if t.any() else np.nan
            span = np.ptp(style.value_limits(t))
            for colour, values, wrong in zip(colours, p, error, strict=True):
                axes.plot(x, _near(values, span, t), color=colour, linestyle=(0, (4, 2)))
                rows[1].plot(x, np.clip(wrong, -span, span), color=colour)
            rows[1].axhline(0, color=style.INK, linewidth=0.6)
            rows[1].set_ylabel(style.with_unit("error", unit))
            symmetric_axis(rows[1], "y", np.clip(error, -span, span))
            size = size if np.isfinite(error).all() or np.isnan(size) else np.inf
            rows[1].set_title(f"prediction − truth, rel. L2 of these lines {per_cent(size)}", loc="left")
            for each, line in (("truth", "-"), ("prediction", (0, (4, 2)))):
                axes.add_line(Line2D([], [], color=style.INK, linestyle=line, label=each))
        rows[-1].set_xlabel(f"x ({readable})")
        for each in rows:
            style.light_grid(each)
        figure.legend(loc="outside right upper")
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        style.save(figure, path)
    return figure


def _near(values: np.ndarray, span: float, truth: np.ndarray) -> np.ndarray:
    """Within ten spans of the truth, so that nothing overflows on its way to the picture."""
    finite = truth[np.isfinite(truth)]
    middle = float(finite.mean()) if finite.size else 0.0
    return np.clip(np.where(np.isfinite(values), values, np.nan), middle - 10 * span, middle + 10 * span)
