"""Smoothing of node values on a triangulation: by diffusion, which knows of holes and walls."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.triangles.triangulation import Triangulation
from sciml.errors import ConfigError, DataError
from sciml.physics.weak.elements import Elements, stiffness_matrix
from sciml.physics.weak.sparse import DenseEnergy, SparseEnergy, energy_of

STEPS = 2
"""Implicit Euler steps that stand for the heat kernel; one alone has a peak and long tails."""


def smooth_nodes(values: Tensor, triangulation: Triangulation, width: float) -> Tensor:
    """Node values ``(B, C, N)`` diffused over the domain as by a Gaussian of standard deviation ``width``, metres.

    Two implicit Euler steps of the heat equation to the time width^2 / 2 by linear elements with lumped masses, no flux
    through the boundary: the integral (weights ``node_areas``) and constants stay as they are, and on a Delaunay mesh
    no value leaves the range of ``values``. Differentiable in them.

    Raises ``ConfigError`` for a width that is negative, ``DataError`` for values of a wrong shape.
    """
    check_values(values, triangulation)
    if not 0 <= width < float("inf"):
        raise ConfigError(f"the smoothing is {width} m; expected a length, 0 for none")
    if width == 0:
        return values
    key = ("smoothing", width, values.device, values.dtype)
    solver = triangulation.kept(key, lambda: _solver(triangulation, width, values))
    masses = triangulation.node_areas.to(values)
    flat = values.flatten(0, 1)
    for _ in range(STEPS):
        flat = solver.dual(flat * masses)
    return flat.reshape(values.shape)


def check_values(values: Tensor, triangulation: Triangulation) -> None:
    """``DataError`` unless ``values`` are ``(B, C, N)``, floating and finite."""
    if values.ndim != 3 or values.shape[2] != triangulation.n_nodes or not values.is_floating_point():
        raise DataError(
            f"the field has shape {tuple(values.shape)} and type {values.dtype}; expected floating numbers (batch, "
            f"channels, {triangulation.n_nodes}), one value a node of the triangulation"
        )
    finite = torch.isfinite(values).flatten(1).all(1)
    if not bool(finite.all()):
        sample = int((~finite).nonzero()[0])
        raise DataError(
            f"the field of sample {sample} has {int((~torch.isfinite(values[sample])).sum())} NaN or infinite values: "
            "no mesh can be made of it; look where they come from (a diverged solution?), or leave the sample out"
        )


def _solver(triangulation: Triangulation, width: float, like: Tensor) -> DenseEnergy | SparseEnergy:
    from scipy.sparse import diags_array  # here: only meshes of triangles need it

    stiffness = stiffness_matrix(Elements(triangulation.mesh, 1, 1))
    matrix = diags_array(triangulation.node_areas.numpy()) + width**2 / (2 * STEPS) * stiffness
    return energy_of(matrix.tocsr(), dtype=like.dtype, device=like.device)
