"""What the particle problems share: a box of one material, random bodies in it, gravity, and the material point method.

Axis 1 (y) points up in 2D and in 3D. In 2D everything is per metre of depth.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from sciml.datasets.particles import ParticleInfo, ParticleTrajectory
from sciml.errors import ConfigError, SolverError
from sciml.problems.base import as_times
from sciml.problems.cases import CaseFamily, Parameter, ParameterValues
from sciml.problems.draws import draw_number, log_uniform, uniform
from sciml.problems.particles.layouts import LAYOUTS, layout
from sciml.problems.particles.recipes import particle_recipe
from sciml.problems.particles.scene import Body, Scene, gravity_vector, solve_scenes
from sciml.solvers.mpm import Material
from sciml.solvers.mpm.walls import Contact

OBSTACLE = "obstacle"
"""The kind of particles that do not move, and the subset that has them."""
SMALLEST_RESOLUTION = 16
"""Cells along the box: bodies are then a few cells wide."""

SCENE_PARAMETERS = (
    Parameter("scene", "1", f"layout of the bodies: {', '.join(f'{i} {k}' for i, k in enumerate(LAYOUTS))}", draw=True),
    Parameter("draw", "1", "shapes, places and velocities of the bodies, and where particles lie in them", draw=True),
)
"""Beside these a particle problem has material parameters only."""


class Range(NamedTuple):
    """What a parameter is drawn from: uniform, or with ``log`` in its logarithm."""

    low: float
    high: float
    scale: Literal["uniform", "log"] = "uniform"

    def draw(self, generator: torch.Generator) -> float:
        """One value."""
        return (log_uniform if self.scale == "log" else uniform)(generator, self.low, self.high)


class ParticleProblem(CaseFamily):
    """One material in the unit box. A subclass declares the class attributes and ``material``.

    A case is its material parameters (one value for all its particles, the columns of
    ``ParticleTrajectory.parameters``), the ``scene`` (which layout) and the ``draw``. Every subset is one kind of
    layout: ``drop`` one body in the air, ``column`` at a wall, ``blocks`` two or three bodies, ``pool`` a body above a
    layer, ``obstacle`` above a fixed ball. The hard subsets are bodies of a kind that no other subset has; ``outside``
    is everything else, that is ``all``.
    """

    dims = (2, 3)
    hard_subsets = ("ring", "cross")
    frame_interval = 5e-3
    group = 1
    solver = "sciml MLS-MPM"
    density: ClassVar[float] = 1000.0
    """kg/m^3."""
    walls: ClassVar[Contact] = "slip"
    """What the sides of the box and obstacles do: of ``sciml.solvers.mpm``."""
    ranges: ClassVar[Mapping[str, Range]] = MappingProxyType({})
    """Material parameter -> what ``draw`` draws it from."""

    # ------------------------------------------------------------------------------------------------ what there is

    @property
    def resolution(self) -> int:  # type: ignore[override]
        """Default cells along the box."""
        return {2: 64, 3: 32}[self.dim]

    @property
    def frames(self) -> int:  # type: ignore[override]
        """Default number of frames."""
        return {2: 300, 3: 200}[self.dim]

    @property
    def material_parameters(self) -> tuple[Parameter, ...]:
        """The columns of ``ParticleTrajectory.parameters``."""
        return tuple(parameter for parameter in self.parameters if not parameter.draw)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the kinds of particles, the same in every subset."""
        return (self.name, OBSTACLE)

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """(low, high) of the box along each axis, metres."""
        return ((0.0, 1.0),) * self.dim

    @property
    def gravity(self) -> tuple[float, ...]:
        """m/s^2 along each axis."""
        return gravity_vector(self.dim)

    @abstractmethod
    def material(self, values: Mapping[str, float]) -> Material:
        """The material with these parameters."""

    def recipe(self, operator: str | None = None) -> dict[str, Any]:
        """The default training configuration, as a plain dictionary of the training schema."""
        return particle_recipe(self.name, operator, self.dim)

    # ---------------------------------------------------------------------------------------------------- sampling

    def draw(self, subset: str, generator: torch.Generator, resolution: int) -> dict[str, float]:
        self.check_resolution(resolution)
        case = {name: values.draw(generator) for name, values in self.ranges.items()}
        return {**case, "scene": float(list(LAYOUTS).index(subset)), "draw": draw_number(generator)}

    def check_subset(self, n: int, subset: str) -> None:
        """Raise ``ConfigError`` for an unknown subset or for no cases."""
        super().check_subset(n, "all" if subset == "outside" else subset)

    def case_subsets(self, n: int, subset: str) -> tuple[str, ...]:
        """The subset of each of ``n`` cases; ``outside`` of the hard ones is ``all``."""
        return super().case_subsets(n, "all" if subset == "outside" else subset)

    def check_resolution(self, resolution: int) -> int:
        """``resolution`` if it is a whole number of cells that bodies can be made of; raises ``ConfigError``."""
        if not isinstance(resolution, int) or resolution < SMALLEST_RESOLUTION:
            raise ConfigError(
                f"resolution is {resolution!r}; expected a whole number of cells along the box >= {SMALLEST_RESOLUTION}"
            )
        return resolution

    def subset_of(self, scene: float) -> str:
        """The subset that a value of the parameter ``scene`` stands for.

        Raises ``ConfigError`` where the problem does not have it.
        """
        known = {i: kind for i, kind in enumerate(LAYOUTS) if kind in (*self.subsets, *self.hard_subsets)}
        if scene not in known:
            expected = ", ".join(f"{i} ({kind})" for i, kind in known.items())
            raise ConfigError(f"problem {self.name!r} has no scene {scene:g}; expected {expected}")
        return known[int(scene)]

    # ---------------------------------------------------------------------------------------------------- solving

    def scenes(self, parameters: ParameterValues) -> list[Scene]:
        """What moves and what does not, case by case."""
        values = self.as_parameters(parameters)
        self._refuse_changes(values)
        cases = len(next(iter(values.values())))
        return [self._scene({name: float(tensor[case]) for name, tensor in values.items()}) for case in range(cases)]

    def _scene(self, case: Mapping[str, float]) -> Scene:
        start = layout(self.subset_of(case["scene"]), int(case["draw"]), self.dim)
        own = {parameter.name: case[parameter.name] for parameter in self.material_parameters}
        material, columns = self.material(own), tuple(own.values())
        bodies = [
            Body(motion.shape, material, self.density, 0, columns, motion.velocity, motion.spin)
            for motion in start.bodies
        ]
        return Scene(bodies, start.obstacles, self.kinds.index(OBSTACLE), draw=int(case["draw"]))

    def _refuse_changes(self, values: Mapping[str, Tensor]) -> None:
        for name, tensor in values.items():
            if tensor.ndim > 1:
                raise ConfigError(
                    f"parameter {name!r} has shape {tuple(tensor.shape)}; a material does not change in time: give "
                    f"({tensor.shape[0]},)"
                )

    def solve(
        self,
        parameters: ParameterValues,
        resolution: int | None = None,
        times: Tensor | Sequence[float] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        together: int | None = None,
    ) -> list[ParticleTrajectory]:
        """Solve cases: one trajectory each, on the CPU, with ``subset`` and ``case_parameters``.

        ``resolution``: cells along the box; ``times``: ``(T,)`` or ``(B, T)``, the same in every case, equally far
        apart; ``together``: how many cases share a run of the solver (and its time steps), by default ``group``.

        Raises ``ConfigError`` for bad arguments and ``SolverError`` for a case that cannot be solved.
        """
        resolution = self.check_resolution(self.resolution if resolution is None else resolution)
        values = self.as_parameters(parameters)
        scenes = self.scenes(values)
        frames = as_times(self.frame_times(values) if times is None else times, len(scenes))
        if not torch.allclose(frames, frames[:1].expand_as(frames)):
            raise ConfigError("the cases have different times; solve them one by one")
        together = self.group if together is None else together
        if together < 1:
            raise ConfigError(f"together is {together}; at least 1 case is solved at a time")
        solved: list[ParticleTrajectory] = []
        for start in range(0, len(scenes), together):
            chosen = scenes[start : start + together]
            try:
                solved += solve_scenes(chosen, resolution, frames[0], walls=self.walls, dtype=dtype, device=device)
            except SolverError as error:
                raise SolverError(_with_case_numbers(str(error), start)) from error
        return [self._labelled(each, {n: float(v[i]) for n, v in values.items()}) for i, each in enumerate(solved)]

    def _labelled(self, trajectory: ParticleTrajectory, case: dict[str, float]) -> ParticleTrajectory:
        return replace(trajectory, subset=self.subset_of(case["scene"]), case_parameters=case)

    def cost(self, parameters: ParameterValues, times: Tensor, resolution: int) -> Tensor:
        """Estimated work of each case, ``(B,)``: particles times steps."""
        scenes = self.scenes(parameters)
        particles = torch.tensor([scene.content for scene in scenes], dtype=torch.float64) * resolution**self.dim
        return particles * times[:, -1] * resolution

    # ------------------------------------------------------------------------------------------------------- on disk

    def particle_info(self, interval: float | None = None, seed: int | None = None, **extra: str) -> ParticleInfo:
        """What a generated file says about itself; ``extra``: more that a later run needs to make it again."""
        return ParticleInfo(
            problem=self.name,
            dim=self.dim,
            interval=self.frame_interval if interval is None else interval,
            bounds=self.bounds,
            gravity=self.gravity,
            kinds=self.kinds,
            parameters={parameter.name: parameter.unit for parameter in self.material_parameters},
            case_parameters={parameter.name: parameter.unit for parameter in self.parameters},
            solver=self.solver,
            seed=seed,
            extra=extra,
        )


def _with_case_numbers(message: str, first: int) -> str:
    """The solver's message about scenes, as one about cases of which the first scene is number ``first``."""
    return re.sub(r"\bscene (\d+)\b", lambda found: f"case {first + int(found[1])}", message)
