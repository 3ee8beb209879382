"""Which permeability explains a few noisy pressures? From 100 and 25 sensors, and one that the training never had."""

import tempfile
import warnings
from pathlib import Path

import torch

import sciml
from sciml.surrogate.latent import Observations
from sciml.training import resolve_config, train

DECIBEL = 25.0


def observe(problem, permeability, sensors: int) -> tuple[Observations, float]:
    """Pressures at random inner nodes with Gaussian noise of a signal-to-noise ratio of 25 dB."""
    pressure = problem.solve(permeability.unsqueeze(0))[0, 0]
    generator = torch.Generator().manual_seed(sensors)
    inner = (pressure > 0).nonzero()[:, 0]
    chosen = inner[torch.randperm(len(inner), generator=generator)[:sensors]]
    noise = float((pressure.square().mean() / 10 ** (DECIBEL / 10)).sqrt())
    values = pressure[chosen] + noise * torch.randn(sensors, generator=generator, dtype=torch.float64)
    return Observations(problem.points[chosen], values.unsqueeze(1), ("pressure",)), noise


def report(name: str, surrogate, permeability, sensors: int, draws: int) -> float:
    observations, noise = observe(surrogate.problem, permeability, sensors)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = surrogate.invert(observations, noise, draws=draws, warmup=draws)
    mean = found.input_mean().double()
    error = float((mean - permeability).norm() / permeability.norm())
    low, high = surrogate.problem.levels
    wrong = float(((mean > (low + high) / 2) != (permeability > (low + high) / 2)).float().mean())
    print(f"{name}, {sensors} sensors: relative error {error:.3f}, {wrong:.0%} of the cells nearer to the wrong value")
    for each in caught:
        print(f"  warning: {each.message}")
    return error


def main(directory: Path, minutes: float = 1.0, steps: int | None = None, draws: int = 200) -> list[float]:
    budget = f"budget.steps={steps}" if steps else f"budget.minutes={minutes}"
    overrides = ["data.subset=piecewise", budget, "data.cases.test=10", "device=cpu"]
    if steps:
        overrides += ["data.cases.train=200", "task.prior=normal"]
    run = train(resolve_config("darcy", "dgno", overrides=overrides), directory / "run")
    surrogate = sciml.load(run.directory)
    problem = surrogate.problem

    permeability = problem.inputs(problem.draw_cases(1, seed=99))[0]
    errors = [report("random field", surrogate, permeability, sensors, draws) for sensors in (100, 25)]
    x, y = problem.input_points.T
    checkerboard = torch.where(
        ((4 * x).floor() + (4 * y).floor()) % 2 == 0, *map(torch.tensor, problem.levels)
    ).double()
    return [*errors, report("checkerboard, unlike the training", surrogate, checkerboard, 100, draws)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
