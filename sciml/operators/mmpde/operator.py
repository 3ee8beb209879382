"""MM-PDE on grids."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sciml.constraints.mesh_mover import Box
from sciml.errors import ConfigError
from sciml.operators import inner_operator as inner
from sciml.operators.base import Operator
from sciml.operators.layers.condition import Condition
from sciml.operators.mesh_mover.interpolation import CorrectedInterpolation
from sciml.operators.mmpde.branches import GraphBranches
from sciml.operators.mmpde.neighbours import GridNeighbours
from sciml.operators.mmpde.width import same_size
from sciml.operators.moving_mesh.grid import MovedGrid
from sciml.operators.moving_mesh.motion import Motion, box_of
from sciml.operators.moving_mesh.movers import Mover, name_of
from sciml.operators.stored import check_positive

CORRECTION = 32
"""Hidden width of the network that corrects the interpolation back."""


class MMPDE(Operator):
    """``G_1(u) + I^-1 G_2(I u)``: a graph operator on the grid and one on a mesh that moves with the field.

    After MM-PDE [Hu, Wang & Ma 2024, arXiv:2312.05583]. The nodes are the cells' centres; who sends messages to whom is
    fixed (``GridNeighbours``, ``MessageLayer``). Fields are sampled at the moved nodes (multilinear) and brought back
    by an interpolation with learned weights that stays exact for linear fields (``CorrectedInterpolation``). The skip
    from the present state is the surrogate's, which adds what the operator gives to it.

    Lengths are not known to an operator: the box is that of cubic cells.

    Args:
        hidden_channels: of the nodes, in each branch.
        n_layers: of messages, in each branch.
        reach: how far the neighbours of a cell are, in cells; of several, the layers take one after the other.
        neighbours: "corners" (3^dim - 1 of each cell) or "faces" (2 dim); unless given corners in 2D, faces in 3D.
        branches: "both"; or "fixed": the graph operator on the grid alone, as much wider as makes the number of
            weights the same as that of both (``same_size``).
        warp: whether the nodes of the second branch move; otherwise the same operator with the same weights, for
            comparison.
        mover, mover_options, moved_by, channel_names, frozen: of the mesh, as of ``MovingMesh``.
        temporal: frames that one call gives.
        coordinates: whether nodes are told where they lie; unless given, where the box is not periodic.
        dim: number of grid axes, 2 or 3.
        periodic: whether the box is periodic along every axis.

    Shapes: ``x (B, in_channels, *grid)``, ``parameters (B, n_parameters)``, ``time (B,)`` to
    ``(B, temporal * out_channels, *grid)``, frames first.

    Raises:
        ConfigError: an argument is out of range.
        DataError: an input has another shape, or a grid too small for a mesh.
        SolverError: the mover gave no mesh.
    """

    name = "mmpde"
    records_arguments = False
    dims: ClassVar[tuple[int, ...]] = (2, 3)

    @classmethod
    def options_for(cls, dim: int, periodic: bool) -> dict[str, Any]:
        """Its own arguments of these names."""
        return {"dim": dim, "periodic": periodic}

    @classmethod
    def options_for_names(
        cls, inputs: Sequence[str], outputs: Sequence[str], parameters: Sequence[str]
    ) -> dict[str, Any]:
        """The names of its input channels."""
        return {"channel_names": list(inputs)}

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden_channels: int = 48,
        n_layers: int = 5,
        reach: Sequence[int] = (1, 2, 4),
        neighbours: str | None = None,
        branches: str = "both",
        warp: bool = True,
        mover: str | Mover = "monge_ampere",
        mover_options: dict[str, Any] | None = None,
        moved_by: Sequence[str | int] | None = None,
        channel_names: Sequence[str] | None = None,
        frozen: bool = True,
        temporal: int = 1,
        coordinates: bool | None = None,
        dim: int = 2,
        periodic: bool = False,
        n_parameters: int = 0,
        time_conditioning: bool = False,
    ) -> None:
        super().__init__(
            in_channels, out_channels, dim=dim, n_parameters=n_parameters, time_conditioning=time_conditioning
        )
        reach = (reach,) if isinstance(reach, int) else tuple(reach)
        check_positive(self.name, hidden_channels=hidden_channels, n_layers=n_layers, temporal=temporal)
        check_positive(self.name, **{f"reach[{i}]": cells for i, cells in enumerate(reach)})
        if not reach:
            raise ConfigError("mmpde: reach is empty; expected how many cells away the neighbours are, e.g. [1, 2, 4]")
        self.temporal = temporal
        self.periodic = periodic
        self.reach = reach
        self.neighbours = ("corners" if dim == 2 else "faces") if neighbours is None else neighbours
        self.motion = Motion(
            self.name,
            mover if warp and branches == "both" else "none",
            mover_options if warp and branches == "both" else None,
            in_channels=in_channels,
            moved_by=moved_by,
            channel_names=channel_names,
            dim=dim,
            periodic=periodic,
            frozen=frozen,
        )
        GridNeighbours((4,) * dim, (periodic,) * dim, kind=self.neighbours, like=torch.zeros(()))  # checks the kind
        self.condition = Condition(n_parameters, time_conditioning)

        def graph(width: int, branches: str) -> nn.Module:
            return GraphBranches(
                in_channels,
                out_channels * temporal,
                dim=dim,
                hidden_channels=width,
                n_layers=n_layers,
                conditions=self.condition.features,
                coordinates=not periodic if coordinates is None else coordinates,
                branches=branches,
            )

        given_width = hidden_channels
        if branches == "fixed":
            hidden_channels = same_size(
                lambda width: graph(width, "fixed"),
                lambda: nn.ModuleList((graph(given_width, "both"), CorrectedInterpolation(CORRECTION, dim=dim))),
            )
        self.core = graph(hidden_channels, branches)
        self.correction = CorrectedInterpolation(CORRECTION, dim=dim) if branches == "both" else None
        self.config = inner.as_json(
            self.name,
            {
                "in_channels": in_channels,
                "out_channels": out_channels,
                "hidden_channels": given_width,
                "n_layers": n_layers,
                "reach": reach,
                "neighbours": neighbours,
                "branches": branches,
                "warp": warp,
                "mover": name_of(mover),
                "mover_options": mover_options,
                "moved_by": moved_by,
                "channel_names": channel_names,
                "frozen": frozen,
                "temporal": temporal,
                "coordinates": coordinates,
                "dim": dim,
                "periodic": periodic,
                "n_parameters": n_parameters,
                "time_conditioning": time_conditioning,
            },
        )

    def saved_config(self) -> dict[str, Any]:
        """The content of ``config.json``.

        Raises:
            ConfigError: the mover is a function of the user's own.
        """
        self.motion.check_saveable()
        return super().saved_config()

    def forward(self, x: Tensor, *, time: Tensor | None = None, parameters: Tensor | None = None) -> Tensor:
        self.check_input(x, parameters, time)
        cells = tuple(x.shape[2:])
        box = box_of(cells, self.periodic)
        grid = self.motion(x)
        if grid is None:
            precise = torch.promote_types(x.dtype, torch.float32)
            fixed, moved = box.centres(cells, dtype=precise, device=x.device).unsqueeze(0), None
        else:
            fixed, moved = grid.fixed, grid.moved
        transfer = None if self.correction is None else GridTransfer(grid, fixed, box, self.correction)
        connections = [self._neighbours(reach, box, x) for reach in self.reach]
        return self.core(x, fixed, moved, connections, transfer, self.condition(x, parameters, time))

    def _neighbours(self, reach: int, box: Box, x: Tensor) -> GridNeighbours:
        cells = tuple(x.shape[2:])
        return GridNeighbours(
            cells, box.periodic, reach=reach, kind=self.neighbours, spacing=box.spacing(cells), like=x
        )


class GridTransfer:
    """Fields between the fixed grid and the moved one, or the fixed one again where nothing moves."""

    def __init__(self, grid: MovedGrid | None, fixed: Tensor, box: Box, correction: CorrectedInterpolation) -> None:
        self.grid, self.fixed, self.box, self.correction = grid, fixed, box, correction

    def there(self, values: Tensor) -> Tensor:
        return values if self.grid is None else self.grid.there(values)

    def back(self, values: Tensor) -> Tensor:
        nodes, place = (self.fixed, indices(self.fixed)) if self.grid is None else (self.grid.moved, self.grid.place)
        with torch.autocast(values.device.type, enabled=False):  # weights that sum to 1, and positions
            return self.correction(values.to(nodes.dtype), nodes, self.fixed, self.box, place).to(values.dtype)


def indices(centres: Tensor) -> Tensor:
    """The index coordinates of the centres of a uniform grid ``(1, *n, d)``: their own numbers."""
    axes = [torch.arange(n, dtype=centres.dtype, device=centres.device) for n in centres.shape[1:-1]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).unsqueeze(0)
