"""The warning that a question lies outside what a surrogate has seen."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping


class OutOfRangeWarning(UserWarning):
    """A parameter lies outside the range that the surrogate was trained on."""


def warn_out_of_range(
    observed: Mapping[str, tuple[float, float]], ranges: Mapping[str, tuple[float, float]], *, stacklevel: int
) -> None:
    """Warn (``OutOfRangeWarning``) of every quantity of ``ranges`` whose least or greatest observed value leaves it.

    ``stacklevel`` as of ``warnings.warn``, counted from here.
    """
    for name, (low, high) in ranges.items():
        least, most = observed[name]
        slack = 1e-6 * max(abs(low), abs(high))
        if least < low - slack or most > high + slack:
            given = f"{least:.4g}" if math.isclose(least, most) else f"{least:.4g} to {most:.4g}"
            warnings.warn(
                f"{name} is {given}; the surrogate was trained on {low:.4g} to {high:.4g} and its error is "
                f"unknown outside",
                OutOfRangeWarning,
                stacklevel=stacklevel,
            )
