"""What a problem is: the declaration that generation, training and the surrogate read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.datasets import DatasetInfo, FaceFieldInfo, FieldInfo
from sciml.errors import ConfigError, did_you_mean

ParameterValues = Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """A physical parameter of a problem, in SI units."""

    name: str
    unit: str
    meaning: str


class Problem(ABC):
    """Fields, parameters, subsets, scales and the solver of one kind of flow.

    A subclass declares the class attributes and implements the abstract methods. Parameters travel as a dictionary
    name -> ``(B,)`` tensor; a value that changes in time is ``(B, T)``, entry t acting from frame t to frame t + 1.
    """

    name: str
    title: str
    dim: int
    fields: tuple[FieldInfo, ...]
    face_fields: tuple[FaceFieldInfo, ...] = ()
    parameters: tuple[Parameter, ...]
    subsets: tuple[str, ...]
    hard_subsets: tuple[str, ...] = ()
    condition_names: tuple[str, ...]
    lookup_weights: tuple[float, ...]

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    def as_parameters(self, values: ParameterValues, batch: int | None = None) -> dict[str, Tensor]:
        """Validate a parameter dictionary: float64 tensors ``(B,)`` or ``(B, T)``, numbers repeated over the batch.

        Raises ``ConfigError`` for an unknown or missing name, a wrong length, or a value that is not positive and
        finite.
        """
        for name in values:
            if name not in self.parameter_names:
                known = did_you_mean(name, self.parameter_names)
                raise ConfigError(f"problem {self.name!r} has no parameter {name!r}{known}")
        missing = [name for name in self.parameter_names if name not in values]
        if missing:
            raise ConfigError(f"problem {self.name!r} needs the parameters {', '.join(missing)} as well")
        tensors = {name: _as_float64(name, values[name]) for name in self.parameter_names}
        lengths = {tensor.shape[0] for tensor in tensors.values() if tensor.ndim > 0}
        batch = batch or max(lengths, default=1)
        for name, tensor in tensors.items():
            if tensor.ndim == 0 or tensor.shape[0] == 1:
                tensors[name] = tensor = tensor.reshape(1, *tensor.shape[1:]).expand(batch, *tensor.shape[1:])
            if tensor.shape[0] != batch or tensor.ndim > 2:
                raise ConfigError(
                    f"parameter {name!r} has shape {tuple(tensor.shape)}; expected ({batch},) or ({batch}, times)"
                )
            bad = ~(torch.isfinite(tensor) & (tensor > 0)).reshape(batch, -1).all(1)
            if bad.any():
                case = int(bad.nonzero()[0, 0])
                raise ConfigError(f"parameter {name!r} of case {case} is {tensor[case].tolist()}; it must be positive")
        return tensors

    @abstractmethod
    def sample(self, n: int, subset: str, seed: int, resolution: int = 64, frames: int = 21) -> Sample:
        """Draw ``n`` cases of a subset (or of ``"all"``) that a grid of this resolution resolves."""

    @abstractmethod
    def frame_times(self, parameters: ParameterValues, frames: int) -> Tensor:
        """The default times of the frames, ``(B, frames)`` in seconds."""

    @abstractmethod
    def solve(
        self, parameters: ParameterValues, resolution: int | Sequence[int], times: Tensor, **options: Any
    ) -> dict[str, Tensor]:
        """Solve a batch of cases: the trajectory dictionary of ARCHITECTURE.md."""

    @abstractmethod
    def cost(self, parameters: ParameterValues, times: Tensor, resolution: int) -> Tensor:
        """Estimated solver steps of each case, ``(B,)``: generation groups cases of similar cost."""

    @abstractmethod
    def scales(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The natural unit of each component, name -> ``(B, components)``: divided by it a field is dimensionless.

        The parameters may have any shape; the components come last.
        """

    @abstractmethod
    def conditions(self, parameters: Mapping[str, Tensor], interval: Tensor) -> Tensor:
        """The dimensionless numbers ``(B, len(condition_names))`` of a step of length ``interval (B,)``."""

    @abstractmethod
    def coordinates(self, parameters: Mapping[str, Tensor], resolution: Sequence[int]) -> dict[str, Tensor]:
        """Cell centres in metres, ``{"x": (B, nx), "y": (B, ny)}``."""

    @abstractmethod
    def dataset_info(self, resolution: Sequence[int], frames: int, **extra: Any) -> DatasetInfo:
        """What a generated file says about itself."""

    @abstractmethod
    def residual(self, trajectory: Mapping[str, Tensor], parameters: ParameterValues) -> dict[str, tuple[Tensor, ...]]:
        """Discrete PDE residual of a trajectory by equation (e.g. momentum, continuity), differentiable."""

    @abstractmethod
    def recipe(self, operator: str | None = None) -> dict[str, Any]:
        """The default training configuration, as a plain dictionary of the training schema."""


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


def _as_float64(name: str, value: Any) -> Tensor:
    try:
        return torch.as_tensor(value, dtype=torch.float64).cpu()  # a few numbers: they live where they are checked
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"parameter {name!r} is {value!r}; expected a number or a list of numbers") from None
