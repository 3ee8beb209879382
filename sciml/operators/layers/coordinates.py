"""Coordinates of cell centres as input channels."""

from collections.abc import Sequence

import torch
from torch import Tensor


def cell_coordinates(shape: Sequence[int], like: Tensor, extent: Sequence[float] | None = None) -> Tensor:
    """Coordinates of the cell centres, ``2 (i + 1/2) / extent - 1``, of shape ``(1, dim, *shape)``.

    They span (-1, 1) whatever the resolution. ``extent`` is the length of the domain in cells, ``shape``
    unless given; smaller than ``shape`` where cells were padded at the high end, which then lie beyond 1.
    """
    extent = shape if extent is None else extent
    axes = [
        (torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) * (2.0 / length) - 1.0
        for n, length in zip(shape, extent, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).unsqueeze(0)
