"""A case of a weak problem: input function and solution, reference beside prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sciml.errors import DataError
from sciml.plotting import style
from sciml.plotting.latent.layout import Layout
from sciml.plotting.latent.rows import Curve, Lines, Panel, Row, Scale, draw_rows
from sciml.plotting.panels import Limits, per_cent, scale_of

Array = NDArray[np.float64]
Named = tuple[str, str]
"""Name and unit."""


def latent_case(
    input_layout: Layout,
    layout: Layout,
    inputs: Array,
    decoded: Array,
    truth: Array,
    prediction: Array,
    *,
    input_name: Named,
    channels: Sequence[Named],
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """Draw the input function beside the decoder's, and each channel of the solution beside the reference.

    ``inputs``, ``decoded (P,)``; ``truth``, ``prediction (C, N)``; errors are relative to the norm of what is true.

    Returns the figure, written to ``path`` when given. Raises DataError for shapes that do not fit.
    """
    if truth.shape != prediction.shape or truth.shape != (len(channels), len(layout.points)):
        raise DataError(
            f"truth {truth.shape} and prediction {prediction.shape} do not fit {len(channels)} channels at "
            f"{len(layout.points)} points"
        )
    if inputs.shape != decoded.shape or inputs.shape != (len(input_layout.points),):
        raise DataError(
            f"input {inputs.shape} and decoded input {decoded.shape} do not fit {len(input_layout.points)} points"
        )
    rows = [comparison(input_layout, inputs, decoded, input_name, ("input", "decoded"))]
    rows += [
        comparison(layout, true, made, name, ("reference", "prediction"))
        for true, made, name in zip(truth, prediction, channels, strict=True)
    ]
    with style.style():
        figure = draw_rows(rows, title)
        style.save(figure, path)
    return figure


def comparison(layout: Layout, truth: Array, made: Array, name: Named, words: tuple[str, str]) -> Row:
    """Truth, what was made, and the difference, of values ``(N,)``."""
    label, unit = name
    error = made - truth
    size = float(np.linalg.norm(truth))
    relative = f"difference, rel. L2 {per_cent(float(np.linalg.norm(error)) / size if size else np.nan)}"
    shown = label.replace("_", " ")
    if layout.is_line:
        ylabel = style.with_unit(shown, unit)
        curves = [
            Curve(words[0], truth, {"color": style.TRUTH}),
            Curve(words[1], made, {"color": style.PREDICTION, "linestyle": (0, (4, 2))}),
        ]
        difference = [Curve("_difference", error, {"color": style.PREDICTION, "linewidth": 1.2})]
        return Row(
            layout,
            [
                Lines(shown, curves, ylabel, style.value_limits(truth, made), width=2.0),
                Lines(relative, difference, "", symmetric_limit(error)),
            ],
        )
    limits = scale_of(truth, words[0])
    top = symmetric_limit(np.clip(error, limits[0] - limits[1], limits[1] - limits[0]))
    return Row(
        layout,
        [
            Scale([Panel(words[0], truth), Panel(words[1], made)], limits, shown, unit),
            Scale([Panel(relative, error)], top, "difference", unit, style.DIVERGING),
        ],
    )


def symmetric_limit(error: Array) -> Limits:
    """Limits about zero that hold every finite error."""
    finite = np.abs(error[np.isfinite(error)])
    top = 1.05 * float(finite.max()) if finite.size else 0.0
    return (-top, top) if top else (-1.0, 1.0)
