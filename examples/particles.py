"""Particles of one's own: jelly falls into water; a network that steps few of them delivers all, for ParaView too."""

import tempfile
from pathlib import Path

import torch

import sciml
from sciml.datasets.particles import ParticleFile, ParticleInfo, ParticleWriter, write_vtk_series
from sciml.problems.particles import Body, Scene, solve_scene
from sciml.problems.particles.shapes import Block, ball
from sciml.solvers.mpm import FixedCorotated, Fluid
from sciml.surrogate.particles import scene_of
from sciml.training import resolve_config, train

INTERVAL, FRAMES = 5e-3, 40
SMALL = ["data.points=60", "data.draws=4", "operator.hidden_channels=16", "operator.latent_channels=16", "device=cpu"]


def solve(height: float):
    """A ball of jelly, let go above a layer of water."""
    water = Body(Block([0.0, 0.0], [1.0, 0.25]), Fluid(sound_speed=15.0, viscosity=5.0), density=1000.0, kind=0)
    jelly = Body(ball([0.5, height], 0.12), FixedCorotated(5e4, 0.3), density=800.0, kind=1)
    return solve_scene(Scene([water, jelly]), resolution=24, times=INTERVAL * torch.arange(FRAMES))


def main(directory: Path, steps: int = 200) -> float:
    info = ParticleInfo(
        problem="jelly in water",
        dim=2,
        interval=INTERVAL,
        bounds=((0, 1), (0, 1)),
        gravity=(0, -9.81),
        kinds=("water", "jelly"),
    )
    heights = [0.45, 0.5, 0.55, 0.6, 0.65]
    with ParticleWriter(directory / "scenes.h5", info, len(heights)) as writer:
        for case in writer.missing():
            writer.write(case, solve(heights[case]))
        writer.finish()

    flags = {"data": {"files": [str(directory / "scenes.h5")], "cases": {"train": 3, "validation": 1, "test": 1}}}
    run = train(
        resolve_config("particles", "giorom", overrides=[*SMALL, f"budget.steps={steps}"], flags=flags),
        directory / "run",
    )
    error = run.summary["test"]["dense"]

    surrogate = sciml.load(run.directory)
    file = ParticleFile(directory / "scenes.h5")
    scene = scene_of(file.trajectory(0), info, slice(0, surrogate.history + 1))
    frames = [frame.position for frame in surrogate.dense_rollout(scene, steps=20)]
    series = write_vtk_series(directory, "rollout", torch.stack(frames), INTERVAL * torch.arange(20))
    print(f"{len(scene)} particles, {len(surrogate.choose(scene))} of them stepped; error {error:.2f} of displacement")
    print(f"for ParaView: {series}")
    return error


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
