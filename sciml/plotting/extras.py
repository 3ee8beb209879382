"""What a ``predictions.npz`` holds beside the fields: bodies in the box, and numbers of each frame."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from sciml.errors import DataError

Arrays = Mapping[str, NDArray[Any]]
SOURCES = ("solver", "truth", "prediction")
"""Whose a series is: the solver's own, or that of the true or the predicted fields."""


def check_extras(arrays: Arrays, name: str) -> None:
    """Raise DataError where ``fluid`` or the series do not fit the fields; ``name``: of the file."""
    truth = arrays["truth"]
    n, frames, grid = len(truth), truth.shape[1], truth.shape[3:]
    if "fluid" in arrays and arrays["fluid"].shape != (n, *grid):
        raise DataError(f"{name}: fluid has shape {arrays['fluid'].shape}; expected {(n, *grid)}")
    if "series" not in arrays:
        return
    names = arrays["series"]
    if "series_units" not in arrays or arrays["series_units"].shape != names.shape:
        raise DataError(f"{name}: series_units does not hold a unit for each of the series {names.tolist()}")
    for key in (f"{source}_{each}" for source in SOURCES for each in names):
        if key in arrays and arrays[key].shape != (n, frames):
            raise DataError(f"{name}: {key} has shape {arrays[key].shape}; expected {(n, frames)} for cases and frames")


def series_of(arrays: Arrays, case: int) -> tuple[dict[str, dict[str, NDArray[Any]]], dict[str, str]]:
    """Of one case, whose series -> name -> values ``(frames,)``, and name -> unit; both empty without series."""
    if "series" not in arrays:
        return {}, {}
    names = [str(name) for name in arrays["series"]]
    found = {
        source: {name: arrays[f"{source}_{name}"][case] for name in names if f"{source}_{name}" in arrays}
        for source in SOURCES
    }
    units = dict(zip(names, (str(unit) for unit in arrays["series_units"]), strict=True))
    return {source: own for source, own in found.items() if own}, units
