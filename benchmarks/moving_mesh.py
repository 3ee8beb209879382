"""Does a mesh that moves make an operator better, at equal size and equal training time?

    python benchmarks/moving_mesh.py [--problems burgers:2 gray_scott:3] [--models ...] [--seeds 0 1 2] [--minutes 3]

MMPDE (a graph operator on the grid and one on the moved mesh) beside: the same with the warp switched off, the graph
operator on the grid alone, a CNN (U-Net) and an FNO, each made as wide as gives the same number of weights; and the
wrapper MovingMesh around U-Net and FNO, with and without motion. All have the same data, loss, minutes of one thread
and increments as target. Errors on held-out cases: one step (NMSE), rollouts (relative L2, mean over frames).
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from harness import Row, report

DATA = {
    "burgers:2": {"cases": {"train": 50, "validation": 3, "test": 15}},
    "gray_scott:3": {"cases": {"train": 30, "validation": 3, "test": 10}},
}
STEEP, VISCOSITIES = 144, (0.012, 0.02)
"""Of the Burgers data: cells of the solver, and m^2/s; shocks are two to four cells of 48 wide."""
SMALL, SPARE = 20, 4
"""Of the Gray-Scott data: cells along each side of a box of half the length, and cases drawn beyond those that are
needed, since a few are too rough for these cells."""
FILES = {"burgers:2": "steep_burgers.h5", "gray_scott:3": "small_gray_scott.h5"}
BATCH = {"burgers:2": 4, "gray_scott:3": 4}
LEARNED = {"mover": "learned"}
MODELS: dict[str, dict[str, Any]] = {
    "mmpde": {"name": "mmpde", **LEARNED},
    "mmpde, warp off": {"name": "mmpde", "warp": False},
    "graph": {"name": "mmpde", "branches": "fixed"},
    "unet": {"name": "unet"},
    "fno": {"name": "fno"},
    "moving unet": {"name": "moving_mesh", "operator": "unet", **LEARNED},
    "moving unet, no motion": {"name": "moving_mesh", "operator": "unet", "mover": "none"},
    "moving fno": {"name": "moving_mesh", "operator": "fno", **LEARNED},
    "moving fno, no motion": {"name": "moving_mesh", "operator": "fno", "mover": "none"},
}
HIDDEN, LAYERS = 32, 4
"""Of MMPDE; all the others follow its number of weights."""


def shaped(model: str, width: int, dim: int) -> dict[str, Any]:
    """Options of a model of a width."""
    options = dict(MODELS[model])
    name = options["name"]
    if name == "mmpde":
        return {**options, "hidden_channels": width, "n_layers": LAYERS}
    inner = {
        "unet": {"hidden_channels": [width, 2 * width], "patch_size": 1},
        "fno": {"hidden_channels": width, "n_modes": [9 if dim == 3 else 13] * dim, "patch_size": 1, "n_layers": 4},
    }
    if name == "moving_mesh":
        return {**options, "options": inner[options["operator"]]}
    return {**options, **inner[name]}


def size(model: str, width: int, dim: int, channels: tuple[int, int, int]) -> int:
    """Weights of a model."""
    from sciml.operators import OPERATORS

    options = shaped(model, width, dim)
    operator = OPERATORS[options.pop("name")]
    given = {"in_channels": channels[0], "out_channels": channels[1], "n_parameters": channels[2]}
    made = operator.create({**given, **operator.options_for(dim, True), **options})
    return sum(p.numel() for p in made.parameters())


def width_of(model: str, dim: int, channels: tuple[int, int, int]) -> int:
    """The width whose number of weights is nearest to that of MMPDE."""
    if MODELS[model]["name"] == "mmpde":
        return HIDDEN
    wanted = size("mmpde", HIDDEN, dim, channels)
    found, distance = 2, float("inf")
    for width in range(2, 129, 2):
        count = size(model, width, dim, channels)
        if abs(count - wanted) < distance:
            found, distance = width, abs(count - wanted)
        if count > 1.5 * wanted:
            break
    return found


def steep_burgers(path: Path) -> Path:
    """Steeper fronts than in the subsets of the problem: means of three by three of the STEEP^2 cells of the solver."""
    from sciml.datasets import DatasetWriter
    from sciml.problems import get_problem

    problem = get_problem("burgers", 2)
    cases, frames = sum(DATA["burgers:2"]["cases"].values()), 21
    sample = problem.sample(cases, "viscosity", seed=3, resolution=STEEP)
    spread = torch.rand(cases, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = VISCOSITIES
    parameters = {**sample.parameters, "viscosity": low + (high - low) * spread}
    coarse = (STEEP // 3, STEEP // 3)
    times = problem.frame_times(parameters, frames, None)
    info = problem.dataset_info(coarse, frames, "viscosity", seed=3, extra={"subset": "viscosity", "shard": "1/1"})
    coordinates = problem.coordinates(parameters, coarse)
    path.parent.mkdir(parents=True, exist_ok=True)
    with DatasetWriter(path, info, cases, parameters, sample.subsets) as writer:
        for case in writer.missing():
            mine = {name: value[case : case + 1] for name, value in parameters.items()}
            solved = problem.solve(mine, STEEP, times[case], dtype=torch.float32)
            mean = torch.nn.functional.avg_pool2d(solved["velocity"].flatten(0, 2), 3)
            made = {"velocity": mean.unflatten(0, (1, frames, 2)).numpy(), "time": solved["time"].numpy()}
            writer.write([case], made, {axis: value[case : case + 1] for axis, value in coordinates.items()})
        writer.finish()
    return path


def small_gray_scott(path: Path) -> Path:
    """Cases of the problem in boxes of half the length: graph operators on 32^3 points would take minutes a step."""
    from sciml.datasets import DatasetWriter
    from sciml.errors import SolverError
    from sciml.problems import get_problem

    problem = get_problem("gray_scott", 3)
    wanted, frames = sum(DATA["gray_scott:3"]["cases"].values()), 21
    sample = problem.sample(wanted + SPARE, "all", seed=3, resolution=2 * SMALL)
    drawn = {**sample.parameters, "length": 0.5 * sample.parameters["length"]}
    times = problem.frame_times(drawn, frames, None)
    solved: dict[int, Any] = {}
    for case in range(wanted + SPARE):
        if len(solved) < wanted:
            with contextlib.suppress(SolverError):
                mine = {name: value[case : case + 1] for name, value in drawn.items()}
                solved[case] = problem.solve(mine, SMALL, times[case], dtype=torch.float32)
    cases = list(solved)
    parameters = {name: value[cases] for name, value in drawn.items()}
    shape = problem.grid(SMALL)
    info = problem.dataset_info(shape, frames, "all", seed=3, extra={"subset": "all", "shard": "1/1"})
    coordinates = problem.coordinates(parameters, shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    with DatasetWriter(path, info, wanted, parameters, sample.select(cases).subsets) as writer:
        for row, case in enumerate(cases):
            made = {name: value.numpy() for name, value in solved[case].items()}
            writer.write([row], made, {axis: value[row : row + 1] for axis, value in coordinates.items()})
        writer.finish()
    return path


MAKE = {"burgers:2": steep_burgers, "gray_scott:3": small_gray_scott}


def one(problem: str, model: str, seed: int, arguments: argparse.Namespace, folder: Path) -> Row:
    """Train a model and judge it."""
    from sciml.problems import get_problem
    from sciml.training import resolve_config, train

    torch.set_num_threads(1)
    name, dim = problem.split(":")
    found = get_problem(name, int(dim))
    fields = sum(field.components for field in found.fields)
    channels = (fields, fields, len(found.condition_names))
    operator = shaped(model, width_of(model, int(dim), channels), int(dim))
    source = {"files": [str(arguments.data / FILES[problem])]}
    flags = {
        "dim": int(dim),
        "operator": operator,
        "data": {**DATA[problem], **source, "workers": 1},
        "task": {"target": "increment", "unroll": 1},
        "batch_size": BATCH[problem],
        "budget": {"minutes": arguments.minutes, "epochs": None},
        "optimizer": {"learning_rate": 2e-3},
        "threads": 1,
        "seed": seed,
        "device": "cpu",
        "validate_every": 10**6,
        "checkpoint": {"every_steps": 10**6},
    }
    summary = train(
        resolve_config(name, None, None, [], flags), folder / f"{name}_{model.replace(' ', '')}_{seed}"
    ).summary
    test = summary["test"]
    return {
        "problem": problem,
        "model": model,
        "seed": seed,
        "weights": summary["n_parameters"],
        "steps": summary["steps"],
        "one-step NMSE": test["nmse"],
        "rollout relative L2": test["rollout_mean"],
        "persistence": test["persistence_rollout_mean"],
    }


def averaged(rows: list[Row]) -> list[Row]:
    """One row a model: means over the seeds, and the range of the rollout error."""
    joined = []
    for problem, model in dict.fromkeys((row["problem"], row["model"]) for row in rows):
        mine = [row for row in rows if (row["problem"], row["model"]) == (problem, model)]
        errors = [row["rollout relative L2"] for row in mine]
        joined.append(
            {
                "problem": problem,
                "model": model,
                "seeds": len(mine),
                "weights": mine[0]["weights"],
                "steps": round(statistics.mean(row["steps"] for row in mine)),
                "one-step NMSE": statistics.mean(row["one-step NMSE"] for row in mine),
                "rollout relative L2": statistics.mean(errors),
                "lowest": min(errors),
                "highest": max(errors),
                "persistence": mine[0]["persistence"],
            }
        )
    return joined


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--data", type=Path, default=Path("data").absolute())
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for problem in arguments.problems:
        if not (arguments.data / FILES[problem]).exists():
            MAKE[problem](arguments.data / FILES[problem])
    with tempfile.TemporaryDirectory() as temporary:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(arguments.workers, mp_context=context) as pool:
            jobs = [
                pool.submit(one, problem, model, seed, arguments, Path(temporary))
                for problem in arguments.problems
                for seed in arguments.seeds
                for model in arguments.models
            ]
            rows = [job.result() for job in jobs]
    report(
        "moving_mesh" if arguments.problems == list(DATA) else "moving_mesh_" + arguments.problems[0].split(":")[0],
        "Does a mesh that moves make an operator better?",
        averaged(rows),
        [
            f"{arguments.minutes:g} min of training each, {arguments.workers} runs side by side, one thread each",
            "mmpde, moving: learned mover (`pretrained_mover`), curvature monitor",
            "lowest, highest: rollout error over the seeds",
        ],
    )


if __name__ == "__main__":
    main()
