"""How good a rollout of all particles is, given equal training time: GNS on all, GNS on few, GIOROM on few.

    python benchmarks/particle_accuracy.py [--minutes 6] [--seeds 0 1 2] [--problem water] [--frames 150]

The same trajectories for all; every contender trains so many minutes (wall clock) with so many threads. "on few": 250
particles of a scene are stepped and the others brought along by the KernelUpsampler that is trained beside. Errors are
relative to displacement (``sciml.training.particles.evaluation``), over all predicted frames of the test scenes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from harness import Row, report

from sciml.training import resolve_config, train

CONTENDERS = {
    "GNS, all particles": ("gns", ["data.points=null", "batch_size=1"]),
    "GNS, sparse + upsampling": ("gns", []),
    "GIOROM, sparse + upsampling": ("giorom", []),
}
PARTS = ("train", "validation", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=6.0, help="training time of each contender")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--problem", default="water")
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--cases", type=int, nargs=3, default=[24, 2, 4], help="train, validation, test")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--data", type=Path, default=Path("data"), help="where the trajectories are kept")
    parser.add_argument("--name", default="particle_accuracy")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows: list[Row] = []
    for seed in arguments.seeds:
        for label in arguments.contenders:
            operator, more = CONTENDERS[label]
            config = resolve_config(
                arguments.problem,
                operator,
                None,
                [
                    f"data.frames={arguments.frames}",
                    f"data.directory={arguments.data}",
                    *(f"data.cases.{part}={n}" for part, n in zip(PARTS, arguments.cases, strict=True)),
                    f"budget.minutes={arguments.minutes}",
                    f"threads={arguments.threads}",
                    f"seed={seed}",
                    "validate_every=100000",
                    "checkpoint.every_steps=100000",
                    *more,
                ],
            )
            with tempfile.TemporaryDirectory() as folder:
                summary = train(config, Path(folder) / "run").summary
            test = summary["test"]
            rows.append(
                {
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
                    "... with walls": test["constant_velocity_contained"],
                }
            )
            print(rows[-1], flush=True)
    report(
        arguments.name,
        "How good is a rollout of all particles, given equal training time?",
        rows,
        [
            f"{arguments.problem}, {arguments.cases[0]} training trajectories, {arguments.cases[2]} test scenes, "
            f"{arguments.frames} frames; {arguments.minutes:g} minutes of training each",
        ],
    )


if __name__ == "__main__":
    main()
