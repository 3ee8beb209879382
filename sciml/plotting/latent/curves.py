"""The course of a training on a weak problem: errors, the bound, and the learning rate."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sciml.errors import DataError
from sciml.plotting import style

ERRORS = (
    ("residual", "residual of the equation (training)", style.LOOKUP),
    ("labels", "error of labelled cases (training)", style.DIRECT),
    ("validation_relative_l2", "relative L2 error (validation)", style.PREDICTION),
)


def bound_curves(records: Sequence[Mapping[str, Any]], *, title: str = "", path: str | Path | None = None) -> Figure:
    """Draw relative residual and errors, the negative evidence bound (of both signs), and the learning rate.

    A record has a ``step`` and any of ``residual``, ``labels``, ``loss``, ``learning_rate`` and a mapping
    ``validation`` with ``relative_l2``.

    Returns the figure, written to ``path`` when given. Raises DataError when there is nothing to draw.
    """
    loss = _series(records, "loss")
    errors = [(label, colour, *_series(records, key)) for key, label, colour in ERRORS]
    if not len(loss[0]) and not any(len(step) for _, _, step, _ in errors):
        raise DataError(f"no loss, residual or error in {len(records)} records: nothing to draw")
    with style.style():
        figure = style.new_figure(6.4, 5.6)
        top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(2.4, 1.6, 1))
        for label, colour, step, value in errors:
            if len(step):
                few = {"marker": "o", "markersize": 3} if len(step) < 60 else {}
                top.plot(step, np.where(value > 0, value, np.nan), color=colour, label=label, **few)
        top.set(yscale="log", ylabel="relative error")
        if any(len(step) for _, _, step, _ in errors):
            top.legend(loc="best")
        top.set_title(title or "Training", loc="left")
        middle.plot(*loss, color=style.INK, linewidth=1.0)
        middle.set_ylabel("negative bound\n(nats a point)")
        if len(loss[1]) > 1:  # the first steps are far above the rest
            low, high = np.quantile(loss[1], (0.0, 0.95))
            middle.set_ylim(low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1))
        bottom.plot(*_series(records, "learning_rate"), color=style.INK, linewidth=1.2)
        bottom.set_ylim(bottom=0)
        bottom.set(xlabel="step", ylabel="learning rate")
        bottom.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        for each in (top, middle, bottom):
            style.light_grid(each)
        style.save(figure, path)
    return figure


def _series(records: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and finite values of a key; ``outer_inner`` reads a nested mapping."""
    outer, _, inner = key.partition("_")
    found = [
        (
            record.get("step", count),
            record[outer].get(inner) if isinstance(record.get(outer), Mapping) else record.get(key),
        )
        for count, record in enumerate(records)
    ]
    good = [(s, v) for s, v in found if isinstance(v, (int, float)) and np.isfinite(v)]
    return np.array([s for s, _ in good], dtype=float), np.array([v for _, v in good], dtype=float)
