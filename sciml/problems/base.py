"""What a problem is: the declaration that generation, training and the surrogate read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from sciml.datasets import DatasetInfo, FaceFieldInfo, FieldInfo
from sciml.errors import ConfigError, DataError
from sciml.problems.cases import CaseFamily, ParameterValues

if TYPE_CHECKING:
    from sciml.physics import Boundary, Condition, Grid

SMALLEST_RESOLUTION = 8

FLUID = FieldInfo("fluid", 1, "1", 0)
"""1 in the cells whose centre is in the fluid, 0 in the solid."""
SIGNED_DISTANCE = FieldInfo("signed_distance", 1, "m", 0)
"""Distance of a cell's centre to the obstacle's surface: positive in the fluid, negative in the solid."""


class Problem(CaseFamily):
    """Fields, parameters, subsets, scales and the solver of one kind of flow or field.

    A subclass declares the class attributes and implements the abstract methods; ``fields`` may be a property where
    it depends on ``dim``. Of the parameters, random fields and ``dim`` see ``CaseFamily``.
    """

    fields: tuple[FieldInfo, ...]
    face_fields: tuple[FaceFieldInfo, ...] = ()
    geometry_fields: tuple[FieldInfo, ...] = ()
    """What ``geometry`` gives, constant in time: ``FLUID`` and, where it is known, ``SIGNED_DISTANCE``. Empty: no case
    has an obstacle in its box."""
    series: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Numbers of each frame that ``solve`` gives beside the fields, name -> unit: drag, lift."""
    condition_names: ClassVar[tuple[str, ...]] = ()
    lookup_weights: ClassVar[tuple[float, ...]] = ()
    learned: ClassVar[tuple[str, ...]] = ("velocity",)
    """The fields that a surrogate predicts unless the configuration says otherwise."""
    given: ClassVar[tuple[str, ...]] = ()
    """Of a static problem: the fields that the learned ones follow from."""
    divergence_free: ClassVar[bool] = False
    first_frame: ClassVar[int] = 0
    """Evaluation starts from this true frame: 1 where frame 0 is a fluid at rest."""
    steps_by_equation: ClassVar[bool] = False
    """Whether the equation alone says what a step is worth: there are ``start``, ``step_defect`` and
    ``trajectory_defect``, and a surrogate can learn without any data."""
    boundary_parameters: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Side -> the parameter that sets its value."""
    corners: ClassVar[str] = ""
    """Axes ("x", "xy") in the order in which their sides own the corners where the values of two sides disagree; empty:
    they agree everywhere."""

    # ------------------------------------------------------------------------------------------------ space and time

    def grid(self, resolution: int | Sequence[int] | None = None) -> tuple[int, ...]:
        """Cells along each axis of a resolution: ``64 -> (64, 64)``.

        Raises ``ConfigError`` for anything but a count of at least 8, or ``dim`` of them.
        """
        resolution = self.resolution if resolution is None else resolution
        shape = tuple(resolution) if isinstance(resolution, Sequence) else (resolution,) * self.dim
        if len(shape) != self.dim or any(not isinstance(n, int) or n < SMALLEST_RESOLUTION for n in shape):
            raise ConfigError(
                f"resolution is {resolution!r}; expected a whole number >= {SMALLEST_RESOLUTION}, or {self.dim} of them"
            )
        return shape

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

    # ------------------------------------------------------------------------------------------------------ geometry

    def geometry(self, parameters: Mapping[str, Tensor], shape: Sequence[int]) -> dict[str, Tensor]:
        """Where the fluid is on the grid of ``shape`` cells: each of ``geometry_fields``, ``(B, 1, *shape)`` float32.

        A pure function of the parameters, of which those that change in time play no part: the obstacle does not move.
        ``fluid`` is 1 in the cells whose centre is in the fluid and 0 in the solid; ``signed_distance`` is metres,
        positive in the fluid. Every field of a trajectory is 0 in solid cells.

        Raises ``ConfigError`` for a problem without obstacles, and for an obstacle that cannot be.
        """
        raise ConfigError(f"problem {self.name!r} has no obstacles: the whole box is fluid")

    @property
    def geometry_channels(self) -> tuple[str, ...]:
        """The names of the channels of ``geometry_inputs``."""
        return tuple(info.name for info in self.geometry_fields)

    def geometry_inputs(self, parameters: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
        """What operators read of the geometry, dimensionless and of order one: ``(B, len(geometry_channels), *shape)``
        float32.

        By default the geometry fields, those in metres over ``geometry_length``. Raises as ``geometry``.
        """
        found = self.geometry(parameters, shape)
        column = (-1, *(1,) * (len(shape) + 1))
        parts = []
        for info in self.geometry_fields:
            values = found[info.name]
            if info.unit == "m":
                values = values / self.geometry_length(parameters).reshape(column).to(values)
            parts.append(values)
        return torch.cat(parts, 1)

    def geometry_length(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The length ``(B,)`` in metres that operators see distances in; by default the box's shortest side."""
        return self.lengths(parameters).amin(1)

    def fluid_cells(self, parameters: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor | None:
        """Which cells are in the fluid, ``(B, *shape)`` bool; None where the problem has no obstacles."""
        if not self.geometry_fields:
            return None
        return self.geometry(parameters, shape)[FLUID.name][:, 0] > 0.5

    def diagnose(
        self, frames: Mapping[str, Tensor], parameters: Mapping[str, Tensor], time: Tensor
    ) -> dict[str, Tensor]:
        """Those of ``series`` that can be estimated from fields ``(B, T, components, *grid)`` at ``time (B, T)``
        seconds, on the grid alone: name -> ``(B, T)`` float64 in the unit of the series.

        What a surrogate's fields are judged by beside the solver's own numbers; ``frames`` holds the learned fields,
        or more. Parameters are ``(B,)``. By default nothing.
        """
        return {}

    # ------------------------------------------------------------------------------------------------------ the flow

    @abstractmethod
    def solve(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        times: Tensor | Sequence[float] | None = None,
        **options: Any,
    ) -> dict[str, Tensor]:
        """Solve a batch of cases: the trajectory dictionary of ARCHITECTURE.md, with the geometry fields ``(B, 1,
        *grid)`` and the series ``(B, T)`` of the problem.

        Options of every problem: ``dtype`` (float32), ``device`` ("cpu").
        """

    @abstractmethod
    def cost(self, parameters: ParameterValues, times: Tensor, resolution: int) -> Tensor:
        """Estimated solver steps of each case, ``(B,)``: generation groups cases of similar cost."""

    @abstractmethod
    def residual(self, trajectory: Mapping[str, Tensor], parameters: ParameterValues) -> dict[str, tuple[Tensor, ...]]:
        """Discrete PDE residual of a trajectory by equation (e.g. momentum, continuity), differentiable."""

    # -------------------------------------------------------------------------------------------- the equation alone

    def start(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """The learned fields at time 0, ``(B, C, *grid)`` in the order of ``learned``.

        Raises ``ConfigError`` for bad parameters, and where ``steps_by_equation`` is False.
        """
        raise ConfigError(self._no_steps())

    def step_defect(self, before: Tensor, after: Tensor, parameters: ParameterValues, interval: Tensor) -> Tensor:
        """What the equation leaves over of the step from ``before`` to ``after``, ``(B, C, *grid)`` in their units.

        0 exactly where ``after`` is the Crank-Nicolson step of ``interval (B,)`` seconds from ``before``, with the
        solver's operators in space; near that, about the error of ``after`` (the residual of the rule is preconditioned
        by its implicit part). The states are those of the learned fields, ``(B, C, *grid)``, float32 or float64; the
        parameters are ``(B,)`` and hold for the whole step. Differentiable in both states.

        Raises ``DataError`` for states of another shape, ``ConfigError`` for bad parameters or intervals and where
        ``steps_by_equation`` is False.
        """
        if before.shape != after.shape:
            raise DataError(f"before has shape {tuple(before.shape)} and after {tuple(after.shape)}; they must agree")
        return self.trajectory_defect(torch.stack([before, after], 1), parameters, interval)[:, 0]

    def trajectory_defect(self, frames: Tensor, parameters: ParameterValues, interval: Tensor) -> Tensor:
        """``step_defect`` from each of the frames ``(B, K + 1, C, *grid)`` to the next: ``(B, K, C, *grid)``.

        Cheaper than step by step: what depends on one frame only is computed once. All steps are ``interval (B,)``.
        """
        raise ConfigError(self._no_steps())

    def _no_steps(self) -> str:
        from sciml.problems import PROBLEMS

        known = ", ".join(name for name, kind in PROBLEMS.items() if kind.steps_by_equation)
        return (
            f"problem {self.name!r} does not say what its equation leaves over of a step, so nothing can be learned "
            f"from the equation alone; those that do are {known}"
        )

    def _of_steps(
        self, frames: Tensor, parameters: ParameterValues, interval: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The parameters ``(B,)`` and the interval ``(B,)`` of frames ``(B, K + 1, C, *grid)``, all checked."""
        channels = sum(info.components for info in self.fields if info.name in self.learned)
        if frames.ndim != self.dim + 3 or frames.shape[1] < 2 or frames.shape[2] != channels:
            raise DataError(
                f"frames have shape {tuple(frames.shape)}; expected (cases, 2 or more frames, {channels} components of "
                f"{', '.join(self.learned)}, {self.dim} axes of the grid)"
            )
        if frames.dtype not in (torch.float32, torch.float64):
            raise DataError(f"frames are {frames.dtype}; what an equation leaves over needs float32 or float64")
        values = self.as_parameters(parameters, len(frames), draws=False)
        varying = [name for name, value in values.items() if value.ndim > 1]
        if varying:
            raise ConfigError(f"{', '.join(varying)} changes in time; a step has one value for each case")
        interval = torch.as_tensor(interval)
        if interval.shape != (len(frames),) or not bool((torch.isfinite(interval) & (interval > 0)).all()):
            raise ConfigError(
                f"interval is {interval.tolist()}; expected the positive seconds of a step of each of {len(frames)} "
                "cases"
            )
        return values, interval

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
            constant_fields=self.geometry_fields,
            series=self.series,
            parameters={parameter.name: parameter.unit for parameter in self.parameters},
            grid=tuple(resolution),
            n_frames=frames,
            boundaries=self.boundaries(subset),
            boundary_parameters=self.boundary_parameters,
            solver=self.solver,
            **extra,
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
