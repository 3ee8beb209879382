"""Does a mesh that moves make an operator better, at equal size and equal training time?

    python benchmarks/moving_mesh.py [--problems burgers:2 gray_scott:3] [--models ...] [--seeds 0 1 2] [--minutes 3]

MMPDE (a graph operator on the grid and one on the moved mesh) beside: the same with the warp switched off, the graph
operator on the grid alone, a CNN (U-Net) and an FNO, each made as wide as gives the same number of weights. All
have the same data, loss, minutes of one thread and increments as target. Errors on held-out cases: one step (NMSE),
rollouts (relative L2, mean over frames). The wrapper MovingMesh is measured by ``moving_wrapper.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
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
}
HIDDEN, LAYERS = 32, 4
"""Of MMPDE; all the others follow its number of weights."""


def shaped(model: Mapping[str, Any], width: int, dim: int) -> dict[str, Any]:
    """Options of a model of a width."""
    options = dict(model)
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


def size(model: Mapping[str, Any], width: int, dim: int, channels: tuple[int, int, int]) -> int:
    """Weights of a model."""
    from sciml.operators import OPERATORS

    options = shaped(model, width, dim)
    operator = OPERATORS[options.pop("name")]
    given = {"in_channels": channels[0], "out_channels": channels[1], "n_parameters": channels[2]}
    made = operator.create({**given, **operator.options_for(dim, True), **options})
    return sum(p.numel() for p in made.parameters())


def width_of(model: Mapping[str, Any], dim: int, channels: tuple[int, int, int]) -> int:
    """The width whose number of weights is nearest to that of MMPDE."""
    if model["name"] == "mmpde":
        return HIDDEN
    wanted = size(MODELS["mmpde"], HIDDEN, dim, channels)
    found, distance = 2, float("inf")
    for width in range(2, 129, 2):
        count = size(model, width, dim, channels)
        if abs(count - wanted) < distance:
            found, distance = width, abs(count - wanted)
        if count > 1.5 * wanted:
            break
    return found


def steep_burgers(path: Path, average: int = 3) -> Path:
    """Steeper fronts than in the subsets of the problem: means of ``average`` by ``average`` of the STEEP^2 cells of
    the solver; 1: these cells themselves.
    """
    from sciml.datasets import DatasetWriter
    from sciml.problems import get_problem

    problem = get_problem("burgers", 2)
    cases, frames = sum(DATA["burgers:2"]["cases"].values()), 21
    sample = problem.sample(cases, "viscosity", seed=3, resolution=STEEP)
    spread = torch.rand(cases, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = VISCOSITIES
    parameters = {**sample.parameters, "viscosity": low + (high - low) * spread}
    coarse = (STEEP // average, STEEP // average)
    times = problem.frame_times(parameters, frames, None)
    info = problem.dataset_info(coarse, frames, "viscosity", seed=3, extra={"subset": "viscosity", "shard": "1/1"})
    coordinates = problem.coordinates(parameters, coarse)
    path.parent.mkdir(parents=True, exist_ok=True)
    with DatasetWriter(path, info, cases, parameters, sample.subsets) as writer:
        for case in writer.missing():
            mine = {name: value[case : case + 1] for name, value in parameters.items()}
            solved = problem.solve(mine, STEEP, times[case], dtype=torch.float32)
            mean = torch.nn.functional.avg_pool2d(solved["velocity"].flatten(0, 2), average)
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
    found = trained(problem, MODELS[model], arguments.data / FILES[problem], seed, arguments.minutes, folder)
    return {"problem": problem, "model": model, "seed": seed, **found}


def trained(problem: str, model: Mapping[str, Any], data: Path, seed: int, minutes: float, folder: Path) -> Row:
    """Weights, steps and errors of a model after so many minutes of training."""
    from sciml.problems import get_problem
    from sciml.training import resolve_config, train

    torch.set_num_threads(1)
    name, dim = problem.split(":")
    found = get_problem(name, int(dim))
    fields = sum(field.components for field in found.fields)
    channels = (fields, fields, len(found.condition_names))
    flags = {
        "dim": int(dim),
        "operator": shaped(model, width_of(model, int(dim), channels), int(dim)),
        "data": {**DATA[problem], "files": [str(data)], "workers": 1},
        "task": {"target": "increment", "unroll": 1},
        "batch_size": BATCH[problem],
        "budget": {"minutes": minutes, "epochs": None},
        "optimizer": {"learning_rate": 2e-3},
        "threads": 1,
        "seed": seed,
        "device": "cpu",
        "validate_every": 10**6,
        "checkpoint": {"every_steps": 10**6},
    }
    run = Path(tempfile.mkdtemp(dir=folder)) / "run"
    summary = train(resolve_config(name, None, None, [], flags), run).summary
    test = summary["test"]
    return {
        "weights": summary["n_parameters"],
        "steps": summary["steps"],
        "one-step NMSE": test["nmse"],
        "rollout relative L2": test["rollout_mean"],
        "persistence": test["persistence_rollout_mean"],
    }


def averaged(rows: list[Row], keys: Sequence[str] = ("problem", "model")) -> list[Row]:
    """One row for each value of the keys: means over the seeds, and the range of the rollout error."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    joined = []
    for values, mine in groups.items():
        errors = [row["rollout relative L2"] for row in mine]
        joined.append(
            {
                **dict(zip(keys, values, strict=True)),
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


def side_by_side(work: Callable[..., Row], jobs: Sequence[tuple[Any, ...]], workers: int) -> list[Row]:
    """``work(*job, folder)`` of each job, ``workers`` processes at a time; the folder is a temporary one of all."""
    with tempfile.TemporaryDirectory() as temporary:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            submitted = [pool.submit(work, *job, Path(temporary)) for job in jobs]
            return [job.result() for job in submitted]


def add_arguments(parser: argparse.ArgumentParser, models: Mapping[str, Any], *, minutes: float) -> None:
    """What runs are made, and of which data."""
    parser.add_argument("--models", nargs="+", default=list(models), choices=list(models))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--workers", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--data", type=Path, default=Path("data").absolute())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=list(DATA), choices=list(DATA))
    add_arguments(parser, MODELS, minutes=3.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for problem in arguments.problems:
        if not (arguments.data / FILES[problem]).exists():
            MAKE[problem](arguments.data / FILES[problem])
    jobs = [
        (problem, model, seed, arguments)
        for problem in arguments.problems
        for seed in arguments.seeds
        for model in arguments.models
    ]
    rows = side_by_side(one, jobs, arguments.workers)
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
