"""The wrapper: sample, run, bring back."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.operators import inner_operator as inner
from sciml.operators.base import Operator
from sciml.operators.inner_operator import Factory
from sciml.operators.moving_mesh.motion import Motion
from sciml.operators.moving_mesh.movers import Mover
from sciml.operators.stored import ParameterGroup, build, check_positive

_MOVES = "it moves a mesh itself, and one mesh cannot be moved on another"
REFUSED = {"moving_mesh": _MOVES, "mmpde": _MOVES}
"""Operators that cannot be inside, and why."""


class MovingMesh(Operator):
    """Any grid operator on a mesh that moves with its input: ``I^-1 N(I u, x - xi, log |det dx/dxi|)``.

    The input is sampled at the centres of the moved cells (I, multilinear), which lie close where the field needs them;
    there the operator N sees a uniform grid of cells, on which fronts are wider. It is told how far each cell has moved
    and how large it is (``dim + 1`` channels more). What it gives is interpolated back to the fixed grid (I^-1, exact
    for linear fields). A surrogate adds that to the state itself: what is interpolated is an increment.

    With ``coarsen`` the moved mesh has fewer cells than the grid, and the operator costs ``coarsen ** dim`` times less.
    Only then can the moved nodes see what as many uniform ones would miss.

    Lengths are not known to an operator: the box is that of cubic cells.

    Args:
        operator: name or class of a grid operator, or ``function(in_channels, out_channels, **options)`` that makes a
            module ``(B, in_channels, *grid)`` to ``(B, out_channels, *grid)``. One with such a function cannot be
            saved.
        mover: a name in ``MOVERS``, or ``function(u (B, C, *n), box) -> corners (B, *(n + 1), d)``, with which it
            cannot be saved; "none": the mesh stays, for comparison, with the same number of nodes and weights.
        mover_options: of a mover by name.
        moved_by: names or numbers of the input channels that move the mesh; all of the newest frame unless given.
        channel_names: of the input channels.
        temporal: frames that one call gives.
        dim: number of grid axes, 2 or 3.
        periodic: whether the box is periodic along every axis.
        options: arguments of the operator, before its own ``options_for(dim, periodic)``.
        frozen: the mesh is taken as given: no gradient reaches the mover, nor the input through the mesh. Otherwise
            the weights of a mover that is a module are trained too.
        coarsen: how many cells of the grid one of the mesh has along each axis; the mover is given means over blocks.

    Shapes: ``x (B, in_channels, *grid)``, ``parameters (B, n_parameters)``, ``time (B,)`` to
    ``(B, temporal * out_channels, *grid)``, frames first.

    Raises:
        ConfigError: an argument is out of range, or an operator or mover that does not fit.
        DataError: an input has another shape, or a grid that is too small or not divisible by ``coarsen``.
        SolverError: the mover gave no mesh.
    """

    name = "moving_mesh"
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

    @classmethod
    def create(cls, options: dict[str, Any]) -> "MovingMesh":
        """From a dictionary of options; the operator inside is a unet unless it says otherwise."""
        return build(cls, {"operator": "unet", **options})

    def __init__(
        self,
        operator: Factory,
        in_channels: int,
        out_channels: int,
        *,
        mover: str | Mover = "monge_ampere",
        mover_options: dict[str, Any] | None = None,
        moved_by: Sequence[str | int] | None = None,
        channel_names: Sequence[str] | None = None,
        temporal: int = 1,
        dim: int = 2,
        periodic: bool = False,
        n_parameters: int = 0,
        time_conditioning: bool = False,
        options: dict[str, Any] | None = None,
        frozen: bool = True,
        coarsen: int = 1,
    ) -> None:
        super().__init__(
            in_channels, out_channels, dim=dim, n_parameters=n_parameters, time_conditioning=time_conditioning
        )
        check_positive(self.name, temporal=temporal, coarsen=coarsen)
        self.temporal = temporal
        self.motion = Motion(
            self.name,
            mover,
            mover_options,
            in_channels=in_channels,
            moved_by=moved_by,
            channel_names=channel_names,
            dim=dim,
            periodic=periodic,
            frozen=frozen,
            coarsen=coarsen,
        )
        self.made_by = made_by = inner.grid_operator(self.name, operator, dim, REFUSED)
        given = {} if options is None else dict(options)
        complete = inner.completed(self.name, made_by, given, dim=dim, periodic=periodic, defaults={})
        self.network = inner.make_network(
            self.name,
            made_by,
            in_channels + dim + 1,
            out_channels * temporal,
            complete,
            dim=dim,
            n_parameters=n_parameters,
            time_conditioning=time_conditioning,
        )
        self.config = inner.as_json(
            self.name,
            {
                "operator": inner.name_to_record(made_by, operator),
                "in_channels": in_channels,
                "out_channels": out_channels,
                "mover": self.motion.name,
                "mover_options": mover_options,
                "moved_by": moved_by,
                "channel_names": channel_names,
                "temporal": temporal,
                "dim": dim,
                "periodic": periodic,
                "n_parameters": n_parameters,
                "time_conditioning": time_conditioning,
                "options": given,
                "frozen": frozen,
                "coarsen": coarsen,
            },
        )

    def saved_config(self) -> dict[str, Any]:
        """The content of ``config.json``.

        Raises:
            ConfigError: the operator inside or the mover is a function or class that is not registered.
        """
        inner.check_saveable(self.name, self.made_by, self.config["operator"])
        self.motion.check_saveable()
        return super().saved_config()

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of the operator inside, and ``mover`` where its weights are trained."""
        groups = super().parameter_groups()
        if isinstance(self.network, Operator):
            groups = self.network.parameter_groups()
            trained = list(self.motion.parameters())
            groups = [*groups, ParameterGroup("mover", trained)] if trained else groups
        return groups

    def forward(self, x: Tensor, *, time: Tensor | None = None, parameters: Tensor | None = None) -> Tensor:
        self.check_input(x, parameters, time)
        conditions, gives = inner.conditions_of(time, parameters), self.temporal * self.out_channels
        grid = self.motion(x)
        if grid is None:
            still = x.new_zeros(x.shape[0], self.dim + 1, *x.shape[2:])
            return inner.call(self.name, self.network, torch.cat((x, still), 1), conditions, gives)
        moved = grid.channels().to(x.dtype).expand(len(x), *[-1] * (self.dim + 1))  # one mesh for all where it stays
        told = torch.cat((grid.there(x), moved), 1)
        return grid.back(inner.call(self.name, self.network, told, conditions, gives))
