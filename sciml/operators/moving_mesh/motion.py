"""The mesh of an operator: which channels move it, what moves it, and where the field lies on it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.constraints.mesh_mover import Box
from sciml.errors import ConfigError, DataError
from sciml.operators.moving_mesh.channels import moving_channels
from sciml.operators.moving_mesh.grid import MovedGrid
from sciml.operators.moving_mesh.movers import MOVERS, Mover, make_mover, move, name_of


class Motion(nn.Module):
    """From the input of an operator ``(B, in_channels, *n)`` to the mesh that it moves; None where meshes stay.

    Args:
        owner: name of the operator, for messages.
        mover, mover_options: see ``make_mover``.
        moved_by, channel_names, in_channels: see ``moving_channels``.
        dim, periodic: of the box.
        coarsen: the mesh has ``n // coarsen`` cells; its mover is given the means over their blocks of the grid. A
            coarser mesh that stays is a mesh too, the uniform one.
        frozen: no gradient reaches the mover, nor the input through the mesh; a mover's weights are then none of the
            operator's.

    Raises:
        ConfigError: an argument is out of range.
        DataError: a grid too small for a mesh, or not divisible.
        SolverError: the mover gave no mesh.
    """

    def __init__(
        self,
        owner: str,
        mover: str | Mover,
        mover_options: Mapping[str, Any] | None,
        *,
        in_channels: int,
        moved_by: Sequence[str | int] | None,
        channel_names: Sequence[str] | None,
        dim: int,
        periodic: bool,
        frozen: bool,
        coarsen: int = 1,
    ) -> None:
        super().__init__()
        if dim not in (2, 3):
            raise ConfigError(f"{owner}: the grid has {dim} axes; meshes are moved in 2D and 3D")
        self.owner = owner
        self.name = name_of(mover)
        self.channels = moving_channels(owner, moved_by, channel_names, in_channels)
        self.periodic = periodic
        self.frozen = frozen
        self.coarsen = coarsen
        self.average = (functional.avg_pool2d, functional.avg_pool3d)[dim - 2]
        made = make_mover(owner, mover, mover_options or {})
        self.moves = made is not None
        self.trained = made if isinstance(made, nn.Module) and not frozen else None
        self._held = (made,)  # in a tuple, so that its weights stay its own

    def forward(self, x: Tensor) -> MovedGrid | None:
        (mover,) = self._held
        if mover is None and self.coarsen == 1:
            return None
        cells = tuple(x.shape[2:])
        mesh = coarser(self.owner, cells, self.coarsen)
        box = box_of(mesh, self.periodic)
        if mover is None:
            precise = torch.promote_types(x.dtype, torch.float32)
            return MovedGrid(box.corners(mesh, dtype=precise, device=x.device).unsqueeze(0), box, cells)
        field = x[:, self.channels]
        if self.coarsen > 1:
            field = self.average(field, self.coarsen)
        return MovedGrid(move(mover, self.name, field, box, frozen=self.frozen), box, cells)

    def check_saveable(self) -> None:
        """Raises ``ConfigError`` where the mover is a function of the user's own."""
        (mover,) = self._held
        if mover is not None and self.name not in MOVERS:
            raise ConfigError(
                f"{self.owner}: the mover is {self.name}, which from_pretrained could not find again; save the "
                "state_dict() and build the operator anew, or use a mover by name"
            )


def coarser(owner: str, cells: tuple[int, ...], factor: int) -> tuple[int, ...]:
    """Cells of a mesh ``factor`` times coarser along each axis than a grid.

    Raises:
        DataError: the grid is not divisible, or the mesh would be too small.
    """
    if factor > 1 and (any(n % factor for n in cells) or min(cells) < 3 * factor):
        raise DataError(
            f"{owner}: a grid of {' x '.join(map(str, cells))} cells does not fit coarsen={factor}; expected a "
            f"multiple of {factor} along each axis, {3 * factor} or more; choose another coarsen, or data of another "
            "resolution"
        )
    return tuple(n // factor for n in cells)


def box_of(cells: tuple[int, ...], periodic: bool) -> Box:
    """The box of an operator, which knows no lengths: that of cubic cells, the longest side 1.

    Raises:
        DataError: a grid too small for a mesh.
    """
    if min(cells) < 3:
        raise DataError(
            f"a mesh of {' x '.join(map(str, cells))} cells cannot be moved; expected 3 or more along each axis"
        )
    return Box(tuple(n / max(cells) for n in cells), (periodic,) * len(cells))
