"""A small set of particle scenes that needs no solver: clouds that fall, turn and bounce, over fixed ground."""

from pathlib import Path

import torch

from sciml.datasets.particles import ParticleInfo, ParticleTrajectory, ParticleWriter

INTERVAL = 5e-3
GRAVITY = -9.81


def info(dim: int = 2) -> ParticleInfo:
    return ParticleInfo(
        problem="mine",
        dim=dim,
        interval=INTERVAL,
        bounds=((0.0, 1.0),) * dim,
        gravity=tuple(GRAVITY if axis == 1 else 0.0 for axis in range(dim)),
        kinds=("stuff", "ground"),
        parameters={"bounce": "1"},
        case_parameters={},
    )


def trajectory(number: int, frames: int = 40, dim: int = 2) -> ParticleTrajectory:
    """One cloud: it falls, turns about its middle, and bounces off the floor with the share ``bounce`` of its speed."""
    generator = torch.Generator().manual_seed(number)
    count, ground, bounce = 90 + 5 * number, 12, 0.3 + 0.05 * number
    position = 0.25 * torch.rand(count, dim, generator=generator) + 0.3
    position[:, 1] -= 0.18
    velocity = 0.3 * (torch.rand(dim, generator=generator) - 0.5).expand(count, dim).clone()
    around = position - position.mean(0)
    velocity[:, 0] -= 2 * around[:, 1]
    velocity[:, 1] += 2 * around[:, 0]
    still = torch.rand(ground, dim, generator=generator)
    still[:, 1] = 0.01
    found = []
    for _ in range(frames):
        found.append(torch.cat([position, still]))
        velocity[:, 1] += GRAVITY * INTERVAL
        position = position + INTERVAL * velocity
        below = position[:, 1] < 0.02
        velocity[below, 1] = velocity[below, 1].abs() * bounce
        position = position.clamp(0.0, 1.0)
    kind = torch.tensor([0] * count + [1] * ground)
    label = ("even", "odd")[number % 2]
    parameters = torch.full((count + ground, 1), bounce)
    return ParticleTrajectory(torch.stack(found), kind, kind == 1, parameters, subset=label)


def write(path: Path, cases: int = 6, frames: int = 40, dim: int = 2) -> Path:
    with ParticleWriter(path, info(dim), cases) as writer:
        for number in range(cases):
            writer.write(number, trajectory(number, frames, dim))
        writer.finish()
    return path
