"""``sciml train --problem X`` for every problem: does the default learn, and how much better than not learning?

python benchmarks/problem_operators.py [--problems darcy burgers:2 ...] [--directory DIR]

Each run is the command itself in a fresh process; then its surrogate is judged on 30 cases of another seed, which
nobody looked at while recipes were chosen (``fresh``). Rows of problems that are not asked for are kept from the last
report. Reference: persistence for steps (the last true frame), the mean of the training fields in natural units for
maps; look-up is the nearest training case. All on held-out cases.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import RESULTS, Row, report

from sciml.problems import PROBLEMS

NAME = "problem_operators"


def run(name: str, dim: int, directory: Path, overrides: list[str]) -> Row:
    """One training command and what its summary says."""
    problem = ["--problem", name, "--dim", str(dim)]
    started = time.perf_counter()
    summary = sciml(directory, "train", *problem, *overrides)
    seconds = time.perf_counter() - started
    test, is_map = summary["test"], "mean_nmse" in summary["test"]
    reference = "mean_nmse" if is_map else "persistence_nmse"
    out = f"fresh-{name}-{dim}d.h5"
    sciml(directory, "generate", *problem, "--cases", "30", "--seed", "1000", "--out", out)
    fresh = sciml(directory, "evaluate", summary["directory"], "--data", out)
    return {
        "problem": f"{name} {dim}D",
        "learns": "map" if is_map else "step",
        "operator": summary["operator"],
        "parameters": summary["n_parameters"],
        "steps": summary["steps"],
        "test cases": test["cases"],
        "NMSE": test["nmse"],
        "reference NMSE": test[reference],
        "times better": test[reference] / test["nmse"],
        "fresh: times better": fresh[reference] / fresh["nmse"],
        "look-up NMSE": test.get("lookup_nmse"),
        "relative L2 (rollout mean)": test["relative_l2" if is_map else "rollout_mean"],
        "look-up relative L2": test.get("lookup_relative_l2" if is_map else "lookup_rollout_mean"),
        "generate s": summary["seconds"]["generate"],
        "train s": summary["seconds"]["train"],
        "whole run s": seconds,
    }


def sciml(directory: Path, *arguments: str) -> dict[str, Any]:
    """What a command of the package answers with ``--json``."""
    command = [sys.executable, "-m", "sciml", *arguments, "--json"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    everything = [f"{name}:{dim}" for name in sorted(PROBLEMS) for dim in PROBLEMS[name].dims]
    parser.add_argument("--problems", nargs="+", default=everything, metavar="NAME[:DIM]")
    parser.add_argument("--directory", type=Path, default=None, help="where runs and data are kept; default: nowhere")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides for every run")
    arguments = parser.parse_args()
    kept = {}
    if (RESULTS / f"{NAME}.json").exists():
        kept = {row["problem"]: row for row in json.loads((RESULTS / f"{NAME}.json").read_text())["rows"]}
    for each in arguments.problems:
        name, _, dim = each.partition(":")
        with tempfile.TemporaryDirectory() as temporary:
            directory = arguments.directory or Path(temporary)
            directory.mkdir(parents=True, exist_ok=True)
            row = run(name, int(dim or PROBLEMS[name].dims[0]), directory, arguments.set)
        kept[row["problem"]] = row
        report(
            NAME,
            "Does the default of every problem learn?",
            [kept[key] for key in sorted(kept)],
            [
                "Gate: at least 5 times better in NMSE than the reference (persistence for steps, training mean for "
                "maps) within 10 minutes on 2 cores.",
                "Rows may come from several calls of the command with `--problems`, each on the same machine.",
            ],
        )


if __name__ == "__main__":
    main()
