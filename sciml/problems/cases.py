"""What a case is, whatever is solved: its parameters, and how cases are drawn at random."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from sciml.errors import ConfigError, did_you_mean

ParameterValues = Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """A number that a case is described by, in SI units where it has any.

    ``sign`` bounds it, or ``choices`` lists its values; ``default`` stands in where none is given. A ``draw`` is a
    whole number that selects one of the problem's random input fields: no physical quantity, so that surrogates neither
    ask for it nor check its range.
    """

    name: str
    unit: str
    meaning: str
    sign: Literal["positive", "nonnegative", "any"] = "positive"
    choices: tuple[float, ...] = ()
    default: float | None = None
    draw: bool = False

    def allows(self, values: Tensor) -> Tensor:
        """Whether each value is possible."""
        finite = torch.isfinite(values)
        if self.draw:
            return finite & (values >= 0) & (values < 2**53) & (values == values.round())
        if self.choices:
            return torch.isin(values, torch.tensor(self.choices, dtype=values.dtype))
        bound = {"positive": values > 0, "nonnegative": values >= 0, "any": finite}[self.sign]
        return finite & bound

    @property
    def expected(self) -> str:
        """What ``allows`` allows, in words."""
        if self.draw:
            return "a whole number from 0 to 2^53"
        if self.choices:
            return " or ".join(f"{value:g}" for value in self.choices)
        return {"positive": "positive", "nonnegative": "at least 0", "any": "finite"}[self.sign]


@dataclass(frozen=True)
class Sample:
    """Cases drawn from a problem: ``parameters`` name -> (N,) or (N, T), ``subsets`` the subset of each case."""

    parameters: dict[str, Tensor]
    subsets: tuple[str, ...]

    def select(self, cases: Sequence[int]) -> Sample:
        """The cases at these positions, in this order."""
        return Sample(
            {name: values[list(cases)] for name, values in self.parameters.items()},
            tuple(self.subsets[case] for case in cases),
        )


class CaseFamily(ABC):
    """Cases that are told apart by a dictionary of parameters, drawn from subsets.

    Parameters travel as a dictionary name -> ``(B,)`` tensor; a value that changes in time is ``(B, T)``, entry t
    acting from frame t to frame t + 1. What is random of a case is a function of the parameters too (of those that are
    a ``draw``), so the parameters alone say what a case is, at any resolution.

    Args:
        dim: number of space dimensions, by default the first of ``dims``.

    Raises:
        ConfigError: the problem does not exist in that many dimensions.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    dims: ClassVar[tuple[int, ...]] = (2,)
    parameters: ClassVar[tuple[Parameter, ...]]
    subsets: ClassVar[tuple[str, ...]]
    mixture: ClassVar[tuple[str, ...]] = ()
    """The order in which the subset ``all`` takes its cases; empty: the subsets in turn."""
    hard_subsets: ClassVar[tuple[str, ...]] = ()
    resolution: ClassVar[int] = 64
    """Default cells along the side that ``grid`` counts."""
    frames: ClassVar[int] = 21
    frame_interval: ClassVar[float] = 1.0
    """Seconds between frames, the same for all cases."""
    group: ClassVar[int] = 12
    """Cases that generation solves together: enough to use the cache well, few enough to keep all cores busy."""
    static: ClassVar[bool] = False
    """One frame and no time: some fields are given, the others follow."""
    solver: ClassVar[str] = ""
    """What a data file says it was made with."""

    def __init__(self, dim: int | None = None) -> None:
        if dim is not None and dim not in self.dims:
            exists = " and ".join(f"{each}D" for each in self.dims)
            raise ConfigError(f"problem {self.name!r} does not exist in {dim}D; it exists in {exists}")
        self.dim = self.dims[0] if dim is None else dim

    # ------------------------------------------------------------------------------------------------- parameters

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def draw_names(self) -> tuple[str, ...]:
        """Names of the parameters that select random fields."""
        return tuple(parameter.name for parameter in self.parameters if parameter.draw)

    def as_parameters(
        self, values: ParameterValues, batch: int | None = None, *, draws: bool = True
    ) -> dict[str, Tensor]:
        """Validate a parameter dictionary: float64 tensors ``(B,)`` or ``(B, T)``, numbers repeated over the batch.

        ``draws=False`` leaves out, and does not ask for, the parameters that select random fields.

        Raises ``ConfigError`` for an unknown or missing name, a wrong length, or a value that the parameter does not
        allow (``Parameter.expected``).
        """
        for name in values:
            if name not in self.parameter_names:
                known = did_you_mean(name, self.parameter_names)
                raise ConfigError(f"problem {self.name!r} has no parameter {name!r}{known}")
        wanted = [parameter for parameter in self.parameters if draws or not parameter.draw]
        given = {p.name: values.get(p.name, p.default) for p in wanted}
        missing = [name for name, value in given.items() if value is None]
        if missing:
            raise ConfigError(f"problem {self.name!r} needs the parameters {', '.join(missing)} as well")
        tensors = {name: _as_float64(name, value) for name, value in given.items()}
        lengths = {tensor.shape[0] for tensor in tensors.values() if tensor.ndim > 0}
        batch = batch or max(lengths, default=1)
        for parameter in wanted:
            name, tensor = parameter.name, tensors[parameter.name]
            if tensor.ndim == 0 or tensor.shape[0] == 1:
                tensors[name] = tensor = tensor.reshape(1, *tensor.shape[1:]).expand(batch, *tensor.shape[1:])
            if tensor.shape[0] != batch or tensor.ndim > 2:
                raise ConfigError(
                    f"parameter {name!r} has shape {tuple(tensor.shape)}; expected ({batch},) or ({batch}, times)"
                )
            bad = ~parameter.allows(tensor).reshape(batch, -1).all(1)
            if bad.any():
                case = int(bad.nonzero()[0, 0])
                raise ConfigError(
                    f"parameter {name!r} of case {case} is {tensor[case].tolist()}; it must be {parameter.expected}"
                )
        return tensors

    # --------------------------------------------------------------------------------------------------- sampling

    def sample(
        self, n: int, subset: str = "all", seed: int = 0, resolution: int | None = None, frames: int | None = None
    ) -> Sample:
        """Draw ``n`` cases of a subset (or of ``"all"``) that a grid of this resolution resolves.

        Case i depends on the seed and i only: a longer sample begins with the shorter one.

        Raises ``ConfigError`` for an unknown subset or no cases, ``SolverError`` for a resolution that is too coarse
        for the subset.
        """
        self.check_subset(n, subset)
        resolution = self.resolution if resolution is None else resolution
        generator = torch.Generator().manual_seed(seed)
        names = self.case_subsets(n, subset)
        cases = [self.draw(name, generator, resolution) for name in names]
        return Sample(
            {
                p.name: torch.tensor([case.get(p.name, p.default) for case in cases], dtype=torch.float64)
                for p in self.parameters
            },
            names,
        )

    def check_subset(self, n: int, subset: str) -> None:
        """Raise ``ConfigError`` for an unknown subset or for no cases."""
        known = (*self.subsets, *self.hard_subsets, "all")
        if n < 1:
            raise ConfigError(f"asked for {n} cases; at least 1 is needed")
        if subset not in known:
            raise ConfigError(f"problem {self.name!r} has no subset {subset!r}{did_you_mean(subset, known)}")

    def case_subsets(self, n: int, subset: str) -> tuple[str, ...]:
        """The subset of each of ``n`` cases: those of ``all`` in the order of ``mixture``."""
        order = (self.mixture or self.subsets) if subset == "all" else (subset,)
        return tuple(order[case % len(order)] for case in range(n))

    @abstractmethod
    def draw(self, subset: str, generator: torch.Generator, resolution: int) -> dict[str, float]:
        """The parameters of one random case of a subset (those with a default may be left out)."""

    def frame_times(
        self, parameters: ParameterValues, frames: int | None = None, interval: float | None = None
    ) -> Tensor:
        """Times of frames ``interval`` seconds apart, ``(B, frames)``; of a static problem one frame at 0.

        Raises ``ConfigError`` for an interval that is not positive.
        """
        interval = self.frame_interval if interval is None else interval
        if not 0 < interval < float("inf"):
            raise ConfigError(f"the interval between frames is {interval}; it must be positive")
        batch = next(iter(self.as_parameters(parameters).values())).shape[0]
        frames = 1 if self.static else self.frames if frames is None else frames
        return (interval * torch.arange(frames, dtype=torch.float64)).expand(batch, frames)


def _as_float64(name: str, value: Any) -> Tensor:
    try:
        return torch.as_tensor(value, dtype=torch.float64).cpu()  # a few numbers: they live where they are checked
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"parameter {name!r} is {value!r}; expected a number or a list of numbers") from None
