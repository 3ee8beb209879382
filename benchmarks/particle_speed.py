"""What a step costs that delivers many particles: all are stepped, or a thousand are and the rest is brought along.

    python benchmarks/particle_speed.py [--dim 3] [--points 1000] [--largest 100000]

A ball of particles, ever more of them. GNS has the published size (10 layers, 128 channels) and steps them all, or the
sparse points; GIOROM (128 channels, 2 + 2 layers, 2 transformer blocks) steps the sparse points. A step is everything
from frame to frame: neighbours, graph, network, integration, and the particles that are brought along, which look for
their neighbours anew every 10 frames ("held": every 20, with the learned correction held for 10; "moving least
squares": every 20, without the correction). Radii give about 18 neighbours in 3D, 15 in 2D. CPU seconds of one thread,
mean over the steps of a rollout; weights are untrained, which changes nothing of the work.
"""

from __future__ import annotations

import argparse
import itertools
import math
import resource
import time

import torch
from harness import Row, report
from torch import Tensor

from sciml.operators import GIOROM, GNS, ParticleOperator
from sciml.operators.particles.upsampler import KernelUpsampler
from sciml.points import propose_radius
from sciml.surrogate.particles import ParticleSurrogate, Scene

ANCHOR_EVERY = 10
DEGREE = {2: 15.0, 3: 18.0}
STATISTICS = {
    "interval": 5e-3,
    "noise": 0.0,
    "velocity_std": 3e-3,
    "velocity_gravity": 0.0,
    "acceleration_std": 1e-6,
    "acceleration_gravity": 0.0,
    "parameter_mean": [],
    "parameter_std": [],
    "parameter_log": [],
}


def ball(count: int, dim: int) -> Scene:
    """Particles drawn evenly from a ball that turns about its middle."""
    generator = torch.Generator().manual_seed(count)
    direction = torch.randn(count, dim, generator=generator)
    direction /= direction.norm(dim=1, keepdim=True)
    position = 0.5 + 0.3 * direction * torch.rand(count, 1, generator=generator) ** (1 / dim)
    spin = torch.zeros(dim, dim)
    spin[0, 1], spin[1, 0] = -0.01, 0.01
    velocity = (position - 0.5) @ spin.T
    history = torch.stack([position + (frame - 5) * velocity for frame in range(6)])
    return Scene(
        history,
        torch.zeros(count, dtype=torch.int64),
        torch.zeros(count, dtype=torch.bool),
        torch.zeros(count, 0),
        torch.zeros(count, dtype=torch.int64),
        torch.tensor([[[0.0, 1.0]] * dim]),
        torch.zeros(1, dim),
    )


def surrogate(stepper: ParticleOperator, dim: int, points: int | None, correction: bool = True) -> ParticleSurrogate:
    """An untrained surrogate; without ``correction`` particles are brought along by moving least squares alone."""
    return ParticleSurrogate(
        stepper,
        None if points is None else KernelUpsampler(dim, correction=correction),
        STATISTICS,
        problem="particles",
        kinds=("ball",),
        parameters={},
        points=points,
        sampling="random",
        anchor_every=ANCHOR_EVERY,
    ).eval()


def seconds_per_step(model: ParticleSurrogate, scene: Scene, stepped: Tensor, steps: int) -> float:
    """CPU seconds of a step in the mean over ``steps`` of them, after one to warm up."""
    frames = model.dense_rollout(scene, steps + ANCHOR_EVERY, stepped=stepped)
    for _ in range(1 if steps < ANCHOR_EVERY else ANCHOR_EVERY):
        next(frames)
    started = time.process_time()
    for _ in itertools.islice(frames, steps):
        pass
    return (time.process_time() - started) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=3, choices=(2, 3))
    parser.add_argument("--points", type=int, default=1000, help="how many are stepped")
    parser.add_argument("--largest", type=int, default=100_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dim, few = arguments.dim, arguments.points
    rows: list[Row] = []
    base = held_base = plain_base = math.nan
    for count in [n for n in (1000, 5000, 20_000, 100_000) if n <= arguments.largest]:
        scene = ball(count, dim)
        stepped = torch.arange(min(few, count))  # evenly drawn, as all of them are
        radius = propose_radius(scene.position[stepped], degree=DEGREE[dim])
        everything, fine = torch.arange(count), propose_radius(scene.position, degree=DEGREE[dim])
        torch.manual_seed(0)
        giorom = surrogate(GIOROM(dim, radius=radius), dim, few)
        sparse = surrogate(GNS(dim, radius=radius), dim, few)
        full = surrogate(GNS(dim, radius=fine), dim, None)
        own = seconds_per_step(giorom, scene, stepped, 2 * ANCHOR_EVERY)
        base = own if count == 1000 else base
        row: Row = {
            "particles": count,
            "GIOROM on the sparse points, s": own,
            "over 1,000": own / base,
            "GNS on the sparse points, s": seconds_per_step(sparse, scene, stepped, 2 * ANCHOR_EVERY),
            "GNS on all, s": seconds_per_step(full, scene, everything, 1 if count > 10_000 else 3),
        }
        giorom.anchor_every, giorom.correct_every = 2 * ANCHOR_EVERY, ANCHOR_EVERY
        held = seconds_per_step(giorom, scene, stepped, 2 * ANCHOR_EVERY)
        held_base = held if count == 1000 else held_base
        plain = surrogate(giorom.stepper, dim, few, correction=False)
        plain.anchor_every = 2 * ANCHOR_EVERY
        bare = seconds_per_step(plain, scene, stepped, 2 * ANCHOR_EVERY)
        plain_base = bare if count == 1000 else plain_base
        rows.append(
            {
                **row,
                "GNS on all / GIOROM": row["GNS on all, s"] / own,
                "GIOROM, held, s": held,
                "held over 1,000": held / held_base,
                "GIOROM, moving least squares, s": bare,
                "it over 1,000": bare / plain_base,
            }
        )
        print(rows[-1], flush=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in giorom.dense_rollout(scene, 100, stepped=stepped):
        pass
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    report(
        f"particle_speed_{dim}d",
        f"What does a step cost that delivers many particles ({dim}D, {few:,} stepped)?",
        rows,
        [
            f"100 more steps of GIOROM with {len(scene):,} particles raised the peak of resident memory by "
            f"{grown:.0f} MB"
        ],
    )


if __name__ == "__main__":
    main()
