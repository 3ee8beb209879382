"""Transport of the fraction of water by face velocities, geometric and exactly conservative.

Weymouth and Yue, J. Comput. Phys. 229 (2010) 2853: one sweep per axis,

    f <- f - (F[k + 1] - F[k]) + c (s[k + 1] - s[k]),   s = u dt / h,   c = 1 where f > 1/2 before the first sweep,

with F the share of the swept strip that lies below the straight surface of the donor cell. ``c`` is the same in both
sweeps, so where the velocity has no divergence the c-terms cancel and the water in the box changes by what crosses
its sides alone, to round-off; and 0 <= f <= 1 holds to round-off while no more than half a cell enters or leaves any
cell in a step.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sciml.errors import ConfigError, SolverError, did_you_mean
from sciml.physics.boundary import sides
from sciml.physics.stencils import difference
from sciml.physics.vof.interface import cell_normals, mixed_cells, neighbourhoods
from sciml.physics.vof.line import area_below, line_constant

Faces = tuple[Tensor, Tensor]

LARGEST_COURANT_NUMBER = 0.5
_SLACK = 8  # roundings, for steps chosen to meet the bound exactly


def courant_number(faces: Faces, dt: Tensor, spacing: Tensor) -> Tensor:
    """The largest share of a cell's volume that enters or leaves it in ``dt``, ``(B,)``.

    Half of sum |u| dt / h over the four faces of a cell: as much enters as leaves where the velocity has no
    divergence. ``advect`` takes up to ``LARGEST_COURANT_NUMBER``; the number is proportional to ``dt``.
    """
    return _through(_swept(faces, dt, spacing)).flatten(1).amax(1)


def advect(
    fraction: Tensor,
    faces: Faces,
    dt: Tensor,
    spacing: Tensor,
    *,
    first: int,
    inflow: Mapping[str, Tensor | float] | None = None,
    fluid: Tensor | None = None,
) -> tuple[Tensor, Faces]:
    """The fraction of water ``dt`` later and the water that crossed each face.

    ``fraction (B, nx, ny)``: share of water in each cell, 0 in solids; ``faces``: velocities
    ``(B, nx + 1, ny), (B, nx, ny + 1)``, without divergence in open cells and 0 on the faces of solid ones;
    ``dt (B,)``; ``spacing (B, 2)``: cell sizes; ``first``: the axis swept first, to be alternated from step to step
    (then the splitting is second order); ``inflow``: fraction of what enters through a side (``x_low``, ``x_high``,
    ``y_low``, ``y_high``), a number or one per face ``(B, n)``, 0 where not given; ``fluid (B, nx, ny)`` bool: False
    in solid cells.

    Returns ``(fraction, (x, y))``, the latter the volume (per metre of depth) of water through every face, positive
    along the axis. In open cells ``fraction_new - fraction_old = -div(fluxes) / (h_x h_y)`` for velocities without
    divergence.

    Raises ``SolverError`` beyond the Courant number (``courant_number``) or for a velocity that is not finite;
    ``ConfigError`` for a wrong shape, side or axis, or a solid cell with moving faces.
    """
    _check_shapes(fraction, faces, dt, spacing, first, fluid)
    swept = _swept(faces, dt, spacing)
    through = _through(swept)
    _check_courant_number(through.flatten(1).amax(1))
    if fluid is not None:
        _check_solids(through, fluid)
    ends = _ends(inflow or {}, fraction)
    filled = fraction.round()
    volume = (spacing[:, 0] * spacing[:, 1]).to(fraction.dtype)[:, None, None]
    fluxes = [volume, volume]
    for axis in (first, 1 - first):
        s = swept[axis]
        crossed = _crossing(fraction, s, axis, ends[axis], fluid)
        # gain is exactly 0 in cells full of water
        gain = -difference(crossed, axis + 1)
        fraction = gain.addcmul_(filled, difference(s, axis + 1)).add_(fraction)
        fluxes[axis] = crossed.mul_(volume)
    return fraction, (fluxes[0], fluxes[1])


def _crossing(f: Tensor, s: Tensor, axis: int, ends: Faces, fluid: Tensor | None) -> Tensor:
    """The water through the faces along ``axis`` as a share of a cell, positive along the axis."""
    filled, cells = mixed_cells(f)
    # cells without a surface give what they are full of, water or air; the others are added below
    donors, n = torch.cat([ends[0], filled, ends[1]], axis + 1), s.shape[axis + 1]
    crossed = s.clamp(min=0) * donors.narrow(axis + 1, 0, n)
    crossed.addcmul_(s.clamp(max=0), donors.narrow(axis + 1, 1, n))
    if not len(cells):
        return crossed
    normal = cell_normals(neighbourhoods(f, cells, fluid))
    constant = line_constant(normal, f.take(cells))
    nx, ny = f.shape[-2:]
    low = cells + ny * (cells // (nx * ny)) if axis == 0 else cells + cells // ny
    high = low + (ny if axis == 0 else 1)
    # strips that leave through the high and through the low face
    widths = torch.stack([s.take(high), -s.take(low)]).clamp_(min=0)
    starts = torch.stack([constant - normal[axis] * (1 - widths[0]), constant])
    box = torch.ones(2, 2, len(cells), dtype=f.dtype, device=f.device)
    box[axis] = widths
    leaving = area_below(normal[:, None], starts, box)
    crossed.view(-1).index_add_(0, high, leaving[0]).index_add_(0, low, leaving[1], alpha=-1)
    return crossed


def _swept(faces: Faces, dt: Tensor, spacing: Tensor) -> Faces:
    """u dt / h on both families of faces."""
    rate = (dt[:, None] / spacing).to(faces[0].dtype)
    return faces[0].contiguous() * rate[:, 0, None, None], faces[1].contiguous() * rate[:, 1, None, None]


def _through(swept: Faces) -> Tensor:
    """What enters (and leaves) each cell as a share of its volume."""
    x, y = swept[0].abs(), swept[1].abs()
    return (x[:, :-1] + x[:, 1:]).add_(y[..., :-1]).add_(y[..., 1:]).mul_(0.5)


def _ends(inflow: Mapping[str, Tensor | float], f: Tensor) -> tuple[Faces, Faces]:
    """The fraction beyond both sides of both axes, ``(B, 1, ny)`` and ``(B, nx, 1)``."""
    names = sides(2)
    for name in inflow:
        if name not in names:
            raise ConfigError(f"Unknown side {name!r} in inflow{did_you_mean(name, names)}")
    batch, nx, ny = f.shape
    result = []
    for k, name in enumerate(names):
        shape = (batch, ny if k < 2 else nx)
        values = _inflow(name, inflow[name], shape, f) if name in inflow else f.new_zeros(())
        result.append(values.expand(shape).unsqueeze(1 if k < 2 else 2))
    return (result[0], result[1]), (result[2], result[3])


def _inflow(name: str, given: Tensor | float, shape: tuple[int, int], f: Tensor) -> Tensor:
    values = torch.as_tensor(given, dtype=f.dtype, device=f.device)
    if values.ndim and values.shape != shape:
        raise ConfigError(
            f"inflow of side {name!r} must be a number or {shape}, one per case and face; got {tuple(values.shape)}."
        )
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ConfigError(
            f"inflow of side {name!r} must be fractions of water between 0 and 1; got values from "
            f"{float(values.min()):.3g} to {float(values.max()):.3g}."
        )
    return values


def _check_shapes(
    fraction: Tensor, faces: Faces, dt: Tensor, spacing: Tensor, first: int, fluid: Tensor | None
) -> None:
    batch, nx, ny = fraction.shape
    expected = {
        "faces[0]": (faces[0], (batch, nx + 1, ny)),
        "faces[1]": (faces[1], (batch, nx, ny + 1)),
        "dt": (dt, (batch,)),
        "spacing": (spacing, (batch, 2)),
        "fluid": (fluid, (batch, nx, ny)),
    }
    for name, (given, shape) in expected.items():
        if given is not None and given.shape != shape:
            raise ConfigError(
                f"{name} must be {shape} for a fraction {tuple(fraction.shape)}; got {tuple(given.shape)}."
            )
    if faces[0].dtype != fraction.dtype or faces[1].dtype != fraction.dtype:
        raise ConfigError(
            f"faces must have the data type of the fraction, {fraction.dtype}; got {faces[0].dtype}, {faces[1].dtype}."
        )
    if fluid is not None and fluid.dtype != torch.bool:
        raise ConfigError(f"fluid must be a bool tensor (True in open cells); got {fluid.dtype}.")
    if first not in (0, 1):
        raise ConfigError(f"first must be 0 (x swept first) or 1 (y), alternating from step to step; got {first!r}.")


def _check_courant_number(number: Tensor) -> None:
    bad = ~(number <= LARGEST_COURANT_NUMBER + _SLACK * torch.finfo(number.dtype).eps)  # NaN is bad
    if bool(bad.any()):
        case = int(bad.nonzero()[0])
        raise SolverError(
            f"In case {case} {float(number[case]):.3g} of a cell's volume enters or leaves it in one step; the "
            f"advection of the fraction holds up to {LARGEST_COURANT_NUMBER}. Take smaller steps (lower cfl), or check "
            "the velocity if the number is not finite."
        )


def _check_solids(through: Tensor, fluid: Tensor) -> None:
    moving = through.masked_fill(fluid, 0.0)
    if bool(moving.any()):
        case, i, j = moving.nonzero()[0].tolist()
        raise ConfigError(
            f"Solid cell ({i}, {j}) of case {case} has a face with a velocity; set the velocity to 0 on all faces of "
            "solid cells."
        )
