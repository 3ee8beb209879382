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
    """A small Poseidon on a grid of the plane: patches of 4 x 4 cells, three levels, more convolutions than attention.

    The grid is taken as it is, and padded where it does not divide into patches. Norms that start at a tenth, so that
    blocks start near the identity, and larger initial weights than published learned faster in runs of minutes.
    """
    return {
        "image_size": list(grid),
        "patch_size": 4,
        "embed_dim": 32,
        "depths": [1, 1, 1],
        "num_heads": [2, 4, 8],
        "skip_connections": [2, 2, 1],
        "window_size": 8,
        "resize": "pad",
        "norm_gain": 0.1,
        "initializer_range": 0.1,
        "time_conditioning": False,
    }
