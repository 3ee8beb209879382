"""Projection of face velocities onto those without divergence: Chorin's projection, the solver's own."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sciml.constraints.divergence_free.intersection import Pair, multiplier
from sciml.constraints.divergence_free.obstacles import rest_at_solid, solid_faces
from sciml.constraints.divergence_free.prescribed import Faces, Prescribed
from sciml.errors import ConfigError
from sciml.physics import Axis, Boundaries, Eigenbasis, FastDiagonalisation, Grid, divergence, eigenbasis
from sciml.physics.mass_balance import boundary_flux, face_areas
from sciml.physics.stencils import padded, subtract_gradient, unknown_of_stored

TOLERANCES = {torch.float64: 1e-14, torch.float32: 1e-9}
"""Of the iteration beside obstacles, relative to the velocity, by its dtype; the iteration itself is in float64."""


def project_faces(faces: Faces, grid: Grid, boundaries: Boundaries, *, fluid: Tensor | None = None) -> Faces:
    """The nearest stored faces with zero discrete divergence ``physics.divergence`` at every cell and the prescribed
    normal velocities.

    ``faces``: per component ``(B, *grid.face_shape(i))``; ``fluid (1 or B, *grid)`` bool: faces that touch a cell
    that is not fluid are zero. Faces of an outlet keep what is given but for one uniform velocity that balances the
    flux through the sides, as in the solver. Nearest in the sum of squares times the volume around each face (what
    the solver's gradient is orthogonal in), other faces than those of the boundary. Works on stretched axes and is
    differentiable any number of times in the faces and the boundary values.

    Computed in float64 and returned in the dtype of the faces. Raises ``ConfigError`` for wrong shapes or prescribed
    velocities whose flux does not balance, ``SolverError`` if the iteration beside obstacles does not converge.
    """
    expected = [(grid.batch, *grid.face_shape(i)) for i in range(grid.dim)]
    given = [tuple(u.shape) for u in faces]
    if given != expected:
        raise ConfigError(f"Face velocities have the shapes {given}; the grid expects {expected}.")
    prescribed = Prescribed(grid, boundaries, faces[0].device, fluid)
    prescribed.check_balance()
    projection = FaceProjection(prescribed, TOLERANCES.get(faces[0].dtype, 1e-9))
    result = projection.project(tuple(u.double() for u in faces))
    return tuple(u.to(faces[0].dtype) for u in result)


class FaceProjection:
    """The projection of ``project_faces`` for one grid and its boundary values."""

    def __init__(self, prescribed: Prescribed, tolerance: float) -> None:
        self.prescribed, self.tolerance = prescribed, tolerance
        grid, device = prescribed.grid, prescribed.device
        bases = tuple(_basis(axis.faces.numpy().tobytes(), axis.periodic) for axis in grid.axes)
        self._poisson = FastDiagonalisation(bases, grid.lengths, dtype=torch.float64, device=device)

    def project(self, faces: Faces) -> Faces:
        """In and out in float64."""
        prescribed, fluid = self.prescribed, self.prescribed.fluid
        faces = prescribed.impose(faces)
        if fluid is not None:
            faces = rest_at_solid(faces, fluid, prescribed.metrics)
        faces = self._project(self._balance(faces))
        if fluid is None:
            return faces
        # a second pass: the iteration stalls at what is left of the divergence
        return self._beside_obstacles(self._project(faces), fluid)

    def _project(self, faces: Faces) -> Faces:
        metrics = self.prescribed.metrics
        return subtract_gradient(faces, self._poisson.solve_poisson(divergence(faces, metrics)), metrics)

    def _balance(self, faces: Faces) -> Faces:
        """One outward velocity added to the outlet faces beside fluid, so that the net flux is zero."""
        prescribed = self.prescribed
        if not prescribed.values.outlets:
            return faces
        ends = []
        for axis, end in prescribed.values.outlets:
            metric = prescribed.metrics[axis]
            area = face_areas(prescribed.metrics, axis).expand(
                prescribed.grid.batch, *(1 if k == axis else n for k, n in enumerate(prescribed.grid.shape))
            )
            if prescribed.fluid is not None:
                area = area * prescribed.fluid.narrow(metric.dim, end * (metric.n - 1), 1)
            ends.append((axis, end, area))
        total = sum(area.flatten(1).sum(1) for _, _, area in ends)
        net, scale = boundary_flux(faces, prescribed.metrics)
        if bool(((total == 0) & (net.abs() > 1e-12 * scale)).any()):
            raise ConfigError("Obstacles close every outlet of a case and the prescribed velocities do not balance.")
        speed = (net / torch.where(total == 0, 1.0, total)).reshape(-1, *(1,) * prescribed.grid.dim)
        result = list(faces)
        for axis, end, area in ends:
            dim, n = axis + 1, prescribed.metrics[axis].n
            outward = torch.where(area > 0, speed, 0.0) * (1 if end else -1)
            parts = [result[axis].narrow(dim, k, m) for k, m in ((0, 1), (1, n - 1), (n, 1))]
            parts[-1 if end else 0] = parts[-1 if end else 0] + outward
            result[axis] = torch.cat(parts, dim)
        return tuple(result)

    # -- obstacles: the unknown faces of a case as one row

    def _beside_obstacles(self, faces: Faces, fluid: Tensor) -> Faces:
        metrics = self.prescribed.metrics
        solid = self._pack(tuple(solid_faces(fluid, m) for m in metrics))
        pair = Pair(
            outside=lambda row: torch.where(solid, row, 0.0),
            onto=lambda row: self._pack(self._project(self._unpack(row))),
            weight=self._weight(),
            tolerance=self.tolerance,
        )
        change = self._unpack(pair.onto(multiplier(self._pack(faces), pair)))
        return rest_at_solid(tuple(u - c for u, c in zip(faces, change, strict=True)), fluid, metrics)

    def _pack(self, faces: Faces) -> Tensor:
        metrics = self.prescribed.metrics
        return torch.cat([unknown_of_stored(u, m).flatten(1) for u, m in zip(faces, metrics, strict=True)], 1)

    def _unpack(self, row: Tensor) -> Faces:
        shapes = self._unknown_shapes()
        parts = row.split([shape.numel() for shape in shapes], 1)
        metrics = self.prescribed.metrics
        return tuple(padded(p.reshape(-1, *s), m) for p, s, m in zip(parts, shapes, metrics, strict=True))

    def _unknown_shapes(self) -> list[torch.Size]:
        axes = self.prescribed.grid.axes
        return [torch.Size(a.n - (k == i and not a.periodic) for k, a in enumerate(axes)) for i in range(len(axes))]

    def _weight(self) -> Tensor:
        """Volume around each unknown face."""
        metrics, parts = self.prescribed.metrics, []
        for i, shape in enumerate(self._unknown_shapes()):
            volume = face_areas(metrics, i) / metrics[i].inverse_spacing
            parts.append(volume.expand(self.prescribed.grid.batch, *shape).flatten(1))
        return torch.cat(parts, 1)


@lru_cache(maxsize=64)
def _basis(faces: bytes, periodic: bool) -> Eigenbasis:
    """Of the Laplacian of the pressure along one axis; computed once."""
    end = "periodic" if periodic else "neumann"
    with torch.inference_mode(False), torch.no_grad():  # a kept inference tensor could not be trained with later
        return eigenbasis(Axis(torch.from_numpy(np.frombuffer(faces).copy()), periodic), "cell", end, end)
