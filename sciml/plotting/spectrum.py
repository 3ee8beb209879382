"""Spectra of periodic fields: how much of a field lies at which wave number, and where a prediction loses it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from sciml.errors import DataError
from sciml.plotting import style

FLOOR = 1e-12
"""Below this part of its largest value a spectrum in single precision is rounding."""


def spectra(
    truth: ArrayLike,
    prediction: ArrayLike | None = None,
    *,
    lengths: Sequence[float],
    times: Sequence[float] | None = None,
    name: str = "energy",
    unit: str = "",
    length_unit: str = "m",
    time_unit: str = "s",
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """Draw the radial spectra of truth (solid) and prediction (dashed) at several times, and of their difference.

    ``truth`` and ``prediction`` are ``(frames, components, *grid)`` on a periodic box of sides ``lengths``. The
    spectrum is that of half the square, summed over components (``sciml.metrics.radial_spectrum``): ``name`` is
    "energy" of a velocity, "enstrophy" of a vorticity; ``unit`` is that of the field. On the right the spectrum of
    the error is divided by that of the truth: 1 means that nothing at this scale is right.

    Returns the figure, written to ``path`` when given. Raises DataError for shapes that do not fit.
    """
    t = np.asarray(truth, dtype=np.float64)
    p = None if prediction is None else np.asarray(prediction, dtype=np.float64)
    if t.ndim != len(lengths) + 2 or 0 in t.shape or (p is not None and p.shape != t.shape):
        shape = "" if p is None else f" and prediction {p.shape}"
        raise DataError(f"truth {t.shape}{shape} must be (frames, components, *grid) with {len(lengths)} grid axes")
    k, of_truth = _spectrum(t, lengths)
    factor, time_unit = style.readable_time(times, time_unit)
    labels = (
        [f"frame {i}" for i in range(len(t))] if times is None else [f"t = {factor * v:.4g} {time_unit}" for v in times]
    )
    if len(labels) != len(t):
        raise DataError(f"{len(t)} frames cannot have {len(labels)} times; give one time a frame")
    colours = style.frame_colours(len(t))
    with style.style():
        figure = style.new_figure(8.6 if p is not None else 5.2, 3.9 + 0.3 * bool(title))
        row = figure.subplots(1, 2, width_ratios=(1.3, 1)) if p is not None else [figure.subplots()]
        axes = row[0]
        for colour, label, values in zip(colours, labels, of_truth, strict=True):
            axes.plot(k, values, color=colour, label=label)
        if p is not None:
            _, of_prediction = _spectrum(p, lengths)
            with np.errstate(over="ignore", invalid="ignore"):
                _, of_error = _spectrum(p - t, lengths)
            for colour, predicted, wrong, values in zip(colours, of_prediction, of_error, of_truth, strict=True):
                axes.plot(k, predicted, color=colour, linestyle=(0, (4, 2)))
                row[1].plot(k, wrong / values, color=colour)
            parts = (of_error / of_truth)[np.isfinite(of_error / of_truth)]
            row[1].axhline(1.0, color=style.INK, linewidth=0.6)
            lowest = max(0.3 * parts.min(), 1e-10) if parts.size else 1e-3
            row[1].set(ylabel="spectrum of error / of truth", ylim=(min(lowest, 0.1), 10))
            row[1].set_title("error of each scale", loc="left")
            for each, line in (("truth", "-"), ("prediction", (0, (4, 2)))):
                axes.add_line(Line2D([], [], color=style.INK, linestyle=line, label=each))
        top = float(np.nanmax(of_truth, initial=0.0)) or 1.0
        known = of_truth[np.isfinite(of_truth) & (of_truth > FLOOR * top)]
        axes.set_ylim((0.3 * known.min() if known.size else FLOOR * top), 5 * top)
        axes.set(ylabel=style.with_unit(f"{name} spectrum", _density(unit, length_unit)))
        for each in row:
            each.set(xscale="log", yscale="log", xlabel=f"wave number (rad/{length_unit})", xlim=(k[0], k[-1]))
            style.light_grid(each)
        axes.legend(loc="lower left")
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        style.save(figure, path)
    return figure


def _spectrum(field: NDArray[np.float64], lengths: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wave numbers from one to the largest that every direction has, and spectra ``(frames, k)`` summed over
    components; NaN where the field is not finite.
    """
    import torch  # heavy, and only spectra need it

    from sciml.metrics import radial_spectrum

    k, density = radial_spectrum(torch.from_numpy(np.where(np.abs(field) < 1e100, field, np.nan))[None], lengths)
    largest = min(np.pi * n / side for n, side in zip(field.shape[2:], lengths, strict=True))
    chosen = (k > 0) & (k <= 1.0001 * largest)
    values = density[0].sum(1)[:, chosen].numpy()
    return k[chosen].numpy(), np.where(values > 0, values, np.nan)


def _density(unit: str, length_unit: str) -> str:
    return f"({unit})² {length_unit}" if unit and unit != "1" else length_unit
