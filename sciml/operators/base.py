"""What operators between fields share: the constructor's arguments, checks of the input, the registry."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from sciml.errors import CheckpointError, ConfigError, DataError
from sciml.operators.stored import Stored, check_positive, find

if TYPE_CHECKING:
    from typing_extensions import Self

GRID_AXES = {1: "nx", 2: "nx, ny", 3: "nx, ny, nz"}


class Operator(Stored):
    """A network from fields to fields on a regular grid.

    A subclass sets ``name`` (its key in ``OPERATORS``), calls ``super().__init__`` first, and defines
    ``forward(x, *, time=None, parameters=None)`` with ``x (B, in_channels, *grid)``, ``time (B,)`` and
    ``parameters (B, n_parameters)``, which returns ``(B, temporal * out_channels, *grid)``, frames first:
    ``.unflatten(1, (temporal, out_channels))[:, k]`` is frame k + 1. ``Operator.from_pretrained`` finds the class in
    ``OPERATORS``.

    Args:
        dim: number of grid axes, 1 to 3.
        n_parameters: length of the vector that the operator is conditioned on; 0 for none.
        time_conditioning: whether ``forward`` needs the lead time ``time``. An operator without it refuses a
            ``time``, because an input that is silently ignored is a fault that nobody finds.

    Raises:
        ConfigError: an argument is not a positive whole number, or cannot be written as JSON.
    """

    dims: ClassVar[tuple[int, ...]] = (1, 2, 3)
    """Numbers of grid axes that it exists for."""
    temporal: int = 1
    """Successive frames that one call gives, as ``temporal * out_channels`` channels, frames first."""
    stride: int = 1
    """Intervals from one of these frames to the next; what it is conditioned on is that of one interval."""

    @classmethod
    def family(cls) -> "Mapping[str, type[Operator]]":
        """``OPERATORS``."""
        from sciml.operators import OPERATORS  # the registry imports this module

        return OPERATORS

    @classmethod
    def options_for(cls, dim: int, periodic: bool) -> dict[str, Any]:
        """Options that make it an operator on ``dim`` grid axes, all of them periodic or not."""
        return {"dim": dim}

    @classmethod
    def options_for_names(
        cls, inputs: Sequence[str], outputs: Sequence[str], parameters: Sequence[str]
    ) -> dict[str, Any]:
        """Options that tell it what its channels and parameters are, for operators that keep such names."""
        return {}

    @classmethod
    def fine_tuned_from(
        cls,
        source: str | Path,
        *,
        inputs: Sequence[str],
        outputs: Sequence[str],
        parameters: Sequence[str] = (),
        options: dict[str, Any] | None = None,
    ) -> "Self":
        """An operator for these channels and parameters (by name) that starts from the weights in ``source``.

        Here the numbers of channels and parameters have to be those of the source; an operator that knows what its
        channels are may keep what is shared and add what is new. ``options`` are options of the operator that may
        differ from the source's; here none.

        Raises:
            CheckpointError: nothing to load, or it does not fit.
        """
        operator = cls.from_pretrained(source)
        wanted = {"in_channels": len(inputs), "out_channels": len(outputs), "n_parameters": len(parameters)}
        for key, count in wanted.items():
            if getattr(operator, key) != count:
                raise CheckpointError(
                    f"{source}: the operator has {key} = {getattr(operator, key)}, {count} are needed here; "
                    f"a {cls.name} starts from weights of the same channels and parameters only"
                )
        for key, value in (options or {}).items():
            if operator.config.get(key) != value:
                raise CheckpointError(
                    f"{source}: the operator has {key} = {operator.config.get(key)!r}, not {value!r}; leave out what "
                    "the pretrained operator decides"
                )
        return operator

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dim: int,
        n_parameters: int = 0,
        time_conditioning: bool = False,
    ) -> None:
        super().__init__()
        check_positive(self.name, in_channels=in_channels, out_channels=out_channels)
        if dim not in GRID_AXES:
            raise ConfigError(f"{self.name}: the grid has {dim} axes; expected 1, 2 or 3")
        if n_parameters < 0:
            raise ConfigError(f"{self.name}: n_parameters is {n_parameters}; expected 0 or more")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.dim = dim
        self.n_parameters = n_parameters
        self.time_conditioning = time_conditioning

    def check_input(self, x: Tensor, parameters: Tensor | None, time: Tensor | None) -> None:
        """Compare the shapes of the arguments of ``forward`` with what the operator was made for.

        Skipped while compiling or exporting, where shapes are fixed by the trace.

        Raises:
            DataError: a shape is wrong, or an argument is missing or not wanted.
        """
        if torch.compiler.is_compiling():
            return
        expected = f"(batch, {self.in_channels}, {GRID_AXES[self.dim]})"
        if x.ndim != self.dim + 2 or x.shape[1] != self.in_channels:
            raise DataError(f"{self.name}: x has shape {tuple(x.shape)}; expected {expected}")
        batch = x.shape[0]
        if self.n_parameters:
            given = "missing" if parameters is None else f"of shape {tuple(parameters.shape)}"
            if parameters is None or parameters.shape != (batch, self.n_parameters):
                raise DataError(f"{self.name}: parameters are {given}; expected ({batch}, {self.n_parameters})")
        elif parameters is not None and parameters.numel():
            raise DataError(
                f"{self.name}: parameters of shape {tuple(parameters.shape)} were given to an operator "
                "without parameters; construct it with n_parameters, or leave them out"
            )
        if self.time_conditioning:
            given = "missing" if time is None else f"of shape {tuple(time.shape)}"
            if time is None or time.shape != (batch,):
                raise DataError(f"{self.name}: time is {given}; expected ({batch},)")
        elif time is not None:
            raise DataError(
                f"{self.name}: time was given to an operator without lead time; construct it with "
                "time_conditioning=True, or leave it out"
            )


def find_operator(name: str) -> type[Operator]:
    """The class registered as ``name``.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    return find(name, Operator.family())


def create_operator(name: str, **config: Any) -> Operator:
    """An operator by its registered name, e.g. ``create_operator("fno", in_channels=2, out_channels=2)``.

    Raises:
        ConfigError: an unknown name, an unknown or missing constructor argument, or a value out of range.
    """
    return find_operator(name).create(config)
