"""What pretraining saves: errors of a fine-tuned Poseidon against the number of training trajectories.

python benchmarks/poseidon_pretraining.py --pretrained runs/pretrain/poseidon/RUN --minutes 2 [--workers 2]

The problem is one that the pretraining left out (``sciml pretrain --problems …``). Contenders, each with the same
wall-clock of training, one thread each: Poseidon fine-tuned from the pretrained weights, the same network from random
weights (both as the pretraining learned: all pairs of frames, its loss and target), and the FNO of the problem's
recipe. For each number of trajectories and each seed the contenders get the same cases; the seed draws the cases and
the weights. All are judged on the same 32 cases, of yet another seed.

What is done is kept in ``--directory``: an interrupted experiment goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from harness import Row, report

from sciml.problems import get_problem
from sciml.progress import Progress
from sciml.training import resolve_config
from sciml.training.data import prepare
from sciml.training.fine_tuning import find_pretrained

NAME = "poseidon_pretraining"
TEST_CASES, TEST_SEED = 32, 1000
HELD_BACK = {"validation": 2, "test": 2}
"""Cases of a training run beside those that it learns from: it wants some of each."""
NOT_SHAPE = (
    "num_channels",
    "num_out_channels",
    "n_parameters",
    "channel_names",
    "out_channel_names",
    "parameter_names",
)
"""Keys of a Poseidon's ``config.json`` that the problem decides."""
MEASURES = {
    "median relative L1, one step": lambda found: found["median_relative_l1"],
    "rollout, last frame": lambda found: found["rollout_last"],
    "NMSE / persistence": lambda found: found["nmse"] / found["persistence_nmse"],
}


@dataclass(frozen=True)
class Job:
    """One training run."""

    method: str
    cases: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method.replace(', ', '-').replace(' ', '_')}-{self.cases}-seed{self.seed}"


def learning(pretrained: Path) -> list[str]:
    """Overrides that make a run learn as the pretraining did; without its configuration as Poseidon's did."""
    task = {"pairs": "all", "target": "state", "loss": "relative_l1"}
    for file in (pretrained / "config.yaml", pretrained.parent / "config.yaml"):
        if file.is_file():
            task = {key: yaml.safe_load(file.read_text())["task"][key] for key in task}
            break
    return [f"task.{key}={value}" for key, value in task.items()]


def architecture(pretrained: Path) -> list[str]:
    """Overrides that give a network of the same shape."""
    from sciml.operators import Operator

    config = Operator.from_pretrained(find_pretrained(str(pretrained)).path).config
    # The recipe says by this name whether the operator is told the time, and one thing must not be said twice.
    config["time_conditioning"] = config.pop("use_conditioning")
    return [f"operator.{key}={json.dumps(value)}" for key, value in config.items() if key not in NOT_SHAPE]


def contenders(pretrained: Path, extra: list[str], common: list[str]) -> dict[str, list[str]]:
    """Method -> its arguments of ``sciml train``; ``extra`` is for the Poseidons, ``common`` for all."""
    task = learning(pretrained)
    return {
        "poseidon, pretrained": ["--from", str(pretrained.resolve()), *task, *extra, *common],
        "poseidon, from scratch": ["--operator", "poseidon", *architecture(pretrained), *task, *extra, *common],
        "fno": ["--operator", "fno", *common],
    }


def data_options(arguments: argparse.Namespace, cases: int, seed: int) -> list[str]:
    """Overrides that say which cases a run has; they are generated into the experiment's own directory."""
    counts = {"train": cases, **HELD_BACK}
    return [
        *(f"data.cases.{part}={count}" for part, count in counts.items()),
        f"data.seed={seed}",
        f"data.directory={arguments.directory.resolve() / 'data'}",
        *arguments.data,
    ]


def generated(arguments: argparse.Namespace, cases: int, seed: int) -> Path:
    """The file of these cases."""
    problem = get_problem(arguments.problem, arguments.dim)
    overrides = [f"dim={problem.dim}", *data_options(arguments, cases, seed)]
    return prepare(resolve_config(arguments.problem, overrides=overrides).data, problem, "cpu", Progress()).train.files[
        0
    ]


def run(arguments: argparse.Namespace, job: Job, options: list[str], test: Path) -> dict[str, Any]:
    """Train and judge one contender, or what is kept of it."""
    kept = arguments.directory.resolve() / "results" / f"{job.name}.json"
    directory = arguments.directory.resolve() / "runs" / job.name
    train = [
        "train", "--problem", arguments.problem, "--dim", str(arguments.dim), "--seed", str(job.seed),
        "--device", "cpu", "threads=1", "--time-limit", str(arguments.minutes), "--no-figures",
        *options, *data_options(arguments, job.cases, job.seed),
    ]  # fmt: skip
    if kept.exists():
        found = json.loads(kept.read_text())
        if found["command"] != train:
            raise SystemExit(f"{kept} is of another experiment, sciml {' '.join(found['command'])}: change --directory")
        return found
    summary = sciml(*train, "--out", str(directory), "--resume", "auto")
    judged = sciml("evaluate", str(directory), "--data", str(test))
    found = {
        "command": train,
        "method": job.method,
        "cases": job.cases,
        "seed": job.seed,
        "n_parameters": summary["n_parameters"],
        "steps": summary["steps"],
        "seconds": summary["seconds"],
        "test": judged,
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    aside = kept.with_suffix(".tmp")
    aside.write_text(json.dumps(found, indent=1) + "\n")
    os.replace(aside, kept)
    values = ", ".join(f"{name} {measure(judged):.3g}" for name, measure in MEASURES.items())
    print(f"{job.name}: {values}", file=sys.stderr, flush=True)
    return found


def sciml(*arguments: str) -> dict[str, Any]:
    """What a command of the package answers with ``--json``, on one thread."""
    command = [sys.executable, "-m", "sciml", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def rows_of(results: list[dict[str, Any]]) -> list[Row]:
    """Mean, least and greatest over the seeds of every method and number of trajectories; then persistence."""
    rows: list[Row] = []
    for cases in sorted({found["cases"] for found in results}):
        for method in dict.fromkeys(found["method"] for found in results):
            own = [found for found in results if (found["method"], found["cases"]) == (method, cases)]
            steps = statistics.mean(found["steps"] for found in own)
            row: Row = {"trajectories": cases, "method": method, "seeds": len(own), "steps": round(steps)}
            for name, measure in MEASURES.items():
                values = [measure(found["test"]) for found in own]
                row |= {name: statistics.mean(values), f"{name}: range": f"{min(values):.3g}..{max(values):.3g}"}
            rows.append(row)
    head = "persistence_"
    test = {key.removeprefix(head): value for key, value in results[0]["test"].items() if key.startswith(head)}
    test["persistence_nmse"] = test["nmse"]
    row = {"trajectories": 0, "method": "persistence", **{name: measure(test) for name, measure in MEASURES.items()}}
    return [*rows, row]


def was_seen(pretrained: Path, problem: str) -> bool:
    """Whether the pretraining run says that it trained on the problem."""
    for file in (pretrained / "config.yaml", pretrained.parent / "config.yaml"):
        if file.is_file():
            entries = yaml.safe_load(file.read_text()).get("problems", {})
            return any(entry["problem"] == problem for entry in entries.values())
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrained", type=Path, required=True, help="a pretraining run, or its operator's directory")
    parser.add_argument("--problem", default="periodic_flow")
    parser.add_argument("--dim", type=int, default=2)
    parser.add_argument("--cases", type=int, nargs="+", default=[4, 16, 64], help="training trajectories")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=2.0, help="training time of each run")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--directory", type=Path, default=Path("runs") / NAME, help="where data and runs are kept")
    parser.add_argument("--data", nargs="*", default=[], metavar="data.KEY=VALUE", help="overrides of the data")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of both Poseidons")
    parser.add_argument("--common", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every contender")
    arguments = parser.parse_args()
    if was_seen(arguments.pretrained, arguments.problem):
        raise SystemExit(f"{arguments.pretrained} was trained on {arguments.problem}: choose another --problem")
    methods = contenders(arguments.pretrained, arguments.set, arguments.common)
    # Seed by seed: what an interruption leaves is a smaller experiment, not a part of one.
    jobs = [Job(name, cases, seed) for seed in arguments.seeds for cases in arguments.cases for name in methods]
    test = generated(arguments, TEST_CASES - sum(HELD_BACK.values()), TEST_SEED)
    for cases, seed in {(job.cases, job.seed) for job in jobs}:
        generated(arguments, cases, seed)  # before several processes ask for the same file
    pool = ThreadPoolExecutor(arguments.workers)
    try:
        results = list(pool.map(lambda job: run(arguments, job, methods[job.method], test), jobs))
    finally:
        pool.shutdown(cancel_futures=True)  # after a failure or Ctrl-C start no more
    parameters = ", ".join(f"{name} {found['n_parameters']:,}" for name, found in zip(methods, results, strict=False))
    report(
        NAME,
        f"How many trajectories of {arguments.problem} {arguments.dim}D does pretraining on other problems save?",
        rows_of(results),
        [
            f"Each run has {arguments.minutes:g} minutes of training on one thread, {arguments.workers} at a time; mean"
            " and range over the seeds, which draw the training cases and the weights.",
            f"{TEST_CASES} test cases, the same for all; rollout: mean relative L2 error at the last frame.",
            f"Parameters: {parameters}.",
            f"Overrides of the Poseidons: {' '.join(arguments.set) or 'none'}; of all: "
            f"{' '.join(arguments.common) or 'none'}.",
        ],
    )


if __name__ == "__main__":
    main()
