"""What are labels worth on the cavity? Steps learned from the equation alone, beside the network trained with data.

    python benchmarks/label_free_cavity.py [--minutes 4] [--workers 2] [--trajectories 8 32 128]

The operator is that of ``sciml train --problem cavity --physics-only`` (NeuralStagger around a U-Net) for all; so are
the frames, the minutes of training and the test cases, which nobody learned from. Those with data learn relative errors
of one call, then of two (the recipe's ``unroll``). The last row
has the loss of the equation beside 32 trajectories.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from harness import Row, report

from sciml.training import resolve_config, train
from sciml.training.config import TrainConfig

PROBLEM = "cavity"
OPERATOR = {
    "name": "neuralstagger",
    "operator": "unet",
    "spatial": 2,
    "temporal": 10,
    "options": {"hidden_channels": [48, 64, 96]},
}


def configuration(arguments: argparse.Namespace, trajectories: int, residual: float, rate: float) -> TrainConfig:
    """A run with so many training trajectories, the equation weighing ``residual``."""
    flags: dict[str, Any] = {
        "task": {"kind": "step", "residual": residual},
        "data": {
            "interval": arguments.interval,
            "frames": arguments.frames,
            "directory": str(arguments.data),
            "workers": 1,
            "files": [],
            "cases": {"train": max(1, trajectories), "validation": 2, "test": arguments.cases},
        },
        "operator": OPERATOR,
        "batch_size": 4,
        "precision": "float32",
        "optimizer": {"learning_rate": rate, "weight_decay": 0.0 if residual == 1 else 1e-4},
        "budget": {"minutes": arguments.minutes, "epochs": None},
        "validate_every": 10**6,
        "checkpoint": {"every_steps": 10**6},
        "threads": 1,
        "seed": arguments.seed,
        "device": "cpu",
    }
    return resolve_config(PROBLEM, "neuralstagger", None, [], flags)


def contest(arguments: argparse.Namespace, trajectories: int, residual: float, rate: float, folder: str) -> Row:
    """Train one contender and judge it on the common test cases."""
    from sciml.training import evaluate_run

    torch.set_num_threads(1)
    result = train(configuration(arguments, trajectories, residual, rate), Path(folder))
    test = evaluate_run(result.directory, [arguments.data / "cavity_test.h5"])
    early, late = test["rollout_relative_l2"][9], test["rollout_relative_l2"][-1]
    return {
        "trajectories": trajectories,
        "weight of the equation": residual,
        "learning rate": rate,
        "steps": result.summary["steps"],
        "one-step error": math.sqrt(test["nmse"]),
        "rollout mean": test["rollout_mean"],
        "after one call": early,
        "rollout last": late,
        "nothing changes": test["persistence_rollout_mean"],
    }


def compare(arguments: argparse.Namespace) -> list[Row]:
    """All contenders at all learning rates, the best rate of each."""
    from sciml.problems.generate import generate

    arguments.data.mkdir(parents=True, exist_ok=True)
    shared = {"cases": arguments.cases, "frames": arguments.frames, "interval": arguments.interval}
    test = arguments.data / "cavity_test.h5"
    if not test.exists():
        generate(PROBLEM, test, seed=arguments.seed + 1000, workers=arguments.workers, **shared)
    contenders = [(0, 1.0), *((count, 0.0) for count in arguments.trajectories), (32, 0.5)]
    jobs = [(*contender, rate) for contender in contenders for rate in arguments.rates]
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(arguments.workers, mp_context=context) as pool:
            futures = [
                pool.submit(contest, arguments, *job, str(Path(folder) / str(number)))
                for number, job in enumerate(jobs)
            ]
            return [future.result() for future in futures]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.0, help="of training, each contender")
    parser.add_argument("--trajectories", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-3], help="learning rates")
    parser.add_argument("--interval", type=float, default=1e-4, help="seconds between frames")
    parser.add_argument("--frames", type=int, default=51)
    parser.add_argument("--cases", type=int, default=12, help="test cases")
    parser.add_argument("--workers", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    rows = compare(arguments)
    report(
        "label_free_cavity",
        "What are labels worth on the cavity?",
        rows,
        [
            f"NeuralStagger around a U-Net, spatial 2, temporal 10, 64 x 64 cells, {arguments.frames} frames "
            f"{arguments.interval:g} s apart from rest, {arguments.minutes:g} minutes of training on one thread each, "
            f"{arguments.workers} side by side; {arguments.cases} test cases that nobody learned from",
            "errors: relative L2 of the velocity against the solver, mean over cases; rollouts from the first frame "
            "after rest",
            "0 trajectories: the equation alone; the random cases of its training are not solved",
        ],
    )


if __name__ == "__main__":
    main()
