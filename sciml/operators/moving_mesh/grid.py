"""Fields between the fixed grid of an operator and its moved mesh."""

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.constraints.mesh_mover import Box, cell_volumes, centres_of, interpolate, locate, sample


class MovedGrid:
    """Cell centres of the uniform grid ``n`` of a box and of a moved mesh of ``m`` cells, and fields between the two.

    Positions keep the precision of the corners, single or double: in half precision they would be off by cells.

    Args:
        corners: of the moved mesh ``(B, *(m + 1), d)``; a batch of 1 serves every sample of the fields.
        box: that it fills.
        cells: ``n``; as many as the mesh has unless given.
    """

    def __init__(self, corners: Tensor, box: Box, cells: Sequence[int] | None = None) -> None:
        self.corners, self.box = corners, box
        self.cells = tuple(m - 1 for m in corners.shape[1:-1])
        self.fixed = self._uniform(self.cells if cells is None else cells)
        self.moved = centres_of(corners)

    @functools.cached_property
    def place(self) -> Tensor:
        """Where the fixed centres lie in the moved mesh, in its index coordinates ``(B, *n, d)``."""
        return locate(self.moved, self.fixed, self.box)

    def there(self, values: Tensor) -> Tensor:
        """``(B, C, *n)`` at the fixed centres, sampled at the moved ones: ``(B, C, *m)``."""
        return sample(values.to(self.moved.dtype), self.moved, self.box).to(values.dtype)

    def back(self, values: Tensor) -> Tensor:
        """``(B, C, *m)`` at the moved centres, interpolated to the fixed ones: ``(B, C, *n)``."""
        found = interpolate(values.to(self.moved.dtype), self.moved, self.fixed, self.box, self.place)
        return found.to(values.dtype)

    def channels(self) -> Tensor:
        """What an operator on the mesh is told of it ``(B, d + 1, *m)``: how far each centre has moved from that of
        the uniform mesh, over the lengths of the box, and the logarithm of the volume of its cell over that of a
        uniform one.
        """
        lengths = self.moved.new_tensor(self.box.lengths)
        moved = ((self.moved - self._uniform(self.cells)) / lengths).movedim(-1, 1)
        uniform = math.prod(self.box.spacing(self.cells))
        volume = (cell_volumes(self.corners) / uniform).clamp(min=1e-3).log()
        return torch.cat((moved, volume.unsqueeze(1)), 1)

    def _uniform(self, cells: Sequence[int]) -> Tensor:
        return self.box.centres(cells, dtype=self.corners.dtype, device=self.corners.device).unsqueeze(0)
