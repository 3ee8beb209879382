"""Error against the step of a rollout, and the course of a training."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from sciml.errors import DataError
from sciml.plotting import style

LOSS_KEYS = ("loss", "train_loss", "training_loss")
RATE_KEYS = ("learning_rate", "lr")
VALIDATION_PREFIXES = ("validation", "val_", "valid_")


def rollout_error(
    errors: ArrayLike,
    *,
    persistence: ArrayLike | None = None,
    lookup: ArrayLike | None = None,
    direct: ArrayLike | None = None,
    name: str = "operator",
    title: str = "",
    along: str = "rollout step",
    path: str | Path | None = None,
) -> Figure:
    """Draw the relative L2 error of rollouts against the step, beside what needs no learning.

    ``errors``, ``persistence`` (the first frame repeated), ``lookup`` (the nearest training case) and ``direct`` (the
    operator's own jump from the first frame to each step) are ``(cases, steps)``, step 1 first. Lines are means over
    cases, bands the 10th to 90th percentile, the dotted line is the worst case of each step. A case that is not finite
    at a step makes the mean there infinite: the line breaks off, and the legend says how many. ``along``: what is
    counted.

    Returns the figure, written to ``path`` when given. Raises DataError for arrays that are not ``(cases,
    steps)``.
    """
    given = [(name, errors, style.PREDICTION), ("look-up of the nearest training case", lookup, style.LOOKUP)]
    given.append(("persistence", persistence, style.PERSISTENCE))
    given.append((f"{name} in one jump", direct, style.DIRECT))
    with style.style():
        figure = style.new_figure(6.4, 4.2)
        axes = figure.subplots()
        steps = cases = 1
        for label, values, colour in given:
            if values is None:
                continue
            curve = np.asarray(values, dtype=np.float64)
            if curve.ndim != 2 or 0 in curve.shape:
                raise DataError(f"errors of {label} must be (cases, steps) and not empty, got {curve.shape}")
            steps, cases = max(steps, curve.shape[1]), max(cases, curve.shape[0])
            _error_curve(axes, label, curve, colour, worst=values is errors)
        axes.set_yscale("log")
        axes.set(xlabel=along, ylabel="relative L2 error", xlim=(1, max(steps, 2)))
        axes.xaxis.get_major_locator().set_params(integer=True)
        style.light_grid(axes)
        axes.grid(True, which="minor", axis="y", linewidth=0.3)
        axes.set_title(title or f"Rollout error over {cases} held-out case{'s' * (cases > 1)}", loc="left")
        figure.legend(loc="outside lower left", ncols=2)
        style.save(figure, path)
    return figure


def _error_curve(axes: Axes, label: str, curve: np.ndarray, colour: str, worst: bool) -> None:
    step = np.arange(1, curve.shape[1] + 1)
    good = np.isfinite(curve)
    lost = int((~good).any(axis=1).sum())
    curve = np.where(good, curve, np.inf)
    # A log axis has no zero: an exact step (persistence of a flow at rest) is left out of the line.
    mean = np.where((m := curve.mean(axis=0)) > 0, m, np.nan)
    axes.plot(step, np.where(np.isfinite(mean), mean, np.nan), color=colour, label=f"{label}, mean")
    if len(curve) > 1:
        if lost == 0:
            low, high = np.quantile(curve, (0.1, 0.9), axis=0)
            axes.fill_between(step, np.where(low > 0, low, np.nan), high, color=colour, alpha=0.18, linewidth=0)
        if worst:
            top = np.where(np.isfinite(t := curve.max(axis=0)) & (t > 0), t, np.nan)
            axes.plot(step, top, color=colour, linewidth=1.0, linestyle=":", label=f"{label}, worst case")
    if lost:
        axes.plot([], [], color=colour, linestyle="none", marker="x", label=f"{lost} of {len(curve)} not finite")


def loss_curves(records: Sequence[Mapping[str, Any]], *, title: str = "", path: str | Path | None = None) -> Figure:
    """Draw training loss, validation errors and learning rate of the records of a ``metrics.jsonl``.

    A record has a ``step`` and any of a loss (``LOSS_KEYS``), a rate (``RATE_KEYS``) and numbers whose name
    begins like one of ``VALIDATION_PREFIXES``; nested mappings are read as ``outer_inner``. The loss is drawn
    with its running median when there are many records.

    Returns the figure, written to ``path`` when given. Raises DataError when there is nothing to draw.
    """
    series = _series(records)
    loss = next((series[key] for key in LOSS_KEYS if key in series), None)
    rate = next((series[key] for key in RATE_KEYS if key in series), None)
    validation = {k: v for k, v in series.items() if k.startswith(VALIDATION_PREFIXES)}
    if loss is None and not validation:
        raise DataError(
            f"no loss and no validation error in {len(records)} records; found {sorted(series) or 'nothing'}"
        )
    with style.style():
        figure = style.new_figure(6.4, 4.6)
        axes, rate_axes = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        if loss is not None:
            _loss_line(axes, *loss)
        for number, (key, (step, value)) in enumerate(validation.items()):
            colour = (style.PREDICTION, style.LOOKUP, "#edae49", "#5f4b8b")[number % 4]
            axes.plot(step, value, color=colour, marker="o", markersize=3, label=key.replace("_", " "))
        axes.set_yscale("log")
        axes.set(ylabel="loss, error")
        axes.set_title(title or "Training", loc="left")
        rate_axes.set(xlabel="step", ylabel="learning rate")
        if rate is not None:
            rate_axes.plot(*rate, color=style.INK, linewidth=1.2)
            rate_axes.set_ylim(bottom=0)
        rate_axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        for each in (axes, rate_axes):
            style.light_grid(each)
        axes.legend(loc="best")
        style.save(figure, path)
    return figure


def _loss_line(axes: Axes, step: np.ndarray, value: np.ndarray) -> None:
    if len(step) < 60:
        marker = "o" if len(step) == 1 else None
        axes.plot(step, value, color=style.INK, linewidth=1.2, marker=marker, label="training loss")
        return
    window = max(5, len(step) // 50)
    padded = np.pad(value, (window // 2, window - 1 - window // 2), mode="edge")
    median = np.median(np.lib.stride_tricks.sliding_window_view(padded, window), axis=-1)
    axes.plot(step, value, color=style.INK, linewidth=0.5, alpha=0.3)
    axes.plot(step, median, color=style.INK, linewidth=1.4, label="training loss (running median)")


def _series(records: Sequence[Mapping[str, Any]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> (steps, values) of every positive number; records without a step are counted."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for count, record in enumerate(records):
        step = float(record.get("step", count))
        for key, value in _flat(record).items():
            if key != "step" and isinstance(value, (int, float)) and math.isfinite(value) and value > 0:
                steps, values = found.setdefault(key, ([], []))
                steps.append(step)
                values.append(float(value))
    return {key: (np.array(steps), np.array(values)) for key, (steps, values) in found.items()}


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}_")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
