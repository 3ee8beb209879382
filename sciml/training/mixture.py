"""One operator on several problems: the union of their channels, of which each problem reads and predicts its own.

Every problem keeps a surrogate, with its own units, normaliser and conditions, around a ``ChannelSubset`` of the shared
operator. Channels and conditions that a problem lacks read zero, which is the mean of what is standardised, and are not
in its loss; a problem without obstacles reads fluid everywhere. A training step is on one problem; which one is a
function of seed and step.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sciml import metrics
from sciml.datasets import TrajectoryWindows
from sciml.errors import ConfigError
from sciml.operators import Operator, create_operator
from sciml.operators.base import find_operator
from sciml.problems import get_problem
from sciml.problems.base import FLUID, Problem
from sciml.surrogate import Surrogate, channel_names
from sciml.training.data import Part, Windows
from sciml.training.fine_tuning import group_rates
from sciml.training.loop import Source
from sciml.training.mixture_config import PretrainConfig
from sciml.training.sampling import step_generator
from sciml.training.tasks import fluid_beside, transition

_DRAW = 4098
"""The "rank" of the draw of a problem: the largest that ``step_generator`` tells apart, which no process has."""
VALIDATION_WINDOWS = 32
"""Steps of each problem that a validation in the middle of training looks at."""


@dataclass(frozen=True)
class Union:
    """The names of all channels that are read and predicted, and of all conditions, each once."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Member:
    """A problem of the mixture, and the names of its own channels."""

    name: str
    problem: Problem
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def members_of(config: PretrainConfig) -> tuple[Member, ...]:
    """The problems of a mixture, in the order of their names."""
    members = []
    for name, entry in config.problems.items():
        problem = get_problem(entry.problem, config.dim)
        inputs, outputs = channel_names(problem, entry.data.fields, (), config.member(name).task)
        members.append(Member(name, problem, tuple(inputs), tuple(outputs)))
    return tuple(members)


def union_of(members: Sequence[Member]) -> Union:
    """Names in the order in which the members first have them."""
    return Union(
        *(
            tuple(dict.fromkeys(itertools.chain.from_iterable(names)))
            for names in (
                [member.inputs for member in members],
                [member.outputs for member in members],
                [member.problem.condition_names for member in members],
            )
        )
    )


def build_shared_operator(config: PretrainConfig, members: Sequence[Member]) -> Operator:
    """The untrained operator over the union, its weights a function of the seed.

    Raises ``ConfigError`` for a wrong name or key or an operator of another number of dimensions, and ``DataError`` for
    a problem's grid that it cannot take.
    """
    union, family = union_of(members), find_operator(config.operator.name)
    if config.dim not in family.dims:
        exists = " and ".join(f"{dim}D" for dim in family.dims)
        raise ConfigError(
            f"the operator {family.name!r} exists in {exists}, the problems of the mixture are in {config.dim}D; "
            "choose another operator.name"
        )
    subsets = {member.name: config.problems[member.name].data.subset for member in members}
    sides = {side for member in members for side in member.problem.boundaries(subsets[member.name]).values()}
    options = {
        **family.options_for(config.dim, sides == {"periodic"}),
        **family.options_for_names(union.inputs, union.outputs, union.parameters),
        **{key: value for key, value in config.operator.model_dump().items() if key != "name"},
    }
    with torch.random.fork_rng(devices=[]):  # seed the global generator for the weights, and leave it as it was
        torch.manual_seed(config.seed)
        operator = create_operator(
            family.name,
            in_channels=len(union.inputs),
            out_channels=len(union.outputs),
            n_parameters=len(union.parameters),
            **options,
        )
    if operator.dim != config.dim:
        raise ConfigError(
            f"the operator {family.name!r} is for {operator.dim} dimensions, the problems of the mixture are in "
            f"{config.dim}D; change its arguments (e.g. n_modes, dim)"
        )
    if operator.temporal > 1:
        raise ConfigError(
            f"the operator gives {operator.temporal} frames at once (operator.temporal); one that several problems "
            "share gives one: use operator.temporal=1"
        )
    if config.task.pairs == "all" and not operator.time_conditioning:
        raise ConfigError(
            "task.pairs=all needs an operator that is told the time between the frames: add "
            "operator.time_conditioning=true, or use task.pairs=successive"
        )
    group_rates(config.optimizer, operator)
    for member in members:
        data = config.problems[member.name].data
        if not data.files:
            _try(subset_of(operator, member, union), member, data.resolution)
    return operator


@torch.no_grad()
def _try(operator: ChannelSubset, member: Member, resolution: int | None) -> None:
    """One forward pass on the member's grid: mistakes are better met before minutes of generation."""
    conditions = torch.zeros(1, len(member.problem.condition_names)) if member.problem.condition_names else None
    time = torch.zeros(1) if operator.time_conditioning else None
    operator(torch.zeros(1, len(member.inputs), *member.problem.grid(resolution)), time=time, parameters=conditions)


# ------------------------------------------------------------------------------------------------------------ the model


class ChannelSubset(nn.Module):
    """What a problem sees of an operator over more channels than it has: its own, and zero elsewhere.

    Args:
        operator: the shared operator. It is not a submodule here: its parameters belong to the mixture, once.
        inputs, outputs, parameters: positions of the problem's channels and conditions among the operator's.
        ones: positions of channels that read one, not zero, although the problem lacks them.

    Shapes: ``x (B, len(inputs), *grid)``, ``parameters (B, len(parameters))``, ``time (B,)`` to
    ``(B, len(outputs), *grid)``.
    """

    def __init__(
        self,
        operator: Operator,
        inputs: Sequence[int],
        outputs: Sequence[int],
        parameters: Sequence[int] = (),
        ones: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self._shared = (operator,)
        chosen = {"inputs": inputs, "outputs": outputs, "positions": parameters, "ones": ones}
        for name, positions in chosen.items():
            self.register_buffer(name, torch.tensor(list(positions), dtype=torch.long), persistent=False)

    inputs: Tensor
    outputs: Tensor
    positions: Tensor
    ones: Tensor
    temporal = stride = 1

    @property
    def operator(self) -> Operator:
        """The shared operator."""
        return self._shared[0]

    @property
    def time_conditioning(self) -> bool:
        """Whether ``forward`` needs the lead time."""
        return self.operator.time_conditioning

    def forward(self, x: Tensor, *, time: Tensor | None = None, parameters: Tensor | None = None) -> Tensor:
        operator = self.operator
        full = x.new_zeros(x.shape[0], operator.in_channels, *x.shape[2:]).index_copy(1, self.inputs, x)
        if len(self.ones):
            full = full.index_fill(1, self.ones, 1.0)
        conditions = None
        if operator.n_parameters:
            conditions = x.new_zeros(x.shape[0], operator.n_parameters)
            if parameters is not None:
                conditions = conditions.index_copy(1, self.positions, parameters)
        return operator(full, time=time, parameters=conditions).index_select(1, self.outputs)


def subset_of(operator: Operator, member: Member, union: Union) -> ChannelSubset:
    """The operator as a member sees it."""
    return ChannelSubset(
        operator,
        [union.inputs.index(name) for name in member.inputs],
        [union.outputs.index(name) for name in member.outputs],
        [union.parameters.index(name) for name in member.problem.condition_names],
        [union.inputs.index(FLUID.name)] if FLUID.name in union.inputs and FLUID.name not in member.inputs else (),
    )


class Mixture(nn.Module):
    """The shared operator, whose parameters are all that is learned, and a surrogate around it for every problem.

    Args:
        operator: the shared operator.
        names: of the problems.
        surrogates: one a problem, with a ``ChannelSubset`` of the operator.
    """

    def __init__(self, operator: Operator, names: Sequence[str], surrogates: Sequence[Surrogate]) -> None:
        super().__init__()
        self.operator = operator
        self.names = tuple(names)
        self.surrogates = nn.ModuleList(surrogates)

    def __iter__(self) -> Any:
        """Pairs of name and surrogate."""
        return iter(zip(self.names, self.surrogates, strict=True))


# ------------------------------------------------------------------------------------------------------------- the data


@dataclass(frozen=True)
class MemberBatch:
    """A batch of one problem."""

    member: int
    batch: Any

    def to(self, device: torch.device) -> MemberBatch:
        """The batch on a device."""
        return replace(self, batch=self.batch.to(device))


class MixtureSource:
    """Training samples of several sources; a step takes all of its samples from one of them.

    A step draws source i with a probability in proportion to ``weights[i]``; which samples of it, the source says. So
    in the steps that a source gets it goes on through its samples in an order of its own, shuffled anew in every pass,
    of which the steps of the others skip parts.

    Samples are numbered through, source by source.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]) -> None:
        self.sources = tuple(sources)
        self.cumulative = list(itertools.accumulate(float(weight) for weight in weights))
        self.starts = [0, *itertools.accumulate(len(source) for source in self.sources)]

    def __len__(self) -> int:
        return self.starts[-1]

    def member(self, step: int, seed: int) -> int:
        """The source of a step's samples."""
        drawn = float(torch.rand((), generator=step_generator(seed, step, _DRAW), dtype=torch.float64))
        return bisect.bisect_right(self.cumulative, drawn * self.cumulative[-1], hi=len(self.cumulative) - 1)

    def indices(self, size: int, step: int, seed: int) -> list[int]:
        """The samples of a step, those of all processes together."""
        member = self.member(step, seed)
        start = self.starts[member]
        return [start + index for index in self.sources[member].indices(size, step, seed)]

    def batch(self, indices: Sequence[int]) -> MemberBatch:
        """The samples of these numbers, all of one source."""
        member = bisect.bisect_right(self.starts, indices[0]) - 1
        start = self.starts[member]
        return MemberBatch(member, self.sources[member].batch([index - start for index in indices]))


class MixtureLoss(nn.Module):
    """The loss of a batch of one problem by that problem's own loss.

    Args:
        mixture: the model, here so that ``DistributedDataParallel`` finds its parameters.
        losses: modules that compute the loss of a batch, one a problem.
    """

    def __init__(self, mixture: Mixture, losses: Sequence[nn.Module]) -> None:
        super().__init__()
        self.mixture = mixture
        self.losses = nn.ModuleList(losses)

    def forward(self, batch: MemberBatch, generator: torch.Generator) -> Tensor:
        """The loss of a batch; ``generator`` draws what the problem's loss draws."""
        return self.losses[batch.member](batch.batch, generator)


# ------------------------------------------------------------------------------------------------------ the validation


class Validation:
    """One-step errors of the problems on some of the steps of their validation cases.

    ``nmse`` is the geometric mean over the problems: none drowns the others. A flow from rest is judged from its first
    moving frame on, as in ``evaluation``.
    """

    def __init__(self, mixture: Mixture, parts: Mapping[str, Part]) -> None:
        self.windows = {}
        for name, surrogate in mixture:
            part, first = parts[name], surrogate.problem.first_frame
            frames = TrajectoryWindows(part.files, list(surrogate.fields), cases=part.cases, first_frame=first)
            self.windows[name] = Windows(frames)

    @torch.no_grad()
    def __call__(self, mixture: Mixture) -> dict[str, float]:
        errors = {f"{name}_nmse": self._nmse(surrogate, self.windows[name]) for name, surrogate in mixture}
        mean = math.exp(sum(math.log(max(error, 1e-30)) for error in errors.values()) / len(errors))
        return {"nmse": mean, **errors}

    @staticmethod
    def _nmse(surrogate: Surrogate, windows: Windows) -> float:
        stride = math.ceil(len(windows) / VALIDATION_WINDOWS)
        batch = windows.batch(range(0, len(windows), stride)).to(surrogate.normaliser.mean.device)
        parameters, interval = transition(batch, 0)
        prediction = surrogate(batch.state[:, :1], parameters, interval)
        fluid = fluid_beside(surrogate, parameters, batch.state)
        return float(metrics.nmse(prediction.unsqueeze(1), batch.state[:, 1:], fluid).mean())
