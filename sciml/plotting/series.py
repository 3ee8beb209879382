"""Numbers of each frame against the time: drag, lift, the volume of a liquid."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from sciml.errors import DataError
from sciml.plotting import style

Array = NDArray[np.float64]
LEAST_SPAN = 0.05
"""Of an axis, in parts of the largest value of this unit: a steady force is a line and not its rounding errors."""

FEW = 60
"""Frames up to which each is marked on the solver's line: between them nothing is known."""


def series_over_time(
    times: Sequence[float] | Array,
    solver: Mapping[str, ArrayLike],
    *,
    truth: Mapping[str, ArrayLike] | None = None,
    prediction: Mapping[str, ArrayLike] | None = None,
    units: Mapping[str, str] | None = None,
    how: str = "from the fields",
    time_unit: str = "s",
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """Draw each series against the time, below one another: the solver's, and what the fields on the grid say.

    ``solver`` maps the name of a series to its values ``(frames,)``; ``truth`` and ``prediction`` hold the same
    names, estimated from the true fields and from the predicted ones in the way that ``how`` names. A series that is
    missing in one of them, or is not finite, is not drawn. The axes are fixed by solver and truth.

    Returns the figure, written to ``path`` when given. Raises DataError for lengths that do not fit, and where there is
    nothing to draw.
    """
    moments = np.asarray(times, dtype=np.float64)
    given = [("solver", solver), (f"true fields, {how}", truth or {}), (f"predicted fields, {how}", prediction or {})]
    lines = {label: _checked(series, len(moments), label) for label, series in given}
    names = list(dict.fromkeys(name for series in lines.values() for name in series))
    if not names or not any(np.isfinite(values).any() for each in lines.values() for values in each.values()):
        raise DataError("no series holds a finite value: nothing to draw")
    units = units or {}
    factor, time_unit = style.readable_time(moments.tolist(), time_unit)
    looks: list[dict[str, Any]] = [
        {"color": style.TRUTH, "linewidth": 1.8},
        {"color": style.LOOKUP, "linewidth": 1.2, "linestyle": (0, (1, 1.2))},
        {"color": style.PREDICTION, "linewidth": 1.4, "linestyle": (0, (4, 2))},
    ]
    if len(moments) <= FEW:
        looks[0] |= {"marker": "o", "markersize": 3.0}
    with style.style():
        figure = style.new_figure(6.8, 0.9 + 1.75 * len(names) + 0.3 * bool(title))
        rows = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
        for name, axes in zip(names, rows, strict=True):
            axes.set_ylim(_limits(name, lines, units))
            low, high = axes.get_ylim()
            for look, (label, series) in zip(looks, lines.items(), strict=True):
                if name in series:
                    # Far off the axes is as good as infinite, which matplotlib cannot draw.
                    values = np.clip(series[name], low - 10 * (high - low), high + 10 * (high - low))
                    axes.plot(factor * moments, values, label=label, **look)
            if low < 0 < high:
                axes.axhline(0, color=style.INK, linewidth=0.5, zorder=1)
            axes.set_ylabel(style.with_unit(name.replace("_", " "), units.get(name, "")))
            axes.ticklabel_format(axis="y", useOffset=False, scilimits=(-3, 4))
            axes.locator_params(axis="y", nbins=5)
            style.light_grid(axes)
        rows[-1].set_xlabel(f"t ({time_unit})")
        if len(moments) > 1:
            rows[-1].set_xlim(factor * moments[0], factor * moments[-1])
        figure.align_ylabels(list(rows))
        handles = {line.get_label(): line for axes in rows for line in axes.lines if line.get_label()[0] != "_"}
        if len(handles) > 1:
            figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=len(handles))
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        style.save(figure, path)
    return figure


def _checked(series: Mapping[str, ArrayLike], frames: int, label: str) -> dict[str, Array]:
    found = {name: np.asarray(values, dtype=np.float64) for name, values in series.items()}
    for name, values in found.items():
        if values.shape != (frames,) or frames == 0:
            raise DataError(f"{label}: {name} has shape {values.shape}; expected one number for each of {frames} times")
    return found


def _limits(name: str, lines: Mapping[str, Mapping[str, Array]], units: Mapping[str, str]) -> tuple[float, float]:
    """Limits of the axis of a series, fixed by all but the prediction, which may widen them by half."""
    *known, predicted = lines.values()
    alike = [other for each in known for other in each if units.get(other, "") == units.get(name, "")]
    largest = max((_size(each[other]) for each in known for other in alike if other in each), default=0.0)
    truth = np.concatenate([each[name] for each in known if name in each] or [predicted[name]])
    low, high = style.value_limits(truth, predicted.get(name))
    short = LEAST_SPAN * largest - (high - low)
    return (low - short / 2, high + short / 2) if short > 0 else (low, high)


def _size(values: Array) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size else 0.0
