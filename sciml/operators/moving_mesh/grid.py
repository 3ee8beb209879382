"""Fields between the fixed grid of an operator and its moved mesh."""

import functools
import math

import torch
from torch import Tensor

from sciml.constraints.mesh_mover import Box, cell_volumes, centres_of, interpolate, locate, sample


class MovedGrid:
    """Cell centres of the uniform grid of a box and of a moved mesh of as many cells, and fields between the two.

    Positions keep the precision of the corners, single or double: in half precision they would be off by cells.

    Args:
        corners: of the moved mesh ``(B, *(n + 1), d)``.
        box: that it fills.
    """

    def __init__(self, corners: Tensor, box: Box) -> None:
        self.corners, self.box = corners, box
        self.cells = tuple(n - 1 for n in corners.shape[1:-1])
        self.fixed = box.centres(self.cells, dtype=corners.dtype, device=corners.device).unsqueeze(0)
        self.moved = centres_of(corners)

    @functools.cached_property
    def place(self) -> Tensor:
        """Where the fixed centres lie in the moved mesh, in its index coordinates ``(B, *n, d)``."""
        return locate(self.moved, self.fixed, self.box)

    def there(self, values: Tensor) -> Tensor:
        """``(B, C, *n)`` at the fixed centres, sampled at the moved ones."""
        return sample(values.to(self.moved.dtype), self.moved, self.box).to(values.dtype)

    def back(self, values: Tensor) -> Tensor:
        """``(B, C, *n)`` at the moved centres, interpolated to the fixed ones."""
        found = interpolate(values.to(self.moved.dtype), self.moved, self.fixed, self.box, self.place)
        return found.to(values.dtype)

    def channels(self) -> Tensor:
        """What an operator on the mesh is told of it ``(B, d + 1, *n)``: how far each centre has moved, over the
        lengths of the box, and the logarithm of the volume of its cell over that of a uniform one.
        """
        lengths = self.moved.new_tensor(self.box.lengths)
        moved = ((self.moved - self.fixed) / lengths).movedim(-1, 1)
        uniform = math.prod(self.box.spacing(self.cells))
        volume = (cell_volumes(self.corners) / uniform).clamp(min=1e-3).log()
        return torch.cat((moved, volume.unsqueeze(1)), 1)
