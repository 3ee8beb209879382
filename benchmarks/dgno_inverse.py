"""What does DGNO find of a permeability from noisy pressures, and are its bands honest?

    python benchmarks/dgno_inverse.py --runs DIR [--only darcy:waves] [--cases 20] [--settings 100,25 25,25 100,50]

DIR holds the runs of ``dgno_forward.py --runs DIR`` (DGNO, one for each seed). Settings are sensors, signal-to-noise
ratio in dB (noise = sqrt(mean(u^2) / 10^(dB / 10))); sensors are random inner nodes, and the noisy pressures are those
of the finite-element reference. Of the waves, two frequencies decide everything, so the exact posterior mean is found
on a grid of them with finite-element solutions: nobody can be better on average (``exact``).
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from harness import Row, report
from torch import Tensor

GRID = 70
"""Values of each frequency in the exact posterior of the waves."""


def observations(problem: Any, case: int, sensors: int, decibel: float) -> tuple[Tensor, Any, float]:
    """The true input function of a test case, what is seen of its solution, and the noise."""
    from sciml.surrogate.latent import Observations

    parameters = problem.draw_cases(case + 1, seed=4242)
    inputs = problem.inputs({name: value[-1:] for name, value in parameters.items()})
    solution = problem.solve(inputs)[0, 0]
    generator = torch.Generator().manual_seed(1000 * case + sensors)
    inner = (problem.ansatz(problem.points, inputs).factor[0] > 1e-9).nonzero()[:, 0]
    chosen = inner[torch.randperm(len(inner), generator=generator)[:sensors]]
    noise = float((solution.square().mean() / 10 ** (decibel / 10)).sqrt())
    seen = solution[chosen] + noise * torch.randn(sensors, generator=generator, dtype=torch.float64)
    return inputs[0], Observations(problem.points[chosen], seen.unsqueeze(1), ("pressure",)), noise


def judge(mean: Tensor, truth: Tensor) -> tuple[float, float]:
    """Relative L2 error, and the correlation of both about their means."""
    a, b = mean - mean.mean(), truth - truth.mean()
    return float((mean - truth).norm() / truth.norm()), float((a * b).sum() / (a.norm() * b.norm()))


def invert_all(name: str, seed: int, sensors: int, decibel: float, arguments: argparse.Namespace) -> Row:
    """All cases of one setting with the surrogate of one seed."""
    import sciml

    torch.set_num_threads(1)
    surrogate = sciml.load(arguments.runs / f"{name.replace(':', '_')}_{seed}")
    problem = surrogate.problem
    errors, correlations, covered, times, exact, warned = [], [], [], [], [], 0
    for case in range(arguments.cases):
        truth, seen, noise = observations(problem, case, sensors, decibel)
        started = time.process_time()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = surrogate.invert(
                seen, noise, method=arguments.method, draws=arguments.draws, warmup=arguments.draws, chains=4, seed=case
            )
        times.append(time.process_time() - started)
        warned += bool(caught)
        low, high = found.input_bands(0.9)
        error, correlation = judge(found.input_mean().double(), truth)
        errors.append(error)
        correlations.append(correlation)
        covered.append(float(((low <= truth) & (truth <= high)).double().mean()))
        if problem.subset == "waves":
            exact.append(judge(exact_mean(seen, noise), truth)[0])
        elif arguments.exact:
            exact.append(judge(mean_by_finite_elements(problem, seen, noise), truth)[0])
    return {
        "problem": name,
        "seed": seed,
        "sensors": sensors,
        "dB": decibel,
        "error": statistics.fmean(errors),
        "median": statistics.median(errors),
        "exact": statistics.fmean(exact) if exact else "",
        "correlation": statistics.fmean(correlations),
        "90 % band holds": statistics.fmean(covered),
        "CPU s": statistics.fmean(times),
        "warned": f"{warned} of {arguments.cases}",
    }


@lru_cache(maxsize=1)
def grid_of_waves() -> tuple[Tensor, Tensor]:
    """Permeabilities and pressures of a grid of both frequencies: ``(GRID^2, P)``, ``(GRID^2, N)``."""
    from sciml.problems.weak import get_weak_problem
    from sciml.problems.weak.darcy import FREQUENCY, SUBSETS

    problem = get_weak_problem("darcy", "waves")
    values = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID * FREQUENCY
    pairs = torch.cartesian_prod(values, values)
    constants = {name: [value] * len(pairs) for name, value in {**SUBSETS["waves"], "draw": 0.0}.items()}
    inputs = problem.inputs({**constants, "frequency_x": pairs[:, 0], "frequency_y": pairs[:, 1]})
    return inputs, torch.cat([problem.solve(part)[:, 0] for part in inputs.split(200)])


def exact_mean(seen: Any, noise: float) -> Tensor:
    """Posterior mean of the permeability, on the grid of frequencies."""
    from sciml.problems.weak import get_weak_problem

    inputs, solutions = grid_of_waves()
    nodes = torch.cdist(seen.points, get_weak_problem("darcy", "waves").points).argmin(1)
    fit = -0.5 * ((solutions[:, nodes] - seen.values[:, 0]) / noise).square().sum(1)
    return torch.softmax(fit, 0) @ inputs


def mean_by_finite_elements(problem: Any, seen: Any, noise: float) -> Tensor:
    """Posterior mean of the permeability by chains in its own prior whose forward model is the reference solver."""
    from sciml.inference import sample_pcn

    nodes = torch.cdist(seen.points, problem.points).argmin(1)

    def log_likelihood(z: Tensor) -> Tensor:
        made = problem.solve(problem.inputs_from_normals(z))[:, 0, nodes]
        return -0.5 * ((made - seen.values[:, 0]) / noise).square().sum(1)

    generator = torch.Generator().manual_seed(0)
    z = torch.randn(200, problem.n_normals, generator=generator, dtype=torch.float64)
    begin = z[log_likelihood(z).argsort(descending=True)[:8]]
    chains = sample_pcn(log_likelihood, begin, draws=150, warmup=1200, thin=8, step=0.1, generator=generator)
    return problem.inputs_from_normals(chains.draws.flatten(0, 1)).mean(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=["darcy:waves", "darcy:piecewise"], metavar="PROBLEM:SUBSET")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", default=["100,25", "25,25", "100,50"], metavar="SENSORS,DB")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--method", default="hmc")
    parser.add_argument("--draws", type=int, default=200, help="of each of 4 chains, after as many of warm-up")
    parser.add_argument("--exact", action="store_true", help="two values: chains with finite elements, a minute a case")
    parser.add_argument("--workers", type=int, default=2, help="settings side by side, one thread each")
    arguments = parser.parse_args()
    settings = [(int(sensors), float(decibel)) for sensors, decibel in (each.split(",") for each in arguments.settings)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, mp_context=context) as pool:
        jobs = [
            pool.submit(invert_all, name, seed, *setting, arguments)
            for name in arguments.only
            for setting in settings
            for seed in arguments.seeds
        ]
        rows = [job.result() for job in jobs]
    report(
        "_".join(["dgno_inverse", *(name.split(":")[1] for name in arguments.only), *["exact"] * arguments.exact]),
        "What does DGNO find of a permeability from noisy pressures?",
        rows,
        [
            f"{arguments.cases} cases, {arguments.method}, 4 chains of {arguments.draws} draws",
            "error: relative L2 of the posterior mean permeability, mean over the cases; correlation: about the means",
            "exact: error of the posterior mean with finite-element solutions: of waves on a grid of frequencies, of "
            "two values by 8 pCN chains of 2,400 steps in the prior of the permeability",
            "90 % band holds: share of the cells, mean over the cases; CPU s: of one inversion",
            "warned: inversions with any warning (chains disagree, outside the training range, not explained)",
        ],
    )


if __name__ == "__main__":
    main()
