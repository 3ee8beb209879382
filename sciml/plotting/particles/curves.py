"""How the error of a particle rollout grows, beside what needs no learning."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from sciml.errors import DataError
from sciml.plotting import style

SHOWN = {
    "constant_velocity": ("constant velocity", style.PERSISTENCE, "-"),
    "constant_acceleration": ("constant acceleration", style.PERSISTENCE, "--"),
    "upsampled_truth": ("dense points from the true sparse ones", style.DIRECT, "-"),
    "sparse": ("sparse points", style.LOOKUP, "-"),
    "dense": ("dense points", style.PREDICTION, "-"),
}
"""Curve -> (label, colour, line); drawn in this order, the model on top."""
HIGHEST = 100.0
"""An extrapolation that leaves the box for good must not squeeze the curves of the model."""


def particle_errors(
    curves: Mapping[str, ArrayLike],
    *,
    given: int = 1,
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """Draw errors relative to displacement ``(frames,)`` against the frame on a logarithmic scale.

    ``curves`` has keys of ``SHOWN``; ``given``: the number of leading frames that the rollouts were given, marked by a
    vertical line. An error that is zero or not finite breaks its line, and the legend says from which frame on it is
    not finite.

    Returns the figure, written to ``path`` when given. Raises DataError without curves, for unknown ones, or for ones
    that are not ``(frames,)``.
    """
    if not curves or (unknown := sorted(set(curves) - set(SHOWN))):
        what = f"unknown curves {', '.join(unknown)}" if curves else "no curves"
        raise DataError(f"{what}; expected some of {', '.join(SHOWN)}")
    with style.style():
        figure = style.new_figure(6.4, 4.2)
        axes = figure.subplots()
        frames, top = 2, 0.0
        for name, (label, colour, line) in SHOWN.items():
            if name not in curves:
                continue
            curve = np.asarray(curves[name], dtype=np.float64)
            if curve.ndim != 1 or not curve.size:
                raise DataError(f"the curve {name} must be (frames,) and not empty, got {curve.shape}")
            finite = np.isfinite(curve)
            drawn = np.where(finite & (curve > 0), curve, np.nan)
            if lost := np.flatnonzero(~finite & (np.arange(len(curve)) >= given)).tolist():
                label += f" (not finite from frame {lost[0]})"
            axes.plot(np.arange(len(curve)), drawn, color=colour, linestyle=line, label=label)
            frames, top = max(frames, len(curve)), max(top, float(np.nanmax(drawn, initial=0.0)))
        axes.set_yscale("log")
        axes.set(xlabel="frame", ylabel="error / displacement", xlim=(0, frames - 1))
        if top > HIGHEST:
            axes.set_ylim(top=HIGHEST)
        axes.axvline(given - 1, color=style.INK, linewidth=0.8, linestyle=":")
        where = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
        axes.annotate("given until here", (given - 1, 0.02), (3, 0), fontsize=8, **where)
        axes.xaxis.get_major_locator().set_params(integer=True)
        style.light_grid(axes)
        axes.grid(True, which="minor", axis="y", linewidth=0.3)
        axes.set_title(title or "Rollout error relative to the displacement of the truth", loc="left")
        figure.legend(loc="outside lower left", ncols=2, reverse=True)
        style.save(figure, path)
    return figure
