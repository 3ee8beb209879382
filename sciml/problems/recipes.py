"""What the default recipes of several problems share: the arguments of operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def operator_options(name: str, own: Mapping[str, dict[str, Any]], grid: Sequence[int]) -> dict[str, Any]:
    """Constructor arguments of an operator on a grid: the problem's own; without any, the shared ones; else none."""
    if name in own:
        return own[name]
    return poseidon_options(grid) if name == "poseidon" and len(grid) == 2 else {}


def poseidon_options(grid: Sequence[int]) -> dict[str, Any]:
    """A small Poseidon on a grid of the plane: three levels of two blocks, on patches of 4 x 4 cells.

    The grid is taken as it is, and padded where it does not divide into patches.
    """
    return {
        "image_size": list(grid),
        "patch_size": 4,
        "embed_dim": 48,
        "depths": [2, 2, 2],
        "num_heads": [3, 6, 12],
        "skip_connections": [1, 1, 0],
        "window_size": 8,
        "resize": "pad",
        "norm_gain": 1.0,
    }
