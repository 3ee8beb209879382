"""Gaussian smoothing of cell-centred fields, up to the walls.

Along each axis a field is continued beyond a wall and convolved with exp(-x^2 / 2 width^2), sampled at the centres and
normalised. Even continuation (a mirror) keeps positive fields positive and their mean; odd continuation about the
values at the walls keeps linear fields, so that it makes no kink there. Both are one dense matrix for each axis: exact
for every width, also one beyond the box, and fast at the sizes of meshes.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.box import Box
from sciml.errors import ConfigError, DataError

Continuation = Literal["even", "odd"]


def smooth(u: Tensor, box: Box, width: float, continuation: Continuation = "odd") -> Tensor:
    """``u (B, C, *n)`` smoothed by a Gaussian of standard deviation ``width`` metres.

    ``continuation`` beyond walls: ``"odd"`` keeps linear fields (for a solution), ``"even"`` keeps positive fields
    positive, and the mean (for a monitor). Periodic axes wrap. Differentiable. Raises ``ConfigError`` for a negative
    width, ``DataError`` for a field of another dimension.
    """
    if u.ndim != box.dim + 2:
        raise DataError(
            f"A field of a {box.dim}D box is (batch, channels, {', '.join('xyz'[: box.dim])}), not {tuple(u.shape)}."
        )
    if not (math.isfinite(width) and width >= 0):
        raise ConfigError(f"A smoothing width is a length in metres, not negative; got {width}.")
    if width == 0:
        return u
    for axis, (length, periodic) in enumerate(zip(box.lengths, box.periodic, strict=True), start=2):
        n = u.shape[axis]
        matrix = _matrix(n, width * n / length, "periodic" if periodic else continuation)
        u = torch.movedim(torch.movedim(u, axis, -1) @ matrix.to(u).T, -1, axis)
    return u


@lru_cache(maxsize=64)
def _matrix(n: int, width: float, continuation: str) -> Tensor:
    """The smoothing of n values, width in cells, float64 ``(n, n)``."""
    with torch.inference_mode(False), torch.no_grad():  # a kept inference tensor could not be trained with later
        period = n if continuation == "periodic" else 2 * n
        images = math.ceil(6 * width / period) + 1
        i = torch.arange(n, dtype=torch.float64)
        shift = period * torch.arange(-images, images + 1, dtype=torch.float64)[:, None, None]

        def gaussian(distance: Tensor) -> Tensor:
            return torch.exp(-0.5 * ((distance - shift) / width) ** 2).sum(0)

        near, mirrored = gaussian(i[:, None] - i), gaussian(i[:, None] + i + 1)
        if continuation == "periodic":
            return near / near.sum(1, keepdim=True)
        total = (near + mirrored).sum(1, keepdim=True)
        if continuation == "even":
            return (near + mirrored) / total
        walls = torch.zeros(2, n, dtype=torch.float64)  # values at the two walls, by linear extrapolation
        walls[0, 0], walls[0, 1], walls[1, -1], walls[1, -2] = 1.5, -0.5, 1.5, -0.5
        place = ((i + 0.5) / n)[:, None]
        trend = (1 - place) * walls[0] + place * walls[1]
        return trend + (near - mirrored) / total @ (torch.eye(n, dtype=torch.float64) - trend)
