"""How accurate is DGNO without labels, and supervised networks at the same training time?

    python benchmarks/dgno_forward.py [--seeds 0 1 2] [--quick | --minutes 4] [--only darcy:waves stokes] [--runs DIR]

DGNO learns from input functions and the equation alone (``sciml train --problem P --operator dgno``); MultiONet (branch
on the input function, trunk on the points) and FNO (on a grid, see ``GRIDS``) from solutions. All have the same minutes
of one thread, generation of the solutions not counted, and the same test cases.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from harness import Row, report
from torch import Tensor

PROBLEMS = {"darcy:waves": None, "darcy:piecewise": None, "burgers:dgno": None, "stokes:waves": None}
LABELLED = 1000
"""Solutions that supervised networks learn from."""
GRIDS = {"darcy": (29, 29), "burgers": (128, 101), "stokes": (65, 33)}
"""Of FNO: the nodes; cell centres and stored times; and a grid over the channel's box."""


def problem_of(name: str) -> Any:
    from sciml.problems.weak import get_weak_problem

    return get_weak_problem(*name.split(":"))


def configuration(name: str, minutes: float | None, seed: int, test: int) -> Any:
    """The recipe, with another budget."""
    from sciml.training import resolve_config

    problem, subset = name.split(":")
    flags: dict[str, Any] = {
        "data": {"subset": subset, "cases": {"test": test}},
        "threads": 1,
        "seed": seed,
        "device": "cpu",
        "validate_every": 10**6,
        "checkpoint": {"every_steps": 10**6},
    }
    if minutes is not None:
        flags["budget"] = {"minutes": minutes, "epochs": None}
    return resolve_config(problem, "dgno", None, [], flags)


def label_free(name: str, minutes: float | None, seed: int, arguments: argparse.Namespace, folder: Path) -> Row:
    """DGNO, as ``sciml train`` does it."""
    from sciml.training import train

    torch.set_num_threads(1)
    config = configuration(name, minutes, seed, arguments.cases)
    result = train(config, folder / f"{name.replace(':', '_')}_{seed}")
    test = result.summary["test"]
    error, worst = test["relative_l2"], test["worst_relative_l2"]
    return {
        "problem": name,
        "network": "dgno",
        "labels": 0,
        "seed": seed,
        "minutes": config.budget.minutes,
        "steps": result.summary["steps"],
        **errors(error, test.get("relative_l2_against_finer", {}), worst),
        "input decoded": test["input"].get("wrong", test["input"]["relative_l2"]),
    }


def errors(own: dict[str, float], finer: dict[str, float], worst: dict[str, float]) -> Row:
    """Errors of the fields as one entry each of a row."""

    def joined(found: dict[str, float]) -> str:
        return ", ".join(f"{name} {value:.4f}" for name, value in found.items())

    return {"relative L2": joined(own), "against 4x finer": joined(finer), "worst case": joined(worst)}


def supervised(name: str, network: str, minutes: float, seed: int, arguments: argparse.Namespace) -> Row:
    """MultiONet or FNO on solutions, AdamW with a cosine over the same minutes."""
    from sciml.progress import Progress
    from sciml.training.latent.data import prepare_latent
    from sciml.training.latent.objective import relative_square

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    problem = problem_of(name)
    data = configuration(name, minutes, seed, arguments.cases).data
    cases = data.cases.model_copy(update={"train": LABELLED, "validation": 1})
    split = prepare_latent(problem, data.model_copy(update={"labelled": LABELLED, "cases": cases}), Progress())
    components = [field.components for field in problem.fields]
    mean, std = split.train.inputs.mean(), split.train.inputs.std()
    unit = split.train.solutions.square().mean((0, 2), keepdim=True).sqrt()
    make = multionet if network == "multionet" else fno
    predict, parameters = make(problem)
    optimizer = torch.optim.AdamW(parameters, lr=arguments.rate, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(seed)
    steps, started = 0, time.perf_counter()
    while (share := (time.perf_counter() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = arguments.rate * 0.5 * (1 + math.cos(math.pi * share))
        chosen = torch.randint(LABELLED, (16,), generator=generator)
        made = unit * predict((split.train.inputs[chosen] - mean) / std)
        loss = relative_square(made, split.train.solutions[chosen], components).sqrt().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    with torch.no_grad():
        made = torch.cat([unit * predict((part - mean) / std) for part in split.test.inputs.split(25)])
    found = relative_square(made, split.test.solutions, components).sqrt()
    names = [field.name for field in problem.fields]
    return {
        "problem": name,
        "network": network,
        "labels": LABELLED,
        "seed": seed,
        "minutes": minutes,
        "steps": steps,
        **errors(
            dict(zip(names, found.mean(0).tolist(), strict=True)),
            {},
            dict(zip(names, found.amax(0).tolist(), strict=True)),
        ),
        "input decoded": "",
    }


def multionet(problem: Any) -> tuple[Callable[[Tensor], Tensor], list[torch.nn.Parameter]]:
    """Branch on the input function's values, trunk on the points; sizes as the package's operator has them."""
    from sciml.operators.multionet import BranchTrunk

    channels = sum(field.components for field in problem.fields)
    low, high = (torch.tensor(end) for end in problem.box)
    places = ((2 * problem.points - low - high) / (high - low)).float()
    network = BranchTrunk(
        len(problem.input_points),
        places.shape[1],
        channels,
        hidden_channels=128,
        n_layers=4,
        averaged_layers=3,
        activation="gelu",
    )
    return lambda x: network(x, places), list(network.parameters())


def fno(problem: Any) -> tuple[Callable[[Tensor], Tensor], list[torch.nn.Parameter]]:
    """FNO on the grid of ``GRIDS``; what it gives is read off at the problem's points bilinearly."""
    from sciml.operators import FNO

    channels = sum(field.components for field in problem.fields)
    shape = GRIDS[problem.name]
    network = FNO(1, channels, n_modes=[12, 12], hidden_channels=32, n_layers=4)
    low, high = (torch.tensor(end) for end in problem.box)
    places = ((2 * problem.points - low - high) / (high - low)).float()

    def predict(x: Tensor) -> Tensor:
        if problem.name == "darcy":
            x = x.unflatten(1, problem.input_shape).unsqueeze(1)
        else:  # a profile along the first axis (burgers) or the second one (stokes), repeated along the other
            line = torch.nn.functional.interpolate(
                x.unsqueeze(1), shape[0 if problem.name == "burgers" else 1], mode="linear", align_corners=True
            )
            x = line.unsqueeze(3 if problem.name == "burgers" else 2).expand(-1, -1, *shape)
        if x.shape[2:] != shape:
            x = torch.nn.functional.interpolate(x, shape, mode="bilinear", align_corners=True)
        made = network(x)
        if problem.name == "burgers":
            return made.flatten(2)
        # grid_sample's last coordinate is the first spatial axis of our fields' second
        where = places.flip(-1)[None, None].expand(len(x), -1, -1, -1)
        return torch.nn.functional.grid_sample(made, where, align_corners=True)[:, :, 0]

    return predict, list(network.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="one minute each")
    parser.add_argument("--minutes", type=float, help="of training; default: the recipes'")
    parser.add_argument("--only", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS), metavar="PROBLEM:SUBSET")
    parser.add_argument("--networks", nargs="+", default=["dgno", "multionet", "fno"])
    parser.add_argument("--supervised-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate of supervised networks")
    parser.add_argument("--cases", type=int, default=200, help="test cases")
    parser.add_argument("--workers", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--runs", type=Path, help="keep the runs here")
    arguments = parser.parse_args()
    minutes = 1.0 if arguments.quick else arguments.minutes
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.runs or Path(temporary)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(arguments.workers, mp_context=context) as pool:
            jobs = []
            for name in arguments.only:
                budget = minutes or configuration(name, None, 0, 1).budget.minutes
                if "dgno" in arguments.networks:
                    jobs += [pool.submit(label_free, name, budget, seed, arguments, folder) for seed in arguments.seeds]
                for network in ("multionet", "fno"):
                    if network in arguments.networks:
                        jobs += [
                            pool.submit(supervised, name, network, budget, seed, arguments)
                            for seed in arguments.supervised_seeds
                        ]
            rows = [job.result() for job in jobs]
    few = [name.split(":")[0] for name in arguments.only] if arguments.only != list(PROBLEMS) else []
    report(
        "_".join(["dgno_forward", *["quick"] * arguments.quick, *few]),
        "How accurate is DGNO without labels" + (", in a minute?" if arguments.quick else "?"),
        rows,
        [
            f"{arguments.cases} test cases; {arguments.workers} runs side by side, one thread each",
            "relative L2: of each field, mean over the cases, against the reference on the same mesh",
            "input decoded: relative L2 error of what the mean latent vector decodes to, of two values the share of "
            "wrong cells",
            f"supervised networks learn from {LABELLED} solutions, whose generation is not counted",
        ],
    )


if __name__ == "__main__":
    main()
