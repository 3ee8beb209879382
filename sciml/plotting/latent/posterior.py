"""The posterior of an inversion: mean and deviation (or band) of input function and solution, with the sensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sciml.errors import DataError
from sciml.plotting import style
from sciml.plotting.latent.cases import Named
from sciml.plotting.latent.layout import Layout
from sciml.plotting.latent.rows import Curve, Lines, Panel, Row, Scale, draw_rows
from sciml.plotting.panels import per_cent, scale_of

Array = NDArray[np.float64]

BAND = "#d1495b"
DRAWS = 8
"""Drawn input functions beside a band."""


@dataclass(frozen=True)
class Uncertain:
    """Mean, standard deviation and the ends of the 90 % band of one quantity, each ``(N,)``."""

    mean: Array
    deviation: Array
    low: Array
    high: Array


def posterior_figure(
    input_layout: Layout,
    layout: Layout,
    inputs: Uncertain,
    solution: Sequence[Uncertain],
    *,
    input_name: Named,
    channels: Sequence[Named],
    sensors: Array,
    observed: Mapping[str, Array],
    samples: Array | None = None,
    truth: Array | None = None,
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """Draw the posterior of the input function, then that of each channel of the solution with its sensors.

    ``sensors (M, d)``, and ``observed``: name of a channel -> ``(M,)`` values seen there, drawn as dots in their
    colour. ``samples (n, P)``: some draws, drawn where the input function is a line. ``truth (P,)``: the true
    input function where it is known.

    Returns the figure, written to ``path`` when given. Raises DataError for shapes that do not fit.
    """
    if len(solution) != len(channels):
        raise DataError(f"{len(solution)} solutions do not fit the channels {', '.join(name for name, _ in channels)}")
    if truth is not None and truth.shape != inputs.mean.shape:
        raise DataError(f"the truth has shape {truth.shape}; expected {inputs.mean.shape}")
    same = layout.axes == input_layout.axes  # then sensors have a place among the inputs
    if input_layout.is_line:
        rows = [_band(input_layout, inputs, input_name, samples, truth)]
    else:
        rows = [_maps(input_layout, inputs, input_name, truth, (sensors, None) if same else None)]
    for each, name in zip(solution, channels, strict=True):
        seen = observed.get(name[0])
        if layout.is_line:
            rows.append(_band(layout, each, name, None, None))
        else:
            rows.append(_maps(layout, each, name, None, None if seen is None else (sensors, seen)))
    with style.style():
        figure = draw_rows(rows, title)
        style.save(figure, path)
    return figure


def _maps(
    layout: Layout, found: Uncertain, name: Named, truth: Array | None, dots: tuple[Array, Array | None] | None
) -> Row:
    label, unit = name
    shown = label.replace("_", " ")
    limits = scale_of(found.mean if truth is None else truth)
    head = "posterior mean"
    if truth is not None:
        head += f", rel. L2 {per_cent(float(np.linalg.norm(found.mean - truth) / np.linalg.norm(truth)))}"
    panels = [Panel("truth", truth)] if truth is not None else []
    plain = None if dots is None else (dots[0], None)
    panels.append(Panel(head, found.mean, dots if dots is not None and dots[1] is not None else plain))
    top = float(found.deviation.max())
    deviation = Panel("standard deviation", found.deviation, plain)
    return Row(
        layout,
        [Scale(panels, limits, shown, unit), Scale([deviation], (0.0, top or 1.0), "deviation", unit, style.ERROR)],
    )


def _band(layout: Layout, found: Uncertain, name: Named, samples: Array | None, truth: Array | None) -> Row:
    label, unit = name
    shown = label.replace("_", " ")
    curves = [Curve("90 % band", np.stack([found.low, found.high]), {"color": BAND, "alpha": 0.2})]
    if samples is not None:
        chosen = samples[style.spread(len(samples), DRAWS)]
        look = {"color": BAND, "linewidth": 0.5, "alpha": 0.6}
        curves += [Curve("_" if number else "draws", draw, look) for number, draw in enumerate(chosen)]
    curves.append(Curve("posterior mean", found.mean, {"color": style.PREDICTION}))
    if truth is not None:
        curves.append(Curve("truth", truth, {"color": style.TRUTH, "linestyle": (0, (4, 2))}))
    return Row(layout, [Lines(f"posterior of {shown}", curves, style.with_unit(shown, unit))])
