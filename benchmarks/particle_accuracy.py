"""How good a rollout of all particles is, given equal training time: GNS on all, GNS on few, GIOROM on few.

    python benchmarks/particle_accuracy.py [--minutes 2.5] [--seeds 0 1 2] [--frames 150] [--workers 2]

The same trajectories for all; every contender trains so many minutes (wall
clock) on one thread, as many at a time as there are workers. "sparse": 250 particles of a scene are stepped and the
others brought along by the KernelUpsampler that is trained beside. Errors are relative to displacement
(``sciml.training.particles.evaluation``), over all predicted frames of the test scenes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from harness import Row, report

from sciml.problems import get_problem
from sciml.progress import Progress
from sciml.training import resolve_config, train
from sciml.training.particles.data import prepare

CONTENDERS = {
    "GNS, all particles": ("gns", ["data.points=null", "batch_size=1"]),
    "GNS, sparse + upsampling": ("gns", []),
    "GIOROM, sparse + upsampling": ("giorom", []),
}
PARTS = ("train", "validation", "test")


def configuration(arguments: argparse.Namespace, label: str, seed: int):
    """The problem's recipe for the operator, with the shared data and budget."""
    operator, more = CONTENDERS[label]
    overrides = [
        f"data.frames={arguments.frames}",
        f"data.directory={arguments.data}",
        *(f"data.cases.{part}={count}" for part, count in zip(PARTS, arguments.cases, strict=True)),
        f"budget.minutes={arguments.minutes}",
        "threads=1",
        f"seed={seed}",
        "validate_every=100000",
        "checkpoint.every_steps=100000",
        *more,
    ]
    return resolve_config(arguments.problem, operator, None, overrides)


def contest(arguments: argparse.Namespace, label: str, seed: int) -> Row:
    """Train one contender and judge its rollouts."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        summary = train(configuration(arguments, label, seed), Path(folder) / "run").summary
    test = summary["test"]
    return {
        "contender": label,
        "seed": seed,
        "weights": summary["n_parameters"],
        "steps": summary["steps"],
        "training s": summary["seconds"]["train"],
        "one-step NMSE": test["nmse"],
        "dense error": test["dense"],
        "at the end": test["dense_last"],
        "error of the stepped": test["sparse"],
        "from true sparse points": test["upsampled_truth"],
        "Sinkhorn": test["sinkhorn"],
        "s per step": test["seconds_per_step"],
        "constant velocity": test["constant_velocity"],
        "… with walls": test["constant_velocity_contained"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.5, help="training time of each contender")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--problem", default="water")
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--cases", type=int, nargs=3, default=[24, 2, 4], help="train, validation, test")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=Path("data"), help="where the trajectories are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    first = configuration(arguments, "GIOROM, sparse + upsampling", 0)
    prepare(first.data, get_problem(arguments.problem), "cpu", Progress())  # once, before several want it
    jobs = [(arguments, label, seed) for seed in arguments.seeds for label in CONTENDERS]
    with ProcessPoolExecutor(arguments.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        rows = list(pool.map(contest, *zip(*jobs, strict=True)))
    means = {label: [row["dense error"] for row in rows if row["contender"] == label] for label in CONTENDERS}
    mean = {label: sum(found) / len(found) for label, found in means.items()}
    report(
        "particle_accuracy",
        "How good is a rollout of all particles, given equal training time?",
        rows,
        [
            f"{arguments.problem}, {arguments.cases[0]} training trajectories, {arguments.cases[2]} test scenes, "
            f"{arguments.frames} frames; {arguments.minutes:g} minutes of training each on one thread, "
            f"{arguments.workers} at a time",
            "mean dense error: " + "; ".join(f"{label} {value:.3f}" for label, value in mean.items()),
        ],
    )


if __name__ == "__main__":
    main()
