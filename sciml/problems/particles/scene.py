"""From bodies to particles and through time: scenes of one or several materials, solved with the material point method.

``solve_scenes`` is what the particle problems use, and what a scene of one's own goes through::

    pool = Body(Block(lower, upper), Fluid(sound_speed=20.0), density=1000.0, kind=0)
    stone = Body(ball(centre, 0.1), FixedCorotated(1e6, 0.3), density=2000.0, kind=1)
    trajectory = solve_scene(Scene([pool, stone]), resolution=64, times=5e-3 * torch.arange(300))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.datasets.particles import ParticleTrajectory
from sciml.errors import ConfigError
from sciml.problems.particles.layouts import UP
from sciml.problems.particles.shapes import Placed, Shape, lattice
from sciml.solvers.mpm import Disk, Material, MPMSolver, Obstacle
from sciml.solvers.mpm.walls import Contact

GRAVITY = 9.81
"""m/s^2, against axis ``UP``."""
PER_CELL = 2
"""Particles along each side of a cell: 4 in a square, 8 in a cube."""
COURANT = 0.4


@dataclass(frozen=True)
class Body:
    """A shape full of a material that starts as a rigid body.

    - ``material``: of ``sciml.solvers.mpm``; ``density`` in kg/m^3
    - ``kind``: its number among the kinds of the scene; ``parameters``: columns of ``ParticleTrajectory.parameters``
    - ``velocity (d,)`` m/s of the centre of the shape, ``spin`` rad/s about it: ``(1,)`` in 2D, ``(3,)`` in 3D; None:
      at rest
    """

    shape: Shape
    material: Material
    density: float
    kind: int = 0
    parameters: tuple[float, ...] = ()
    velocity: Tensor | None = None
    spin: Tensor | None = None


@dataclass(frozen=True)
class Scene:
    """Bodies and fixed balls (2D: disks) in the unit box.

    The particles of obstacles only show where they are; they get the kind ``obstacle_kind`` and the columns
    ``obstacle_parameters`` (by default those of the first body, so that they are no outliers). ``draw`` selects where
    in its shape each particle lies.
    """

    bodies: Sequence[Body]
    obstacles: Sequence[Placed] = ()
    obstacle_kind: int = 1
    obstacle_parameters: tuple[float, ...] | None = None
    draw: int = 0

    @property
    def content(self) -> float:
        """About the area or volume of the bodies, m^d."""
        return sum(body.shape.content for body in self.bodies)


@dataclass(frozen=True)
class Particles:
    """The particles of a scene, those of the bodies one after the other, then those of the obstacles.

    ``position``, ``velocity (N, d)``; ``body (N,)``: number of the body, -1 of obstacles; ``volume``: of each.
    """

    position: Tensor
    velocity: Tensor
    body: Tensor
    volume: float

    @property
    def moving(self) -> int:
        """How many belong to bodies."""
        return int((self.body >= 0).sum())


def fill(scene: Scene, spacing: float) -> Particles:
    """The particles of a scene (float64), about ``spacing`` from one another.

    Raises ``ConfigError`` for a scene without bodies and for a body that is too small to hold a particle.
    """
    if not scene.bodies:
        raise ConfigError("the scene is empty: it has no body; give at least one")
    generator = torch.Generator().manual_seed(scene.draw)
    shapes = [*(body.shape for body in scene.bodies), *scene.obstacles]
    positions = [lattice(shape, spacing, generator) for shape in shapes]
    for number, points in enumerate(positions):
        if len(points) == 0:
            what = f"body {number}" if number < len(scene.bodies) else f"obstacle {number - len(scene.bodies)}"
            raise ConfigError(f"{what} of the scene has no particle at a spacing of {spacing:.3g} m: refine the grid")
    velocities = [rigid_velocity(body, points) for body, points in zip(scene.bodies, positions, strict=False)]
    velocities += [torch.zeros_like(points) for points in positions[len(scene.bodies) :]]
    numbers = [number if number < len(scene.bodies) else -1 for number in range(len(shapes))]
    body = torch.cat([torch.full((len(p),), number) for number, p in zip(numbers, positions, strict=True)])
    dim = positions[0].shape[1]
    return Particles(torch.cat(positions), torch.cat(velocities), body, spacing**dim)


def rigid_velocity(body: Body, points: Tensor) -> Tensor:
    """v + w x (x - centre) at ``points (M, d)``."""
    velocity = torch.zeros_like(points)
    if body.velocity is not None:
        velocity = velocity + body.velocity
    if body.spin is not None:
        arm = points - body.shape.centre
        if points.shape[1] == 2:
            velocity = velocity + body.spin * torch.stack([-arm[:, 1], arm[:, 0]], 1)
        else:
            velocity = velocity + torch.linalg.cross(body.spin.expand_as(arm), arm)
    return velocity


def gravity_vector(dim: int) -> tuple[float, ...]:
    """m/s^2 along each axis."""
    return tuple(-GRAVITY if axis == UP else 0.0 for axis in range(dim))


def solve_scene(
    scene: Scene, resolution: int, times: Sequence[float] | Tensor, **options: object
) -> ParticleTrajectory:
    """One scene: ``solve_scenes`` (its options)."""
    return solve_scenes([scene], resolution, times, **options)[0]  # type: ignore[arg-type]


def solve_scenes(
    scenes: Sequence[Scene],
    resolution: int,
    times: Sequence[float] | Tensor,
    *,
    walls: Contact = "slip",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    courant: float = COURANT,
) -> list[ParticleTrajectory]:
    """What happens in the unit box with ``resolution`` cells along each side at ``times (T,)`` from 0, scene by scene.

    ``walls``: what the sides of the box and the obstacles do ("slip", "stick" or ``Coulomb``). Scenes without
    obstacles share a run of the solver and its time steps. Particles of obstacles are ``fixed``.

    Raises ``ConfigError`` for an empty scene or bodies of different dimension, ``DataError`` for bodies outside the box
    or inside an obstacle, ``SolverError`` (naming the scene) for what cannot be solved.
    """
    spacing = 1 / (resolution * PER_CELL)
    filled = [fill(scene, spacing) for scene in scenes]
    dims = {particles.position.shape[1] for particles in filled}
    if len(dims) > 1:
        raise ConfigError(f"the scenes have {' and '.join(map(str, sorted(dims)))} dimensions; solve them separately")
    free = [number for number, scene in enumerate(scenes) if not scene.obstacles]
    runs = [*([free] if free else []), *([number] for number, scene in enumerate(scenes) if scene.obstacles)]
    solved: dict[int, ParticleTrajectory] = {}
    for numbers in runs:
        solver = MPMSolver(
            (0.0,) * (dim := dims.copy().pop()),
            (1.0,) * dim,
            1 / resolution,
            gravity=gravity_vector(dim),
            walls=walls,
            obstacles=[_obstacle(each, walls) for each in scenes[numbers[0]].obstacles],
            dtype=dtype,
            device=device,
        )
        chosen = [scenes[number] for number in numbers]
        moved = _run(solver, chosen, [filled[number] for number in numbers], times, courant)
        solved.update(zip(numbers, moved, strict=True))
    return [solved[number] for number in range(len(scenes))]


def _run(
    solver: MPMSolver,
    scenes: Sequence[Scene],
    filled: Sequence[Particles],
    times: Sequence[float] | Tensor,
    courant: float,
) -> list[ParticleTrajectory]:
    """Scenes that share a solver."""
    bodies = [body for scene in scenes for body in scene.bodies]
    counts = [
        int((p.body == k).sum()) for scene, p in zip(scenes, filled, strict=True) for k in range(len(scene.bodies))
    ]
    moving = [particles.moving for particles in filled]
    repeats = torch.tensor(counts)
    state = solver.start(
        torch.cat([p.position[:n] for p, n in zip(filled, moving, strict=True)]),
        torch.cat([p.velocity[:n] for p, n in zip(filled, moving, strict=True)]),
        torch.cat([torch.full((n,), p.volume) for p, n in zip(filled, moving, strict=True)]),
        torch.tensor([body.density for body in bodies]).repeat_interleave(repeats),
        joined_materials([body.material for body in bodies], counts),
        torch.arange(len(scenes)).repeat_interleave(torch.tensor(moving)),
    )
    with torch.no_grad():
        frames = {name: values.cpu() for name, values in solver.run(state, times, courant).items()}
    position, velocity = (frames[name].split(moving, 1) for name in ("position", "velocity"))
    return [_trajectory(*each) for each in zip(scenes, filled, position, velocity, strict=True)]


def joined_materials(materials: Sequence[Material], counts: Sequence[int]) -> list[tuple[Material, Tensor]]:
    """Materials of one kind each and the numbers of their particles, from those of bodies with ``counts`` particles one
    after the other: constants that differ become tensors, so that the solver does its work once a kind.
    """
    numbers = torch.arange(sum(counts)).split(list(counts))
    joined = []
    for kind in dict.fromkeys(type(material) for material in materials):
        rows = [row for row, material in enumerate(materials) if type(material) is kind]
        constants = {}
        for name, value in materials[rows[0]].constants().items():
            values = [getattr(materials[row], name) for row in rows]
            if any(each != value for each in values):
                repeats = torch.tensor([counts[row] for row in rows])
                value = torch.tensor(values, dtype=torch.float64).repeat_interleave(repeats)
            constants[name] = value
        joined.append((kind(**constants), torch.cat([numbers[row] for row in rows])))
    return joined


def _obstacle(shape: Placed, walls: Contact) -> Obstacle:
    return Obstacle(Disk(tuple(shape.centre.tolist()), shape.radius), walls)


def _trajectory(scene: Scene, particles: Particles, position: Tensor, velocity: Tensor) -> ParticleTrajectory:
    """With the particles of the obstacles behind those that move."""
    body, fixed = particles.body, particles.body < 0
    still = particles.position[fixed].to(position.dtype).expand(len(position), -1, -1)
    columns = [each.parameters for each in scene.bodies]
    columns.append(columns[0] if scene.obstacle_parameters is None else scene.obstacle_parameters)
    kinds = torch.tensor([*(each.kind for each in scene.bodies), scene.obstacle_kind])
    densities = torch.tensor([*(each.density for each in scene.bodies), scene.bodies[0].density])
    return ParticleTrajectory(
        position=torch.cat([position, still], 1),
        kind=kinds[body],
        fixed=fixed,
        parameters=torch.tensor(columns).reshape(len(columns), -1)[body],
        mass=densities[body] * particles.volume,
        volume=torch.full((len(body),), particles.volume),
        velocity=torch.cat([velocity, torch.zeros_like(still)], 1),
    )
