"""Some of the subtasks alone: the simulation on one coarse grid."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from sciml.errors import ConfigError
from sciml.operators.base import Operator
from sciml.operators.inner_operator import conditions_of
from sciml.operators.neuralstagger.calls import call_on_phases, explained
from sciml.operators.neuralstagger.stacked_networks import run_networks, tensors_of

if TYPE_CHECKING:
    from sciml.operators.neuralstagger.operator import NeuralStagger


class Subtask(Operator):
    """The subtasks of one phase of a ``NeuralStagger``: ``x (B, in_channels, *coarse)`` to the phase's next frames.

    The weights are those of the whole, not copies: what trains one trains the other. It is saved with the whole only.

    Args:
        whole: the operator, of mode shared or independent.
        phase: number of the phase, as ``split`` numbers them.
        last: only the last frame, a step of ``temporal`` intervals, instead of all.
    """

    name = "subtask"
    records_arguments = False

    def __init__(self, whole: "NeuralStagger", phase: int, last: bool) -> None:
        super().__init__(
            whole.in_channels,
            whole.out_channels,
            dim=whole.dim,
            n_parameters=whole.n_parameters,
            time_conditioning=whole.time_conditioning,
        )
        self.whole = whole
        self.phase = phase
        self.last = last
        self.temporal, self.stride = (1, whole.temporal) if last else (whole.temporal, 1)

    def forward(self, x: Tensor, *, time: Tensor | None = None, parameters: Tensor | None = None) -> Tensor:
        self.check_input(x, parameters, time)
        whole, conditions, gives = self.whole, conditions_of(time, parameters), self.out_channels
        with explained(x.shape[2:], whole.spatial):
            if whole.mode == "shared":
                offsets = whole.offsets(x)
                offset = None if offsets is None else offsets[self.phase : self.phase + 1]
                made = call_on_phases(whole.network, x.unsqueeze(1), offset, conditions, whole.temporal * gives)
                return made[:, 0, -self.temporal * gives :]
            end = (self.phase + 1) * whole.temporal
            own = {name: tensor[end - self.temporal : end] for name, tensor in tensors_of(whole.network).items()}
            made = run_networks(whole.network, own, x.expand(self.temporal, *x.shape), conditions, gives)
            return made.transpose(0, 1).flatten(1, 2)

    def saved_config(self) -> dict[str, Any]:
        """Raises ``ConfigError``: it has no weights of its own."""
        raise ConfigError("a subtask is saved with the NeuralStagger that it is part of; save that one")
