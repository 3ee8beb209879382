"""Taylor-Hood elements on the mesh of one case, in units of the diameter and the mean speed.

The disc becomes a polygon of its own area: that of its points on the circle is too small by the square of their
distance, and the drag with it.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from sciml.errors import ConfigError
from sciml.physics.weak.channel_mesh import channel_mesh
from sciml.physics.weak.convection import Convection
from sciml.physics.weak.elements import Elements, gradient_matrices, mass_matrix, stiffness_matrix
from sciml.physics.weak.mesh import TriangleMesh
from sciml.solvers.flow_past_cylinder.cases import CylinderCases

EXACT = 4
"""Degree of the quadrature of the matrices: the product of two quadratic functions."""

LEAST_EDGES = 12
"""Edges of the polygon that stands for the disc, at least."""

WAKE = 1.5
"""Half the width of the strip behind the disc in which triangles have the size h, in diameters."""

MOST_TRIANGLES = 100_000
"""Triangles of a case, at most: far beyond what a time-dependent flow is affordable with."""


def disc_edge(reynolds: float) -> float:
    """0.1 diameters up to the Reynolds number 100, beyond that less as Re^-3/4: keeps the error of the drag below 1 %,
    where 0.1 would lose 4 % at Re 200."""
    return 0.1 * min(1.0, (100 / reynolds) ** 0.75)


def disc_mesh(cases: CylinderCases, case: int, h: float, h_disc: float) -> TriangleMesh:
    """The mesh of one case in diameters: edges of ``h_disc`` on the disc and ``h`` in the wake, less in a narrow gap.

    Raises ``ConfigError`` for sizes that do not resolve the disc, and a disc so small that its channel would need more
    than ``MOST_TRIANGLES``.
    """
    if not 0 < h_disc <= math.pi / LEAST_EDGES:
        raise ConfigError(
            f"h_disc is {h_disc} diameters; expected a positive number up to {math.pi / LEAST_EDGES:.3g}, "
            f"{LEAST_EDGES} edges around the disc"
        )
    if not h_disc <= h < float("inf"):
        raise ConfigError(f"h is {h} diameters; expected at least h_disc, {h_disc}")
    length, height = cases.scaled_lengths(case)
    h = max(h_disc, min(h, 0.6 * cases.gap(case)))
    fine = 2 * WAKE * length + 0.25 * (length * height)  # the strip has the size h, the rest twice that
    count = 2 * min(fine, length * height) / (math.sqrt(0.75) * h * h)
    if count > MOST_TRIANGLES:
        raise ConfigError(
            f"the radius of case {case}, {float(cases.radius[case]):.4g} m, is below what a mesh of its channel of "
            f"{cases.lengths[case].tolist()} m resolves: with h = {h:.3g} diameters it has {count:.2g} triangles, over "
            f"{MOST_TRIANGLES}; make the disc larger or the channel smaller, or raise h"
        )
    turn = 2 * math.pi / round(math.pi / h_disc)
    radius = 0.5 * math.sqrt(turn / math.sin(turn))
    centre = cases.scaled_centre(case)
    return channel_mesh(h, lengths=(length, height), centre=centre, radius=radius, h_disc=h_disc, wake=WAKE)


class Discretisation:
    """Matrices of a mesh.

    ``mass``, ``stiffness (N2, N2)`` of quadratic functions, ``laplacian (N1, N1)`` of linear ones; ``gradients``:
    int q dv/dx and int q dv/dy ``(N1, N2)``; ``pressure_mass (N1,)``: int q; the ``convection``; ``given_velocity
    (N2, 2)``: 6 y (H - y) / H^2 on the inflow of the ``height`` H, 0 at every other node.
    """

    def __init__(self, mesh: TriangleMesh, height: float) -> None:
        self.mesh, self.height = mesh, height
        quadratic, linear = Elements(mesh, 2, EXACT), Elements(mesh, 1, EXACT)
        self.n_nodes, self.n_vertices = quadratic.n_nodes, linear.n_nodes
        self.mass, self.stiffness = mass_matrix(quadratic), stiffness_matrix(quadratic)
        self.laplacian, self.gradients = stiffness_matrix(linear), gradient_matrices(linear, quadratic)
        self.pressure_mass = mass_matrix(linear).sum(1)
        self.convection = Convection(mesh.triangle_nodes(2), mesh.jacobians, self.n_nodes)
        inflow = self.boundary(["inflow"], 2)
        y = mesh.nodes(2)[inflow, 1].numpy()
        self.given_velocity = np.zeros((self.n_nodes, 2))
        self.given_velocity[inflow, 0] = 6 * y * (height - y) / height**2

    def boundary(self, names: list[str], degree: int) -> np.ndarray:
        """Numbers of the nodes on the named boundaries."""
        return self.mesh.boundary_nodes(names, degree).numpy()

    def others(self, names: list[str], degree: int) -> np.ndarray:
        """Numbers of all other nodes."""
        free = torch.ones(self.n_nodes if degree == 2 else self.n_vertices, dtype=torch.bool)
        free[self.mesh.boundary_nodes(names, degree)] = False
        return free.nonzero().flatten().numpy()
