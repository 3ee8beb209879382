"""Huang's functional: how far a triangulation is from being uniform in the monitor, small where it is.

Huang, J. Comput. Phys. 174 (2001) 903; in the form of meshes, with its gradient, Huang and Kamenski, J. Comput. Phys.
301 (2015) 322. With J the derivative of the map from a moved triangle K back to its reference triangle, and the metric
M = m I of the monitor m, in the plane (d = 2):

    I = sum over K of |K| m (theta (|J|^2 / m)^p + (1 - 2 theta) d^p (det J / m)^p)

Its first part wants triangles of the shape of their references (alignment), its second equal masses m |K|. It grows
without bound as a triangle flattens, so descent never folds one (Huang and Kamenski, Math. Comp. 87 (2018) 1887).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.triangles.fans import fan_excess, fan_matrices
from sciml.constraints.mesh_mover.triangles.quality import determinant, edge_matrices, signed_areas
from sciml.constraints.mesh_mover.triangles.sampling import sample_triangles
from sciml.constraints.mesh_mover.triangles.triangulation import Triangulation
from sciml.errors import ConfigError

POWER = 1.5
"""p of the functional, as its authors recommend."""

ALIGNMENT = 0.1
"""theta by default. The authors recommend 1/3; less alignment follows the monitor more closely, which lowers the error
of interpolation and costs shape.
"""

Density = Tensor | Callable[[Tensor], Tensor]
"""A monitor: its values ``(B, N)`` at the nodes of the fixed mesh, or a function of points ``(B, P, 2) -> (B, P)``."""

REFERENCES = ("mesh", "equilateral")


def huang_functional(
    points: Tensor,
    triangulation: Triangulation,
    monitor: Density,
    *,
    reference: str = "mesh",
    alignment: float = ALIGNMENT,
) -> Tensor:
    """The functional ``(B,)`` of the nodes ``points (B, N, 2)``; infinite for invalid meshes.

    Divided by its value for the fixed mesh with m = 1: a mesh that is uniform in a monitor of mean 1 has about 1.
    ``reference``: the triangle that each shall look like in the metric of the monitor: ``mesh``, its own in the fixed
    mesh, so that a constant monitor moves nothing and a graded mesh stays graded, or ``equilateral``, one equilateral
    triangle for all. ``alignment``: theta, in (0, 1/2]: how much the shapes count against the masses. The monitor is
    taken at the centroids, from ``(B, N)`` linearly. The fans of circles (``fans.py``) count as triangles, so that
    their polygons stay close to them; invalid are meshes with a folded triangle and with neighbours on a circle further
    apart than that allows. Differentiable in points and monitor; the gradient of an invalid mesh is zero.

    Raises ``ConfigError`` for another reference and an alignment out of range, ``DataError`` as ``sample_triangles``.
    """
    if not 0 < alignment <= 0.5:
        raise ConfigError(f"the alignment is {alignment}; expected (0, 1/2]: both parts of the functional are needed")
    values = 0 * points.sum((1, 2)) + torch.inf
    with torch.no_grad():
        unfolded = (signed_areas(points, triangulation) > 0).all(1)
        valid = unfolded & (fan_excess(points, triangulation) < 1).all(1)
    if not bool(valid.any()):
        return values
    if isinstance(monitor, Tensor):
        own = monitor[valid] if len(monitor) > 1 else monitor
        density = density_at_centroids(points[valid], triangulation, own)
    else:
        density = density_at_centroids(points, triangulation, monitor)[valid]
    points = points[valid]
    matrices = edge_matrices(points, triangulation)
    references = reference_matrices(triangulation, reference, points)
    energies = _energies(matrices, determinant(matrices), density, references, alignment).sum(1)
    energies = energies + _fan_energies(points, triangulation, density, alignment).sum(1)
    return values.index_put((valid.nonzero().flatten(),), energies / _unit(triangulation, alignment))


def density_at_centroids(points: Tensor, triangulation: Triangulation, monitor: Density) -> Tensor:
    """The monitor ``(B, T)`` at the centroids of the triangles of ``points (B, N, 2)``."""
    centroids = points[:, triangulation.tables(points).triangles].mean(2)
    if not isinstance(monitor, Tensor):
        return monitor(centroids)
    own = torch.arange(triangulation.n_triangles, device=points.device).expand(len(points), -1)
    # between two nodes that have moved apart on a circle, the centroid of a triangle can lie in the hole
    return sample_triangles(monitor.unsqueeze(1), triangulation, None, centroids, start=own, clamp=True)[:, 0]


def reference_matrices(triangulation: Triangulation, reference: str, like: Tensor) -> Tensor:
    """Columns b - a and c - a of the reference triangle of each triangle ``(T, 2, 2)``."""
    if reference not in REFERENCES:
        raise ConfigError(f"the reference is {reference!r}; expected one of {', '.join(REFERENCES)}")
    if reference == "mesh":
        return triangulation.tables(like).edge_matrices
    side = (triangulation.area / triangulation.n_triangles * 4 / 3**0.5) ** 0.5
    matrix = like.new_tensor([[1.0, 0.5], [0.0, 0.75**0.5]]) * side
    return matrix.expand(triangulation.n_triangles, 2, 2)


def _energies(matrices: Tensor, doubled: Tensor, density: Tensor, references: Tensor, alignment: float) -> Tensor:
    """The functional ``(B, T)`` of each triangle; ``doubled``: the determinants of ``matrices (B, T, 2, 2)``."""
    # J = reference matrix times the inverse, whose adjugate is (d, -b; -c, a)
    (a, b), (c, d) = (row.unbind(-1) for row in matrices.unbind(-2))
    first, second = references.unbind(-1)
    columns = d.unsqueeze(-1) * first - c.unsqueeze(-1) * second, a.unsqueeze(-1) * second - b.unsqueeze(-1) * first
    square = sum(column.square().sum(-1) for column in columns) / doubled.square()
    ratio = determinant(references) / doubled
    bracket = alignment * (square / density) ** POWER + (1 - 2 * alignment) * (2 * ratio / density) ** POWER
    return doubled / 2 * density * bracket


def _unit(triangulation: Triangulation, alignment: float) -> float:
    """The functional of the fixed mesh for m = 1, with its own triangles as references."""
    holes = determinant(fan_matrices(triangulation.points.unsqueeze(0), triangulation)).sum() / 2
    return (triangulation.area + float(holes)) * (1 - alignment) * 2**POWER


def _fan_energies(points: Tensor, triangulation: Triangulation, density: Tensor, alignment: float) -> Tensor:
    """The functional ``(B, F)`` of the fans in circles, without bound towards the limit of their angles."""
    tables = triangulation.tables(points)
    fixed = fan_matrices(tables.points.unsqueeze(0), triangulation)
    now = fan_matrices(points, triangulation)
    # a fan is as long as it was: it is in proportion to its edge, whose density is the root of that of an area
    root = density[:, tables.fan_triangles].sqrt()
    excess = fan_excess(points, triangulation)
    return _energies(now, determinant(now), root, fixed[0], alignment) / (1 - excess.square())
