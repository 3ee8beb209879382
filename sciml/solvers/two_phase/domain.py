"""The box of every case on its grid: which cells are fluid, which faces move, what stands outside."""

from __future__ import annotations

from dataclasses import dataclass, replace

import scipy.ndimage
import torch
from torch import Tensor

from sciml.errors import ConfigError
from sciml.solvers.two_phase.sides import SIDES, Inlet, Open, Side, Wall

Faces = tuple[Tensor, Tensor]
"""Values on the x faces ``(B, nx + 1, ny)`` and the y faces ``(B, nx, ny + 1)``."""


@dataclass(frozen=True, eq=False)
class Domain:
    """``spacing (B, 2)`` metres; ``sides``: what each side is; ``fluid (B, nx, ny)``: 1.0 in fluid, 0.0 in solid cells.
    ``free``: 1.0 on the faces whose velocity the flow decides, 0.0 where it is ``given`` (walls, inlets, solids).
    ``shear (B, nx + 1, ny + 1)`` twice: at the corners, by what to multiply the differences du/dy and dv/dx of the
    stored faces, so that 2 stands for a wall half a cell away and 0 for one along which the fluid slides.
    ``links``: 1.0 between two neighbours across (y for the x faces) that both move or both do not, ``(B, nx + 1, ny -
    1)`` and ``(B, nx - 1, ny + 1)``."""

    spacing: Tensor
    sides: dict[str, Side]
    fluid: Tensor
    free: Faces
    given: Faces
    shear: Faces
    links: Faces

    @property
    def cells(self) -> tuple[int, int]:
        return self.fluid.shape[1], self.fluid.shape[2]

    @property
    def open_sides(self) -> tuple[str, ...]:
        return tuple(name for name, side in self.sides.items() if isinstance(side, Open))

    def size(self, axis: int) -> Tensor:
        """The spacing along an axis ``(B, 1, 1)``."""
        return self.spacing[:, axis, None, None]

    def is_open(self, axis: int) -> tuple[bool, bool]:
        """Whether the low and the high side of an axis are open."""
        return isinstance(self.sides[SIDES[2 * axis]], Open), isinstance(self.sides[SIDES[2 * axis + 1]], Open)

    def inflow(self) -> dict[str, Tensor | float]:
        """Per side, the water fraction of what enters: air through open sides."""
        return {name: side.fraction if isinstance(side, Inlet) else 0.0 for name, side in self.sides.items()}

    def select(self, cases: Tensor) -> Domain:
        """The domain of some cases only."""
        sides = {
            name: replace(side, velocity=side.velocity[cases], fraction=side.fraction[cases])
            if isinstance(side, Inlet)
            else side
            for name, side in self.sides.items()
        }
        pairs = (tuple(values[cases] for values in pair) for pair in (self.free, self.given, self.shear, self.links))
        return Domain(self.spacing[cases], sides, self.fluid[cases], *pairs)


def make_domain(spacing: Tensor, sides: dict[str, Side], solid: Tensor, *, solid_slip: bool) -> Domain:
    """``solid (B, nx, ny)`` bool. Raises ``ConfigError``: a solid in front of an inlet, a case without fluid, fluid
    that a solid cuts in two, inlets that nothing balances."""
    fluid = (~solid).to(spacing)
    free, given, shear, links = [], [], [], []
    for axis in range(2):
        cells = fluid if axis == 0 else fluid.mT
        open_faces = _free(cells, sides, axis)
        fixed = _given(cells, sides, axis)
        link = _links(open_faces, fixed)
        corner = _shear(link, sides, 1 - axis, 0.0 if solid_slip else 2.0)
        for values, pair in ((open_faces, free), (fixed, given), (corner, shear), (link, links)):
            pair.append(values if axis == 0 else values.mT.contiguous())
    domain = Domain(spacing, sides, fluid, *(tuple(pair) for pair in (free, given, shear, links)))
    _check(domain)
    return domain


def _free(fluid: Tensor, sides: dict[str, Side], axis: int) -> Tensor:
    """1.0 on free faces of the leading axis: between two fluid cells, or between one and an open side."""
    free = fluid.new_zeros(fluid.shape[0], fluid.shape[1] + 1, fluid.shape[2])
    free[:, 1:-1] = fluid[:, 1:] * fluid[:, :-1]
    for end, cell in ((0, 0), (1, -1)):
        if isinstance(sides[SIDES[2 * axis + end]], Open):
            free[:, -end] = fluid[:, cell]
    return free


def _given(fluid: Tensor, sides: dict[str, Side], axis: int) -> Tensor:
    """The velocity of inlet faces of the leading axis, along that axis."""
    given = fluid.new_zeros(fluid.shape[0], fluid.shape[1] + 1, fluid.shape[2])
    for end in (0, 1):
        name = SIDES[2 * axis + end]
        side = sides[name]
        if isinstance(side, Inlet):
            given[:, -end] = side.velocity if end == 0 else -side.velocity
            blocked = ((side.velocity > 0) & (fluid[:, -end] == 0)).any(1).nonzero()
            if len(blocked):
                raise ConfigError(
                    f"The solid of case {int(blocked[0])} stands in front of the inlet {name}; move it at least one "
                    "cell away."
                )
    return given


def _links(free: Tensor, given: Tensor) -> Tensor:
    """``(B, n + 1, m - 1)``: 1.0 where a face of the leading axis and its neighbour both move or both do not."""
    moving = (free > 0) | (given != 0)
    return (moving[..., 1:] == moving[..., :-1]).to(free)


def _shear(links: Tensor, sides: dict[str, Side], axis: int, solid: float) -> Tensor:
    """Factors ``(B, n + 1, m + 1)`` of the differences of a velocity ``(B, n + 1, m)`` across, which is along ``axis``
    of the box: 1 between two moving faces; a wall or solid half a cell from the last moving face: 2 (the velocity is 0
    there) or 0 (slip); open sides: 0."""
    factors = torch.nn.functional.pad(torch.where(links > 0, 1.0, solid), (1, 1))
    for end in (0, 1):
        side = sides[SIDES[2 * axis + end]]
        sticks = isinstance(side, Inlet | Wall) and not side.slip
        factors[..., -end] = 2.0 if sticks else 0.0
        if isinstance(side, Inlet):  # the velocity along a mouth is 0, also in a wall along which fluid slides
            mouth = torch.nn.functional.pad(side.velocity, (1, 1)) > 0
            factors[..., -end] = torch.where(mouth[:, 1:] | mouth[:, :-1], 2.0, factors[..., -end])
    return factors


def _check(domain: Domain) -> None:
    for case, fluid in enumerate(domain.fluid.bool().cpu().numpy()):
        pieces = scipy.ndimage.label(fluid)[1]
        if pieces != 1:
            reason = "leaves no fluid" if pieces == 0 else f"cuts the fluid into {pieces} separate pieces"
            raise ConfigError(
                f"The solid of case {case} {reason}; a barrier must be lower than the box and leave the fluid in one "
                "piece."
            )
    if not domain.open_sides and any(isinstance(side, Inlet) for side in domain.sides.values()):
        raise ConfigError("Fluid enters through an inlet and no side is Open(): it cannot leave again.")
