"""What splitting a solver that learns without data costs and gives: NeuralStagger, the whole operator, the solver.

    python benchmarks/neuralstagger.py --part speed [--resolution 128 256] [--cuda]
    python benchmarks/neuralstagger.py --part accuracy [--resolution 128] [--steps 2000] [--workers 2]
    python benchmarks/neuralstagger.py --gate [--steps 2000]

Vorticity on a periodic square, subset ``fno`` (viscosity 1e-3 m^2/s, a weak source): the only one with one viscosity
for all cases. "whole" is an FNO on the fine grid, one frame a call; the others split the grid by ``s`` along each axis
and give ``temporal`` frames a call. All learn from the equation alone: the same number of steps of the same batch, the
same pool of flows, the same learning rate. Then they are judged by the solver, on cases of which nobody learned.

Times are CPU seconds of one thread, one case at a time, the least of several, taken in turns after all training.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from harness import Row, report
from torch import Tensor

from sciml import metrics
from sciml.operators import NeuralStagger, Operator
from sciml.problems import get_problem
from sciml.progress import Progress
from sciml.surrogate import Surrogate, load
from sciml.training import resolve_config, train
from sciml.training.build import build_operator
from sciml.training.config import TrainConfig
from sciml.training.data import prepare_held_out, trajectories

PROBLEM, SUBSET = "vorticity", "fno"
MODES = ("stacked", "shared", "independent")
INTERVAL, FRAMES = 0.1, 51
"""Seconds between frames and frames of a trajectory: in 5 s the source makes another flow of the initial one, and exact
Crank-Nicolson steps are within 2e-4 of the solver."""


class Contender(NamedTuple):
    """How the operator is split; ``mode`` "whole": it is not."""

    mode: str
    spatial: int = 1
    temporal: int = 1


WHOLE = Contender("whole")
GATE = Contender("stacked", 4, 5)
COMPARED = {
    128: [WHOLE]
    + [Contender(mode, 4, temporal) for mode in MODES for temporal in (1, 5, 10)]
    + [Contender(mode, s, 5) for s in (2, 8) for mode in MODES],
    256: [WHOLE, GATE, Contender("stacked", 8, 5), Contender("shared", 4, 5), Contender("independent", 4, 5)],
}
"""Resolution -> those that are trained; another resolution has the first."""
WIDTHS: dict[str, int | dict[int, int]] = {
    "whole": 24,
    "stacked": {2: 32, 4: 64, 8: 96},
    "shared": 24,
    "independent": 12,
}
"""Channels of the hidden layers, of mode stacked the more the more phases there are; mode independent has hundreds of
networks, which could not be trained any wider."""
N_MODES = {"whole": 24, "stacked": 16, "shared": 24, "independent": 12}
"""Frequencies along each axis, on the grid that the network sees."""
LARGEST_ERROR, LEAST_FASTER = 1.5, 8.0
"""What the gate asks of its rollout error and of its speed, over those of the whole operator."""


def network_options(contender: Contender, resolution: int) -> dict[str, Any]:
    """Arguments of the FNO of a contender, which sees ``resolution / spatial`` cells along each axis."""
    width = WIDTHS[contender.mode]
    modes = min(N_MODES[contender.mode], resolution // contender.spatial)
    return {
        "hidden_channels": width if isinstance(width, int) else width[contender.spatial],
        "n_modes": [modes, modes],
        "patch_size": 1,
        "n_layers": 4,
    }


class Job(NamedTuple):
    """One training."""

    contender: Contender
    rate: float
    seed: int


def configuration(arguments: argparse.Namespace, job: Job, resolution: int) -> TrainConfig:
    """Training of a contender from the equation alone."""
    contender = job.contender
    options = network_options(contender, resolution)
    operator: dict[str, Any] = {"name": "fno", **options}
    if contender != WHOLE:
        operator = {"name": "neuralstagger", **contender._asdict(), "operator": "fno", "options": options}
    flags = {
        "task": {"kind": "step", "residual": 1.0, "pool": arguments.pool},
        "data": {
            "subset": SUBSET,
            "resolution": resolution,
            "interval": arguments.interval,
            "frames": arguments.frames,
            "directory": str(arguments.data),
            "seed": job.seed,
            "cases": {"train": 256, "validation": 2, "test": arguments.cases},
            "workers": 1,
        },
        "operator": operator,
        "optimizer": {"learning_rate": job.rate},
        "budget": {"steps": arguments.steps, "epochs": None},
        "batch_size": arguments.batch,
        "validate_every": arguments.steps,
        "checkpoint": {"every_steps": arguments.steps},
        "threads": 1,
        "seed": job.seed,
        "device": "cpu",
    }
    return resolve_config(PROBLEM, operator["name"], None, [], flags)


# ------------------------------------------------------------------------------------------------------------- accuracy


def contest(arguments: argparse.Namespace, job: Job, resolution: int, folder: str) -> Row:
    """Train one contender and judge it; its surrogate stays in ``folder``."""
    torch.set_num_threads(1)
    run = Path(folder)
    summary = train(configuration(arguments, job, resolution), run).summary
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    test = summary["test"]
    return {
        **described(job.contender, resolution),
        "seed": job.seed,
        "learning rate": job.rate,
        "weights": summary["n_parameters"],
        "steps": summary["steps"],
        "training s": summary["seconds"]["train"],
        "loss at the end": statistics.fmean(losses[-max(1, len(losses) // 10) :]),
        "one-step error": math.sqrt(test["nmse"]),
        "rollout mean": test["rollout_mean"],
        "rollout last": test["rollout_last"],
        "nothing changes": test["persistence_rollout_mean"],
    }


def described(contender: Contender, resolution: int) -> Row:
    """The first cells of a row."""
    return {"cells": resolution, "contender": contender.mode, "s": contender.spatial, "temporal": contender.temporal}


def accuracy(arguments: argparse.Namespace, resolution: int, contenders: Sequence[Contender]) -> list[Row]:
    """Train all, then take their times; rows of the solver and of the rule that they learn from come last.

    A seed decides weights, training cases and test cases.
    """
    truths = {}
    for seed in arguments.seeds:
        data = configuration(arguments, Job(WHOLE, arguments.rates[0], seed), resolution).data
        part = prepare_held_out(data, get_problem(PROBLEM), "cpu", Progress()).test[0]
        truths[seed] = trajectories(part, ["vorticity"])
    jobs = [Job(*job) for job in itertools.product(contenders, arguments.rates, arguments.seeds)]
    # The longest first: no worker is left with it in the end.
    length = {"independent": 3, "shared": 2, "whole": 1, "stacked": 0}
    order = sorted(jobs, key=lambda job: (length[job.contender.mode], job.contender.temporal), reverse=True)
    with tempfile.TemporaryDirectory() as folder:
        runs = {job: str(Path(folder) / str(number)) for number, job in enumerate(order)}
        with ProcessPoolExecutor(arguments.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            futures = {job: pool.submit(contest, arguments, job, resolution, runs[job]) for job in order}
            found = {job: futures[job].result() for job in jobs}
        surrogates = {job: load(runs[job]) for job in jobs if job.seed == arguments.seeds[0]}
        truth = truths[arguments.seeds[0]]
        parameters = {name: values[:1, 0] for name, values in truth.parameters.items()}
        # Times do not depend on the weights: those of one rate and seed stand for all.
        works = {
            job.contender: rollout(surrogate, truth.state[:1, 0], parameters, arguments)
            for job, surrogate in surrogates.items()
        }
        seconds = least_seconds(works, arguments.repeats)
    for job, row in found.items():
        whole = min((found[other] for other in jobs if other[::2] == (WHOLE, job.seed)), key=error_of)
        row["s per simulated s"] = seconds[job.contender] / arguments.length
        row["times faster"] = seconds[WHOLE] / seconds[job.contender]
        row["error over whole"] = error_of(row) / error_of(whole)
    whole_error = min(error_of(found[job]) for job in jobs if job[::2] == (WHOLE, arguments.seeds[0]))
    return list(found.values()) + references(arguments, resolution, truth, seconds[WHOLE], whole_error)


def error_of(row: Row) -> float:
    """What contenders are compared by."""
    return row["rollout mean"]


def rollout(
    surrogate: Surrogate, start: Tensor, parameters: dict[str, Tensor], arguments: argparse.Namespace
) -> Callable[[], object]:
    """One rollout as a user calls it."""
    return lambda: surrogate.rollout(start, parameters, arguments.frames - 1, arguments.interval)


def references(
    arguments: argparse.Namespace, resolution: int, truth: Any, whole_seconds: float, whole_error: float
) -> list[Row]:
    """The solver with its own steps, at this resolution and coarser, and exact steps of the rule that is learned."""
    problem = get_problem(PROBLEM)
    parameters = {name: values[:, 0] for name, values in truth.parameters.items()}
    one = {name: values[:1] for name, values in parameters.items()}
    times = [arguments.interval * frame for frame in range(arguments.frames)]
    rows = []
    for cells in (resolution, resolution // 2):
        works = {cells: lambda cells=cells: problem.solve(one, cells, times)}
        seconds = least_seconds(works, arguments.repeats)[cells] / arguments.length
        row = {**described(WHOLE, cells), "contender": "solver", "s per simulated s": seconds}
        row["times faster"] = whole_seconds / arguments.length / seconds
        if cells != resolution:
            solved = problem.solve(parameters, cells, times, dtype=torch.float64)["vorticity"]
            row |= judged(refined(solved, resolution), truth.state, whole_error)
        rows.append(row)
    exact = crank_nicolson(truth.state[:, 0].double(), parameters, arguments)
    rule = {**described(WHOLE, resolution), "contender": "Crank-Nicolson steps, solved"}
    return [*rows, rule | judged(exact, truth.state, whole_error)]


def judged(frames: Tensor, truth: Tensor, whole_error: float) -> Row:
    """Errors of a rollout ``(B, T, C, *grid)`` from the first frame on."""
    errors = metrics.relative_l2(frames[:, 1:].float(), truth[:, 1:]).mean(0)
    mean = float(errors.mean())
    return {"rollout mean": mean, "rollout last": float(errors[-1]), "error over whole": mean / whole_error}


def crank_nicolson(start: Tensor, parameters: dict[str, Tensor], arguments: argparse.Namespace) -> Tensor:
    """Frames whose defect is 0, which the loss asks for, by fixed-point iteration: ``(B, T, C, *grid)``."""
    problem = get_problem(PROBLEM)
    interval = torch.full((len(start),), arguments.interval, dtype=torch.float64)
    frames = [start]
    for _ in range(arguments.frames - 1):
        after = frames[-1]
        for _ in range(60):
            defect = problem.step_defect(frames[-1], after, parameters, interval)
            after = after - defect
            if float(defect.abs().max()) < 1e-9 * float(after.abs().max()):
                break
        else:
            raise RuntimeError(f"the steps of {arguments.interval} s do not converge; shorten --interval")
        frames.append(after)
    return torch.stack(frames, 1)


def refined(frames: Tensor, resolution: int) -> Tensor:
    """Fields at cell centres of a periodic unit box, at those of a finer grid, by their Fourier series."""
    cells = frames.shape[-1]
    spectrum = torch.fft.fftshift(torch.fft.fft2(frames), dim=(-2, -1))
    waves = torch.arange(-(cells // 2), cells - cells // 2, dtype=torch.float64)
    # Cell centres of the two grids do not lie on one another: the shift of half a fine cell minus half a coarse one.
    shift = torch.exp(2j * math.pi * waves * (0.5 / resolution - 0.5 / cells))
    fine = torch.zeros(*frames.shape[:-2], resolution, resolution, dtype=spectrum.dtype)
    low = resolution // 2 - cells // 2
    fine[..., low : low + cells, low : low + cells] = spectrum * shift * shift[:, None]
    return torch.fft.ifft2(torch.fft.ifftshift(fine, dim=(-2, -1))).real * (resolution / cells) ** 2


# ---------------------------------------------------------------------------------------------------------------- speed


def least_seconds(works: dict[Any, Callable[[], object]], repeats: int) -> dict[Any, float]:
    """CPU seconds of each, the least of ``repeats`` calls in turns."""
    for work in works.values():
        work()
    least = dict.fromkeys(works, math.inf)
    for _ in range(repeats):
        for name, work in works.items():
            started = time.process_time()
            work()
            least[name] = min(least[name], time.process_time() - started)
    return least


def cuda_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call on the GPU, from start to end."""
    taken = []
    for _ in range(repeats + 5):  # the first compile and warm up
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[5:])


def untrained(arguments: argparse.Namespace, contender: Contender, resolution: int) -> Operator:
    """The network of a contender, as training would begin with it."""
    return build_operator(configuration(arguments, Job(contender, 1e-3, 0), resolution), get_problem(PROBLEM)).eval()


def call(operator: Operator, cells: int, fast: bool = False, device: str = "cpu") -> Callable[[], object]:
    """One call on one case; ``fast``: compiled, in bfloat16."""
    x = torch.randn(1, operator.in_channels, cells, cells, device=device)
    parameters = torch.randn(1, operator.n_parameters, device=device)
    operator = operator.to(device)
    run = torch.compile(operator) if fast else operator

    def once() -> object:
        precision = torch.autocast(device, torch.bfloat16) if fast else contextlib.nullcontext()
        with torch.no_grad(), precision:
            return run(x, parameters=parameters)

    return once


def speed(arguments: argparse.Namespace, resolution: int) -> list[Row]:
    """Every combination, and each part of it that could run on a device of its own."""
    contenders = [WHOLE, *(Contender(mode, s, t) for mode in MODES for s in (2, 4, 8) for t in (1, 5, 10))]
    rows, whole = [], call(untrained(arguments, WHOLE, resolution), resolution)
    for contender in contenders:
        operator = untrained(arguments, contender, resolution)
        works = {"whole": whole}
        if contender != WHOLE:
            works["all"] = call(operator, resolution)
        if isinstance(operator, NeuralStagger) and contender.mode != "stacked":
            # One network: of mode independent each frame has its own, of mode shared one gives all.
            part = operator.subtask(frames="last" if contender.mode == "independent" else "all")
            works["part"] = call(part, resolution // contender.spatial)
        seconds = least_seconds(works, arguments.repeats)
        simulated = contender.temporal * arguments.interval
        taken = seconds.get("all", seconds["whole"])
        alone = seconds.get("part", taken)
        rows.append(
            {
                **described(contender, resolution),
                "weights": sum(weight.numel() for weight in operator.parameters()),
                "ms a call": 1e3 * taken,
                "s per simulated s": taken / simulated,
                "times faster": contender.temporal * seconds["whole"] / taken,
                "ms of one subtask": 1e3 * alone,
                "subtasks": "1" if contender.mode in ("whole", "stacked") else str(subtasks(contender)),
                "ideal s per simulated s": alone / simulated,
                "ideal times faster": contender.temporal * seconds["whole"] / alone,
            }
        )
    problem = get_problem(PROBLEM)
    case = problem.sample(1, SUBSET, arguments.seeds[0], resolution).parameters
    times = [arguments.interval * frame for frame in range(arguments.frames)]
    for cells in (resolution, resolution // 2):
        works = {"whole": whole, "solver": lambda cells=cells: problem.solve(case, cells, times)}
        seconds = least_seconds(works, arguments.repeats)
        taken = seconds["solver"] / arguments.length
        rows.append(
            {
                **described(WHOLE, cells),
                "contender": "solver",
                "s per simulated s": taken,
                "times faster": seconds["whole"] / arguments.interval / taken,
            }
        )
    return rows


def subtasks(contender: Contender) -> int:
    """Networks that could run at one time."""
    return contender.spatial**2 * (contender.temporal if contender.mode == "independent" else 1)


def speed_on_gpu(arguments: argparse.Namespace, resolution: int) -> list[Row]:
    """The whole operator and the three modes, in single precision as they are, and in bfloat16 compiled."""
    rows = []
    for fast in (False, True):
        whole = None
        for contender in (WHOLE, *(Contender(mode, 4, 5) for mode in MODES)):
            once = call(untrained(arguments, contender, resolution), resolution, fast, "cuda")
            seconds = cuda_seconds(once, 50) / (contender.temporal * arguments.interval)
            whole = whole or seconds
            rows.append(
                {
                    **described(contender, resolution),
                    "precision": "bfloat16, compiled" if fast else "float32",
                    "s per simulated s": seconds,
                    "times faster": whole / seconds,
                }
            )
    return rows


# --------------------------------------------------------------------------------------------------------------- report


def compare(arguments: argparse.Namespace, resolution: int) -> None:
    """Train and judge those of a resolution, or of the gate alone, and keep the table."""
    contenders = [WHOLE, GATE] if arguments.gate else COMPARED.get(resolution, COMPARED[128])
    if arguments.only:
        contenders = [
            WHOLE,
            *(Contender(mode, int(s), int(t)) for mode, s, t in (c.split(",") for c in arguments.only)),
        ]
    rows = accuracy(arguments, resolution, contenders)
    notes = [
        *common_notes(arguments),
        f"each trained for {arguments.steps} steps of {arguments.batch} flows at the learning rates {arguments.rates}, "
        f"pool of {arguments.pool} flows that the network advances itself; no frame of a solution was seen; a seed "
        "decides weights, training cases and test cases; errors over whole: over its best rate of that seed",
        "loss: mean of the last tenth of what was logged in training, on the flows that each network made itself",
        "one-step error: of the next frame from a true one, root mean square over cases and frames; rollout: relative "
        "L2 of the frames that follow from the first alone, against the solver on the same grid",
        "solver: its own steps (ETDRK4) in single precision; Crank-Nicolson steps: those whose loss is 0",
    ]
    if arguments.gate:
        notes.append(verdict(rows))
    name = "gate" if arguments.gate else f"accuracy_{resolution}"
    report(f"neuralstagger_{name}", f"What does splitting cost at {resolution} x {resolution} cells?", rows, notes)


def verdict(rows: Sequence[Row]) -> str:
    """The two numbers of the gate: of the errors the mean over the seeds, each at the best of its rates."""
    split = [row for row in rows if row["contender"] == GATE.mode]
    seeds = {row["seed"] for row in split}
    best = [min(row["error over whole"] for row in split if row["seed"] == seed) for seed in seeds]
    error, faster = statistics.fmean(best), split[0]["times faster"]
    met = "met" if error <= LARGEST_ERROR and faster >= LEAST_FASTER else "NOT met"
    return (
        f"gate {met}: stacked, s = {GATE.spatial}, temporal {GATE.temporal} has {error:.2f} times the rollout error of "
        f"the whole operator (mean of {len(best)} seeds, {min(best):.2f} to {max(best):.2f}; at most "
        f"{LARGEST_ERROR:g}) and is {faster:.1f} times faster (at least {LEAST_FASTER:g})"
    )


def common_notes(arguments: argparse.Namespace) -> list[str]:
    """What all tables say."""
    return [
        f"{PROBLEM}, subset {SUBSET}, frames {arguments.interval:g} s apart, rollouts of {arguments.length:g} s",
        f"every network is an FNO of 4 layers on the grid that it sees; channels {WIDTHS}, frequencies along an axis "
        f"{N_MODES}, at most the cells of that grid",
        "times: CPU seconds of one thread, one case, the least of several calls in turns; times faster: than whole",
    ]


def speed_notes(arguments: argparse.Namespace) -> list[str]:
    """What the tables of times say besides."""
    if arguments.cuda:
        where = f"{torch.cuda.get_device_name()}, median seconds of 50 calls; faster: than whole in the same precision"
        return [*common_notes(arguments)[:2], where]
    return [
        *common_notes(arguments),
        "calls of the untrained network alone, without the normalisation around it",
        "ideal: every subtask on a device of its own, the time of one measured alone, no communication; of stacked the "
        "whole is one network; of independent one phase and one frame is, of shared one phase with all its frames",
        "of mode independent they have half the channels and half the frequencies of whole, a part of the gain",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("speed", "accuracy"), default="speed")
    parser.add_argument("--gate", action="store_true", help="accuracy of the whole operator and of s=4 stacked alone")
    parser.add_argument("--only", nargs="+", metavar="MODE,S,T", help="compare these, e.g. stacked,4,5 shared,4,5")
    parser.add_argument("--cuda", action="store_true", help="speed on the GPU, also compiled in bfloat16")
    parser.add_argument("--resolution", type=int, nargs="+", default=[128])
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps of each contender")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[4e-3], help="learning rates; the best of each counts"
    )
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--pool", type=int, default=16, help="flows that each network advances in training")
    parser.add_argument("--interval", type=float, default=INTERVAL, help="seconds between frames")
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--cases", type=int, default=12, help="test cases")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--repeats", type=int, default=7, help="calls of which the least time counts")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=Path("data"), help="where the test cases are kept")
    arguments = parser.parse_args()
    arguments.length = (arguments.frames - 1) * arguments.interval
    torch.set_num_threads(1)
    if arguments.cuda:
        if not torch.cuda.is_available():
            raise SystemExit("--cuda needs a GPU, and torch sees none here: nothing was measured")
        rows = [row for resolution in arguments.resolution for row in speed_on_gpu(arguments, resolution)]
        report("neuralstagger_speed_cuda", "How fast are split operators on a GPU?", rows, speed_notes(arguments))
    elif arguments.part == "speed" and not arguments.gate:
        rows = [row for resolution in arguments.resolution for row in speed(arguments, resolution)]
        report("neuralstagger_speed", "How fast are split operators?", rows, speed_notes(arguments))
    else:
        for resolution in arguments.resolution:
            compare(arguments, resolution)


if __name__ == "__main__":
    main()
