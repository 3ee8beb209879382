"""The operator: split, a network for the subtasks, merge."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sciml.collectives import Group
from sciml.errors import ConfigError, did_you_mean
from sciml.operators import inner_operator as inner
from sciml.operators.base import Operator
from sciml.operators.inner_operator import Factory, call, conditions_of
from sciml.operators.layers.patches import crop
from sciml.operators.neuralstagger.calls import call_on_phases, explained
from sciml.operators.neuralstagger.split import merge, pad_to_factors, phase_offsets, split
from sciml.operators.neuralstagger.stacked_networks import run_on_ranks, stack_networks
from sciml.operators.neuralstagger.subtask import Subtask
from sciml.operators.stored import ParameterGroup, build, check_positive

MODES = ("stacked", "shared", "independent")
FRAMES = ("all", "last")
DEFAULTS: dict[str, dict[str, Any]] = {
    "fno": {"patch_size": 1},
    "unet": {"patch_size": 1},
    "poseidon": {"resize": "pad"},
}
"""Options of the operators on a coarse grid where they differ from their own defaults: patches would be a second space
to depth, and the published Poseidon resamples every grid to the one that it was made for."""
_MOVES = (
    "it moves the mesh, which the phase of a grid alone does not show; put neuralstagger inside moving_mesh instead"
)
REFUSED = {
    "neuralstagger": "splitting twice is splitting once by the product of the factors",
    "moving_mesh": _MOVES,
    "mmpde": _MOVES,
}
"""Operators that cannot be the sub-operator, and why."""


class NeuralStagger(Operator):
    """A grid operator on the interleaved coarse grids of a fine one [Huang et al. 2023, arXiv:2302.10255].

    The field is split into ``S = prod(spatial)`` phases, phase (p, q) being every s-th cell from (p, q) on; networks on
    the coarse grid make each phase of the next ``temporal`` frames; the phases are merged. Nothing is lost by the split
    itself, and the loss sees the fine grid.

    - ``mode="stacked"``: one network whose channels are all phases (space to depth). On one device it is about ``S``
      times cheaper than the operator on the fine grid, and it sees every phase, so nothing aliases.
    - ``mode="shared"``: one network for every phase, batched. On a periodic box without coordinates the phases are the
      same problem, shifted; elsewhere the network is told the phase (``dim`` constant channels, where it lies in its
      coarse cell).
    - ``mode="independent"``: ``S * temporal`` networks with weights of their own, one for each phase and frame, as
      published. Run together (``torch.func``), and by several devices with ``expert_group``: without those it is no
      faster. A phase alone cannot tell apart frequencies that differ by a multiple of the coarse grid's, so
      ``shared`` and ``independent`` keep an error for content above the coarse Nyquist frequency, cells / (2 s).

    With factors of 1 and one frame it is the sub-operator, bit for bit.

    A grid that the factors do not divide is padded by repeating its last cells, and the output cropped; on a periodic
    box, which padding would cut open, it is refused.

    Args:
        operator: name or class of a grid operator, or ``function(in_channels, out_channels, **options)`` that makes a
            module ``(B, in_channels, *coarse)`` to ``(B, out_channels, *coarse)``. One with such a function cannot be
            saved.
        spatial: coarse grids along each axis, one number or one an axis.
        temporal: frames that one call gives.
        dim: number of grid axes.
        periodic: whether the box is periodic along every axis.
        options: arguments of the sub-operator, before its own ``options_for(dim, periodic)``. Where the grid is split,
            ``patch_size`` of fno and unet is 1 unless given, because patches are a space to depth themselves, and
            ``resize`` of poseidon is "pad". Frequencies, sensors and windows count on the coarse grid.

    Shapes: ``x (B, in_channels, *grid)``, ``parameters (B, n_parameters)``, ``time (B,)`` to
    ``(B, temporal * out_channels, *grid)``, frames first.

    Attributes:
        expert_group: in mode independent, ranks that share the subtasks of every sample (``sciml.collectives``), all of
            which call the operator alike; None: this process does them all.

    Raises:
        ConfigError: an argument is out of range, or the operator is none for grids of ``dim`` axes.
        DataError: an input has another shape, or a grid that the factors or the sub-operator do not take.
    """

    name = "neuralstagger"
    records_arguments = False
    expert_group: Group

    @classmethod
    def options_for(cls, dim: int, periodic: bool) -> dict[str, Any]:
        """Its own arguments of these names."""
        return {"dim": dim, "periodic": periodic}

    @classmethod
    def create(cls, options: dict[str, Any]) -> "NeuralStagger":
        """From a dictionary of options; the sub-operator is an fno unless it says otherwise."""
        return build(cls, {"operator": "fno", **options})

    def __init__(
        self,
        operator: Factory,
        in_channels: int,
        out_channels: int,
        *,
        spatial: int | Sequence[int] = 4,
        temporal: int = 1,
        mode: str = "stacked",
        dim: int = 2,
        periodic: bool = False,
        n_parameters: int = 0,
        time_conditioning: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, dim=dim, n_parameters=n_parameters, time_conditioning=time_conditioning
        )
        if mode not in MODES:
            raise ConfigError(f"neuralstagger: unknown mode {mode!r}{did_you_mean(str(mode), MODES)}")
        check_positive("neuralstagger", temporal=temporal)
        self.spatial = _factors(spatial, dim)
        self.temporal = temporal
        self.mode = mode
        self.periodic = periodic
        self.phases = phases = math.prod(self.spatial)
        self.made_by = made_by = inner.grid_operator(self.name, operator, dim, REFUSED)
        given = {} if options is None else dict(options)
        # Of one phase, which is the fine grid, the operator's own defaults hold.
        defaults = DEFAULTS if phases > 1 else {}
        complete = inner.completed(self.name, made_by, given, dim=dim, periodic=periodic, defaults=defaults)
        # One phase is the whole field: nothing to tell.
        self.tells_phase = (
            mode == "shared" and phases > 1 and not (periodic and not inner.sees_position(made_by, complete))
        )

        def make(takes: int, gives: int) -> nn.Module:
            conditions = {"n_parameters": n_parameters, "time_conditioning": time_conditioning}
            return inner.make_network(self.name, made_by, takes, gives, complete, dim=dim, **conditions)

        if mode == "stacked":
            self.network = make(in_channels * phases, out_channels * phases * temporal)
        elif mode == "shared":
            self.network = make(in_channels + dim * self.tells_phase, out_channels * temporal)
        else:
            self.network = stack_networks(lambda: make(in_channels, out_channels), phases * temporal)
            self.expert_group = None
        self.config = self._arguments(operator, given)

    def _arguments(self, operator: Factory, options: dict[str, Any]) -> dict[str, Any]:
        """The constructor's arguments as JSON gives them back; of a user's own factory its name only."""
        return {
            "operator": inner.name_to_record(self.made_by, operator),
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "spatial": list(self.spatial),
            "temporal": self.temporal,
            "mode": self.mode,
            "dim": self.dim,
            "periodic": self.periodic,
            "n_parameters": self.n_parameters,
            "time_conditioning": self.time_conditioning,
            "options": inner.as_json(self.name, options),
        }

    def saved_config(self) -> dict[str, Any]:
        """The content of ``config.json``.

        Raises:
            ConfigError: the sub-operator is made by a function or class that is not registered.
        """
        inner.check_saveable(self.name, self.made_by, self.config["operator"])
        return super().saved_config()

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of the sub-operator."""
        return self.network.parameter_groups() if isinstance(self.network, Operator) else super().parameter_groups()

    def forward(self, x: Tensor, *, time: Tensor | None = None, parameters: Tensor | None = None) -> Tensor:
        self.check_input(x, parameters, time)
        grid = x.shape[2:]
        # Padding would cut a periodic box open: split refuses the grid instead.
        phases = split(x if self.periodic else pad_to_factors(x, self.spatial), self.spatial)
        with explained(phases.shape[3:], self.spatial):
            made = self._made(phases, conditions_of(time, parameters))
        return crop(merge(made, self.spatial), grid)

    def _made(self, phases: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        """Phases ``(B, S, in_channels, *coarse)`` to ``(B, S, temporal * out_channels, *coarse)``."""
        gives, frames = self.out_channels, self.temporal * self.out_channels
        if self.mode == "stacked":
            made = call(self.name, self.network, phases.flatten(1, 2), conditions, self.phases * frames)
            return made.unflatten(1, (self.phases, frames))
        if self.mode == "shared":
            return call_on_phases(self.network, phases, self.offsets(phases), conditions, frames)
        # The subtasks of a phase, one a frame, follow one another.
        inputs = phases.transpose(0, 1).repeat_interleave(self.temporal, 0)
        made = run_on_ranks(self.network, inputs, conditions, gives, self.expert_group)
        return made.unflatten(0, (self.phases, self.temporal)).movedim(2, 0).flatten(2, 3)

    def offsets(self, like: Tensor) -> Tensor | None:
        """What a shared network is told of each phase, ``(S, dim)``; None: nothing."""
        return phase_offsets(self.spatial, like) if self.tells_phase else None

    def subtask(self, phase: Sequence[int] | None = None, frames: str = "all") -> Operator:
        """The operator on the coarse grid of one phase alone, with the same weights.

        Args:
            phase: the offset of the phase in cells, one an axis; the first phase unless given.
            frames: "all", or "last": a step of ``temporal`` intervals, which in mode independent is one network of
                ``temporal``.

        Raises:
            ConfigError: of mode stacked, whose network sees all phases; no such phase or choice of frames.
        """
        if self.mode == "stacked":
            raise ConfigError(
                "neuralstagger: of mode stacked no subtask runs alone, because one network sees all phases; use mode "
                "shared or independent"
            )
        if frames not in FRAMES:
            raise ConfigError(f"neuralstagger: unknown frames {frames!r}{did_you_mean(str(frames), FRAMES)}")
        offset = (0,) * self.dim if phase is None else tuple(phase)
        if len(offset) != self.dim or not all(p in range(s) for p, s in zip(offset, self.spatial, strict=True)):
            raise ConfigError(
                f"neuralstagger: phase is {offset}; expected an offset in cells below {self.spatial}, one an axis"
            )
        number = 0
        for p, s in zip(offset, self.spatial, strict=True):
            number = number * s + p
        return Subtask(self, number, last=frames == "last")


def _factors(spatial: int | Sequence[int], dim: int) -> tuple[int, ...]:
    """One factor an axis. Raises ``ConfigError`` where it is not."""
    factors = (spatial,) * dim if isinstance(spatial, int) else tuple(spatial)
    if len(factors) != dim:
        raise ConfigError(
            f"neuralstagger: spatial is {list(factors)}, {len(factors)} factors for {dim} axes; expected one number, "
            "or one an axis"
        )
    check_positive("neuralstagger", **{f"spatial[{i}]": factor for i, factor in enumerate(factors)})
    return factors
