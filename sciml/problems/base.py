"""What a problem is: the declaration that generation, training and the surrogate read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from sciml.datasets import DatasetInfo, FaceFieldInfo, FieldInfo
from sciml.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from sciml.physics import Boundary, Condition, Grid

ParameterValues = Mapping[str, Any]
SMALLEST_RESOLUTION = 8


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


class Problem(ABC):
    """Fields, parameters, subsets, scales and the solver of one kind of flow or field.

    A subclass declares the class attributes and implements the abstract methods; ``fields`` may be a property where
    it depends on ``dim``. Parameters travel as a dictionary name -> ``(B,)`` tensor; a value that changes in time is
    ``(B, T)``, entry t acting from frame t to frame t + 1. A random initial or coefficient field is a function of the
    parameters too (of those that are a ``draw``), so the parameters alone say what a case is, at any resolution.

    Args:
        dim: number of space dimensions, by default the first of ``dims``.

    Raises:
        ConfigError: the problem does not exist in that many dimensions.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    dims: ClassVar[tuple[int, ...]] = (2,)
    fields: tuple[FieldInfo, ...]
    face_fields: tuple[FaceFieldInfo, ...] = ()
    parameters: ClassVar[tuple[Parameter, ...]]
    subsets: ClassVar[tuple[str, ...]]
    mixture: ClassVar[tuple[str, ...]] = ()
    """The order in which the subset ``all`` takes its cases; empty: the subsets in turn."""
    hard_subsets: ClassVar[tuple[str, ...]] = ()
    condition_names: ClassVar[tuple[str, ...]] = ()
    lookup_weights: ClassVar[tuple[float, ...]] = ()
    learned: ClassVar[tuple[str, ...]] = ("velocity",)
    """The fields that a surrogate predicts unless the configuration says otherwise."""
    given: ClassVar[tuple[str, ...]] = ()
    """Of a static problem: the fields that the learned ones follow from."""
    static: ClassVar[bool] = False
    """One frame and no time: some fields are given, the others follow."""
    divergence_free: ClassVar[bool] = False
    first_frame: ClassVar[int] = 0
    """Evaluation starts from this true frame: 1 where frame 0 is a fluid at rest."""
    resolution: ClassVar[int] = 64
    """Default cells along the side that ``grid`` counts."""
    frames: ClassVar[int] = 21
    frame_interval: ClassVar[float] = 1.0
    """Seconds between frames, the same for all cases."""
    group: ClassVar[int] = 12
    """Cases that generation solves together: enough to use the cache well, few enough to keep all cores busy."""
    boundary_parameters: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Side -> the parameter that sets its value."""
    corners: ClassVar[str] = ""
    """Axes ("x", "xy") in the order in which their sides own the corners where the values of two sides disagree; empty:
    they agree everywhere."""
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

    # ------------------------------------------------------------------------------------------------ space and time

    def grid(self, resolution: int | Sequence[int] | None = None) -> tuple[int, ...]:
        """Cells along each axis of a resolution: ``64 -> (64, 64)``.

        Raises ``ConfigError`` for anything but a count of at least 8, or ``dim`` of them.
        """
        resolution = self.resolution if resolution is None else resolution
        shape = (resolution,) * self.dim if isinstance(resolution, int) else tuple(resolution)
        if len(shape) != self.dim or any(not isinstance(n, int) or n < SMALLEST_RESOLUTION for n in shape):
            raise ConfigError(
                f"resolution is {resolution!r}; expected a whole number >= {SMALLEST_RESOLUTION}, or {self.dim} of them"
            )
        return shape

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

    @abstractmethod
    def lengths(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Sides of the box in metres, ``(B, dim)``."""

    def origin(self) -> tuple[float, ...]:
        """The low corner of the box in metres."""
        return (0.0,) * self.dim

    def coordinates(self, parameters: Mapping[str, Tensor], resolution: Sequence[int]) -> dict[str, Tensor]:
        """Cell centres in metres, ``{"x": (B, nx), "y": (B, ny), ...}``."""
        sides = self.lengths(parameters).double()
        centres = [(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in resolution]
        return {
            axis: low + sides[:, i, None] * centres[i]
            for i, (axis, low) in enumerate(zip("xyz", self.origin(), strict=False))
        }

    def physics_grid(self, parameters: Mapping[str, Tensor], shape: Sequence[int]) -> Grid:
        """The grid of ``shape`` equal cells, with the box of each case; parameters are ``(B,)``."""
        from sciml.physics import box

        kinds = self.side_kinds(parameters)
        periodic = tuple(kinds[f"{axis}_low"] == "periodic" for axis in "xyz"[: self.dim])
        return box(tuple(shape), self.lengths(parameters), periodic=periodic)

    def side_kinds(self, parameters: Mapping[str, Tensor]) -> dict[str, str]:
        """``boundaries`` of these cases, where the parameters decide about it."""
        return self.boundaries()

    def conditions_on_sides(
        self, parameters: Mapping[str, Tensor], shape: Sequence[int]
    ) -> dict[str, dict[str, Boundary | Condition]]:
        """What the problem knows about each field on each side: field -> side -> condition.

        Of a velocity those of ``sciml.physics.boundary``, of a scalar ``Dirichlet``, ``Neumann``, ``Robin`` or
        ``Periodic``; a field of whose boundary nothing is prescribed is left out. Parameters are ``(B,)``, those of one
        step where they change in time; values that vary along a side are those on the ``shape`` cells.

        By default every field is periodic if the box is, and nothing is known otherwise.
        """
        from sciml.physics import Periodic

        kinds = self.side_kinds(parameters)
        if set(kinds.values()) != {"periodic"}:
            return {}
        return {info.name: {side: Periodic() for side in kinds} for info in self.fields}

    # ------------------------------------------------------------------------------------------------------ the flow

    @abstractmethod
    def solve(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        times: Tensor | Sequence[float] | None = None,
        **options: Any,
    ) -> dict[str, Tensor]:
        """Solve a batch of cases: the trajectory dictionary of ARCHITECTURE.md.

        Options of every problem: ``dtype`` (float32), ``device`` ("cpu").
        """

    @abstractmethod
    def cost(self, parameters: ParameterValues, times: Tensor, resolution: int) -> Tensor:
        """Estimated solver steps of each case, ``(B,)``: generation groups cases of similar cost."""

    @abstractmethod
    def residual(self, trajectory: Mapping[str, Tensor], parameters: ParameterValues) -> dict[str, tuple[Tensor, ...]]:
        """Discrete PDE residual of a trajectory by equation (e.g. momentum, continuity), differentiable."""

    # ------------------------------------------------------------------------------------------------------ learning

    @abstractmethod
    def scales(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The natural unit of each component, name -> ``(B, components)``: divided by it a field is dimensionless.

        The parameters may have any shape; the components come last.
        """

    @abstractmethod
    def conditions(self, parameters: Mapping[str, Tensor], interval: Tensor) -> Tensor:
        """The dimensionless numbers ``(B, len(condition_names))`` of a step of length ``interval (B,)``."""

    @abstractmethod
    def recipe(self, operator: str | None = None) -> dict[str, Any]:
        """The default training configuration, as a plain dictionary of the training schema."""

    # ------------------------------------------------------------------------------------------------------- on disk

    @abstractmethod
    def boundaries(self, subset: str = "all") -> dict[str, str]:
        """The kind of every side (``sciml.datasets.info.BOUNDARY_KINDS``) in a subset."""

    def dataset_info(self, resolution: Sequence[int], frames: int, subset: str = "all", **extra: Any) -> DatasetInfo:
        """What a generated file says about itself."""
        return DatasetInfo(
            problem=self.name,
            fields=self.fields,
            face_fields=self.face_fields,
            parameters={parameter.name: parameter.unit for parameter in self.parameters},
            grid=tuple(resolution),
            n_frames=frames,
            boundaries=self.boundaries(subset),
            boundary_parameters=self.boundary_parameters,
            solver=self.solver,
            **extra,
        )


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


def as_times(times: Tensor | Sequence[float], batch: int) -> Tensor:
    """``(T,)`` or ``(B, T)`` increasing times from 0 as ``(B, T)`` float64.

    Raises ``ConfigError`` otherwise.
    """
    values = torch.as_tensor(times, dtype=torch.float64)
    values = values.expand(batch, -1) if values.ndim == 1 else values
    if values.ndim != 2 or values.shape[0] != batch or values.shape[1] < 1:
        raise ConfigError(f"times have shape {tuple(values.shape)}; expected (T,) or ({batch}, T)")
    if not torch.isfinite(values).all() or (values[:, 0] != 0).any() or (values.diff(dim=1) <= 0).any():
        raise ConfigError("times must start at 0 (the initial state) and increase")
    return values


def detached(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without gradients: for checks, which look at numbers."""
    return {name: value.detach() for name, value in values.items()}


def _as_float64(name: str, value: Any) -> Tensor:
    try:
        return torch.as_tensor(value, dtype=torch.float64).cpu()  # a few numbers: they live where they are checked
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"parameter {name!r} is {value!r}; expected a number or a list of numbers") from None
