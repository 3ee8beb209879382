"""The mesh of an operator: which channels move it, what moves it, and where the field lies on it."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

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
        frozen: no gradient reaches the mover, nor the input through the mesh; a mover's weights are then none of the
            operator's.

    Raises:
        ConfigError: an argument is out of range.
        DataError: a grid too small for a mesh.
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
    ) -> None:
        super().__init__()
        if dim not in (2, 3):
            raise ConfigError(f"{owner}: the grid has {dim} axes; meshes are moved in 2D and 3D")
        self.owner = owner
        self.name = name_of(mover)
        self.channels = moving_channels(owner, moved_by, channel_names, in_channels)
        self.periodic = periodic
        self.frozen = frozen
        made = make_mover(owner, mover, mover_options or {})
        self.moves = made is not None
        self.trained = made if isinstance(made, nn.Module) and not frozen else None
        self._held = (made,)  # in a tuple, so that its weights stay its own

    def forward(self, x: Tensor) -> MovedGrid | None:
        (mover,) = self._held
        if mover is None:
            return None
        box = box_of(tuple(x.shape[2:]), self.periodic)
        corners = move(mover, self.name, x[:, self.channels], box, frozen=self.frozen)
        return MovedGrid(corners, box)

    def check_saveable(self) -> None:
        """Raises ``ConfigError`` where the mover is a function of the user's own."""
        (mover,) = self._held
        if mover is not None and self.name not in MOVERS:
            raise ConfigError(
                f"{self.owner}: the mover is {self.name}, which from_pretrained could not find again; save the "
                "state_dict() and build the operator anew, or use a mover by name"
            )


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
