"""Fields given at scattered points, read at other places by moving least squares, exact for linear fields."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from sciml.constraints.mesh_mover import Box
from sciml.errors import DataError
from sciml.operators.particles.reproducing_weights import kernel_weights, reproducing_weights
from sciml.points import nearest

NEIGHBOURS = {2: 12, 3: 24}
WIDTH = 0.7
"""Of the kernel, in units of the distance of the farthest neighbour."""
REACH = 3.0
"""Standard deviations of the neighbours beyond which nothing is extrapolated linearly."""


class CloudReader:
    """What to take from which point for each target; found once for all fields on the same points.

    Args:
        points: of the cloud ``(N, d)``, metres, in the box.
        targets: ``(*any, d)``.

    Raises ``DataError`` for points or targets of another dimension, outside the box, or too few.
    """

    def __init__(self, points: Tensor, targets: Tensor, box: Box) -> None:
        check_cloud(points, box)
        if targets.shape[-1] != box.dim:
            raise DataError(f"targets have the shape {tuple(targets.shape)}; expected (*any, {box.dim})")
        self.n_points, self.shape = len(points), targets.shape[:-1]
        flat = targets.reshape(-1, box.dim).to(points)
        images, number = _with_images(points, box)
        k = min(NEIGHBOURS[box.dim], len(images))
        index, _ = nearest(images, flat, k)
        offsets = (images[index] - flat.unsqueeze(1)).permute(2, 1, 0)
        kernel, scale = kernel_weights(offsets, torch.ones_like(offsets[0], dtype=torch.bool), WIDTH)
        weights, _ = reproducing_weights(offsets / scale, kernel, REACH)
        self.weights, self.index = weights.T.contiguous(), number[index]

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, C, N)`` at the targets: ``(B, C, *any)``."""
        if values.ndim != 3 or values.shape[2] != self.n_points:
            raise DataError(f"values have the shape {tuple(values.shape)}; expected (B, C, {self.n_points})")
        if not values.isfinite().all():
            raise DataError("the field at the points of the cloud has NaN or infinite values; remove those points")
        read = (values[:, :, self.index] * self.weights.to(values)).sum(-1)
        return read.unflatten(2, self.shape)


def check_cloud(points: Tensor, box: Box) -> None:
    """Raise ``DataError`` unless they are enough points of the box."""
    if points.ndim != 2 or points.shape[1] != box.dim:
        raise DataError(f"the points of a cloud have the shape (N, {box.dim}), not {tuple(points.shape)}")
    if len(points) < NEIGHBOURS[box.dim]:
        raise DataError(f"{len(points)} points are too few for a field; expected at least {NEIGHBOURS[box.dim]}")
    low, high = points.amin(0), points.amax(0)
    slack = 1e-6 * max(box.lengths)
    if not points.isfinite().all() or bool((low < -slack).any() or (high > high.new_tensor(box.lengths) + slack).any()):
        raise DataError(
            f"points reach from {low.tolist()} to {high.tolist()}, beyond the box [0, L] with L = {box.lengths}: give "
            "the box that holds them, and positions from its low corner. A domain that is no box (with an obstacle, "
            "say) needs a triangulation: sciml.operators.mesh_mover.TriangleMover"
        )


def cloud_grid(n_points: int, box: Box) -> tuple[int, ...]:
    """Cells of the box that are about as many as the points, as square as possible."""
    volume = 1.0
    for length in box.lengths:
        volume *= length
    width = (volume / n_points) ** (1 / box.dim)
    return tuple(max(8, round(length / width)) for length in box.lengths)


def _with_images(points: Tensor, box: Box) -> tuple[Tensor, Tensor]:
    """The points and their images beyond periodic sides, and whose image each is."""
    shifts = product(*[(-1, 0, 1) if periodic else (0,) for periodic in box.periodic])
    lengths = points.new_tensor(box.lengths)
    images = [points + lengths * points.new_tensor(shift) for shift in shifts]
    return torch.cat(images), torch.arange(len(points), device=points.device).repeat(len(images))
