"""Solid cells: the faces that touch them are at rest, and what that means for cell-centred velocities.

Faces at rest cut a line of cells into segments. A component u = M f along its own axis comes from faces that are zero
beside solid cells if u = 0 in these and, in a segment whose two ends are both prescribed, the alternating sum of u
vanishes, because marching f[k + 1] = 2 u[k] - f[k] from zero must arrive at zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.constraints.divergence_free.axis_modes import hides
from sciml.constraints.divergence_free.prescribed import Faces, Prescribed
from sciml.errors import ConfigError
from sciml.physics import Metric


def solid_faces(fluid: Tensor, metric: Metric) -> Tensor:
    """The stored faces of an axis that touch a cell ``(B, *grid)`` that is not fluid, bool."""
    dim, n = metric.dim, metric.n
    solid = ~fluid
    if metric.periodic:
        return solid | solid.roll(1, dim)
    inner = solid.narrow(dim, 0, n - 1) | solid.narrow(dim, 1, n - 1)
    return torch.cat([solid.narrow(dim, 0, 1), inner, solid.narrow(dim, n - 1, 1)], dim)


def rest_at_solid(faces: Faces, fluid: Tensor, metrics: tuple[Metric, ...]) -> Faces:
    """Stored faces with zero beside solid cells."""
    return tuple(u.masked_fill(solid_faces(fluid, m), 0.0) for u, m in zip(faces, metrics, strict=True))


def check_lines(prescribed: Prescribed) -> None:
    """Refuse masks that cell-centred velocities cannot tell apart.

    On an axis whose faces have a part that is not seen at the cells (periodic, or open at both ends) a line of cells
    must be all fluid or all solid. Raises ``ConfigError`` otherwise.
    """
    fluid = prescribed.fluid
    assert fluid is not None
    for k, (axis, ends) in enumerate(zip(prescribed.grid.axes, prescribed.open_ends, strict=True)):
        if not (axis.periodic or hides(axis, ends)):
            continue
        cut = fluid.any(k + 1) & ~fluid.all(k + 1)
        if bool(cut.any()):
            case = int(cut.nonzero()[0, 0])
            raise ConfigError(
                f"Obstacles of case {case} cut lines of cells along the {'xyz'[k]} axis, which is "
                f"{'periodic' if axis.periodic else 'an outlet at both ends'}; cell-centred velocities do not "
                "determine the faces there. Project face velocities (project_faces), or close one end of the axis."
            )


class Segments:
    """The part Q of cell-centred velocities that no faces at rest beside the solid can give (see the module)."""

    def __init__(self, prescribed: Prescribed) -> None:
        assert prescribed.fluid is not None
        check_lines(prescribed)
        self._fluid = prescribed.fluid
        self._parts = [self._segments(prescribed, axis) for axis in range(prescribed.grid.dim)]

    def outside(self, u: Tensor) -> Tensor:
        """Q u of ``u (B, dim, *grid)``, boundary values subtracted."""
        inside = []
        for i, (numbers, count, sign, share) in enumerate(self._parts):
            fluid = torch.where(self._fluid, u[:, i], 0.0)
            sums = fluid.new_zeros(count).index_add(0, numbers.flatten(), (sign * fluid).flatten())
            inside.append(fluid - share * sums[numbers])
        return u - torch.stack(inside, 1)

    def _segments(self, prescribed: Prescribed, axis: int) -> tuple[Tensor, int, Tensor, Tensor]:
        """Number of each cell's segment, their count, the alternating sign, and each cell's share of the sum."""
        metric, ends = prescribed.metrics[axis], prescribed.open_ends[axis]
        fluid = self._fluid.movedim(axis + 1, -1)
        n = metric.n
        start = fluid.clone()
        start[..., 1:] &= ~fluid[..., :-1]
        start[..., 0] = True  # a new line is a new segment, fluid or not
        numbers = start.flatten().cumsum(0).reshape(fluid.shape) - 1
        count = int(numbers.flatten()[-1]) + 1
        closed = torch.ones(count, dtype=torch.bool, device=fluid.device)
        if metric.periodic:
            closed[:] = False
        for is_open, cell in zip(ends, (0, n - 1), strict=True):
            if is_open:
                closed[numbers[..., cell][fluid[..., cell]]] = False
        sign = torch.ones(n, dtype=torch.float64, device=fluid.device)
        sign[1::2] = -1
        share = sign * metric.inverse_width.movedim(axis + 1, -1) * fluid
        weights = share.new_zeros(count).index_add(0, numbers.flatten(), (sign * share).flatten())
        used = closed & (weights > 0)
        share = share * torch.where(used, 1 / torch.where(used, weights, 1.0), 0.0)[numbers]
        sign = sign.reshape(-1, *(1,) * (self._fluid.ndim - 2 - axis))
        return numbers.movedim(-1, axis + 1), count, sign, share.movedim(-1, axis + 1)
