"""An equation of your own, in its weak form: learned without solutions, compared with finite elements, and inverted."""

import tempfile
from pathlib import Path

import torch

import sciml
from sciml.problems.weak import BoxProblem
from sciml.surrogate.latent import Observations
from sciml.training import make_config
from sciml.training.latent.run import train_latent


class Reaction(BoxProblem):
    """-div(a grad u) + u^3 = 50 in the unit square, u = 0 on its sides; log a is a random sum of 16 cosines."""

    name, link, resolution = "reaction", "log", 24

    def flux(self, x, u, du, a):
        return a.unsqueeze(-1) * du[:, 0]

    def source(self, x, u, du, a):
        return u[:, 0] ** 3 - 50

    def draw_input(self, generator, points):
        numbers = torch.arange(4, dtype=points.dtype)
        wave_x, wave_y = torch.cos(torch.pi * points.unsqueeze(-1) * numbers).unbind(1)
        size = 0.5 / (1 + numbers[:, None] ** 2 + numbers**2)
        weights = size * torch.randn(4, 4, generator=generator, dtype=points.dtype)
        return torch.exp(torch.einsum("pi,ij,pj->p", wave_x, weights, wave_y))


def main(directory: Path, minutes: float = 0.5, steps: int | None = None, method: str = "hmc") -> tuple[float, float]:
    problem = Reaction()
    config = make_config(
        {
            "operator": {"name": "dgno", "latent": 32},
            "data": {"cases": {"train": 2000, "validation": 10, "test": 5}},
            "budget": {"steps": steps} if steps else {"minutes": minutes},
            "device": "cpu",
        }
    )
    run = train_latent(config, directory / "run", problem=problem)
    surrogate = sciml.load(run.directory, problem=problem)

    coefficient = problem.inputs(problem.draw_cases(1, seed=99))
    truth = problem.solve(coefficient)  # Newton's method on the finite elements of the same weak form
    found = surrogate.solve(coefficient)["solution"]
    error = float((found - truth).norm() / truth.norm())
    print(f"{run.summary['steps']} steps without a solution: relative error of u {error:.4f}")

    generator = torch.Generator().manual_seed(0)
    inner = (truth[0, 0] > 0).nonzero()[:, 0]
    chosen = inner[torch.randperm(len(inner), generator=generator)[:25]]
    sensors, seen = problem.points[chosen], truth[0, 0, chosen]
    noise = 0.02 * float(seen.abs().mean())
    values = seen + noise * torch.randn(25, generator=generator, dtype=seen.dtype)
    posterior = surrogate.invert(Observations(sensors, values.unsqueeze(1), ("solution",)), noise, method=method)
    low, high = posterior.input_bands(0.9)
    mean = posterior.input_mean()
    off = float((mean - coefficient[0]).norm() / coefficient.norm())
    inside = float(((low <= coefficient[0]) & (coefficient[0] <= high)).float().mean())
    print(f"coefficient from 25 sensors: relative error {off:.3f}, {inside:.0%} of it in the 90 % band")
    return error, off


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
