"""The harder test set: a Reynolds band and an aspect band that training never saw, and a lid that changes its speed.

    sciml train --problem cavity --split extrapolate --out runs/extrapolate
    python benchmarks/cavity_extrapolation.py runs/extrapolate

Puts the table of a finished run on record; no gate.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from harness import report

KEYS = ("nmse", "vrmse", "rollout_mean", "rollout_last", "rollout_worst_last")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run of sciml train --split extrapolate")
    run = parser.parse_args().run
    summary = json.loads((run / "summary.json").read_text())
    contenders = {summary["operator"]: "", "look-up": "lookup_", "persistence": "persistence_"}
    rows = [
        {"subset": subset, "cases": values["cases"], "contender": name, **{key: values[prefix + key] for key in KEYS}}
        for subset, values in {"all": summary["test"], **summary["test"]["per_subset"]}.items()
        for name, prefix in contenders.items()
    ]
    seconds = summary["seconds"]
    report(
        "cavity_extrapolation",
        "How good is the default surrogate where it was not trained?",
        rows,
        [
            f"`sciml train --problem cavity --split extrapolate`, split {summary['split']!r}, {summary['steps']} "
            f"steps; {seconds['generate']:.0f} s to generate, {seconds['train']:.0f} s to train"
        ],
    )


if __name__ == "__main__":
    main()
