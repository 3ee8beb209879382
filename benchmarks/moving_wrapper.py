"""Does moving help a grid operator that works on fewer nodes than the data have?

    python benchmarks/moving_wrapper.py [--coarsen 3] [--models ...] [--seeds 0 1 2] [--minutes 2]

MovingMesh around U-Net and FNO on a mesh ``coarsen`` times coarser along each axis than the data, moved by the learned
mover, beside the same on the uniform mesh of as many cells ("still") and, for orientation, U-Net and FNO on all cells
of the data: 2D Burgers with steep fronts on the cells of the solver. Weights, data, loss, training and errors are those
of ``moving_mesh.py``.

The last rows say what is to be gained at best: the exact increments of the test frames, sampled at the nodes (of the
mesh of the earlier frame) and interpolated back, taken for the step. A model that is far above them is not held back by
where its nodes are.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from harness import Row, report
from moving_mesh import DATA, LEARNED, STEEP, add_arguments, averaged, side_by_side, steep_burgers, trained
from torch import nn

PROBLEM, FILE = "burgers:2", "fine_burgers.h5"
STILL = {"mover": "none"}
MODELS: dict[str, dict[str, Any]] = {
    "moving unet": {"name": "moving_mesh", "operator": "unet", **LEARNED},
    "moving unet, still": {"name": "moving_mesh", "operator": "unet", **STILL},
    "moving fno": {"name": "moving_mesh", "operator": "fno", **LEARNED},
    "moving fno, still": {"name": "moving_mesh", "operator": "fno", **STILL},
    "unet": {"name": "unet"},
    "fno": {"name": "fno"},
}
EXACT = {"exact increments, moved": LEARNED, "exact increments, still": STILL}


def one(model: str, coarsen: int, seed: int, arguments: argparse.Namespace, folder: Path) -> Row:
    """Train a model and judge it; ``coarsen`` 1: on the cells of the data."""
    options = with_share(MODELS[model], arguments.share)
    if options["name"] == "moving_mesh":
        options["coarsen"] = coarsen
    found = trained(PROBLEM, options, arguments.data / FILE, seed, arguments.minutes, folder)
    return {"model": model, "nodes": nodes(coarsen), "seed": seed, **found}


def with_share(options: Mapping[str, Any], share: float) -> dict[str, Any]:
    """The options, with a share of the monitor where a mover has one."""
    moves = options.get("mover", "none") != "none"
    return {**options, "mover_options": {"share": share}} if moves else dict(options)


def nodes(coarsen: int) -> str:
    """What the table calls a mesh."""
    return f"{STEEP // coarsen} x {STEEP // coarsen}"


@torch.no_grad()
def exact(path: Path, mover: Mapping[str, Any], coarsen: int) -> tuple[float, float]:
    """NMSE of steps by increments that are exact at the nodes, and relative L2 error of these increments, test cases.

    Of the increments all frames together: late ones are small.
    """
    from sciml.datasets import DatasetFile
    from sciml.datasets.splits import split_cases
    from sciml.operators import MovingMesh

    def identity(in_channels: int, out_channels: int) -> nn.Module:
        return nn.Identity()

    motion = MovingMesh(identity, 2, 2, periodic=True, coarsen=coarsen, **mover).motion
    file = DatasetFile(path)
    errors, of_next, of_increment = [], [], []
    for case in split_cases(file.subsets, DATA[PROBLEM]["cases"], 0)["test"]:
        frames = file.state([int(case)])[0]
        before, increment = frames[:-1], frames.diff(dim=0)
        grid = motion(before)
        errors.append((grid.back(grid.there(increment)) - increment).flatten(1).square().sum(1))
        of_next.append(frames[1:].flatten(1).square().sum(1))
        of_increment.append(increment.flatten(1).square().sum(1))
    wrong = torch.cat(errors)
    return float((wrong / torch.cat(of_next)).mean()), float((wrong.sum() / torch.cat(of_increment).sum()).sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coarsen", type=int, nargs="+", default=[3], help="cells of the data in one of the mesh")
    parser.add_argument("--share", type=float, default=0.5, help="of the monitor of the moved meshes")
    add_arguments(parser, MODELS, minutes=2.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = arguments.data / FILE
    if not data.exists():
        steep_burgers(data, average=1)
    wrapped = [name for name in arguments.models if MODELS[name]["name"] == "moving_mesh"]
    variants = [(name, coarsen) for coarsen in arguments.coarsen for name in wrapped]
    variants += [(name, 1) for name in arguments.models if name not in wrapped]
    jobs = [(*variant, seed, arguments) for seed in arguments.seeds for variant in variants]
    rows = averaged(side_by_side(one, jobs, arguments.workers), keys=("model", "nodes"))
    notes = [
        f"data on {nodes(1)} cells; {arguments.minutes:g} min of training each, {arguments.workers} runs side by side, "
        "one thread each",
        f"moved: learned mover (`pretrained_mover`), curvature monitor, share {arguments.share:g}",
        "lowest, highest: rollout error over the seeds",
    ]
    for coarsen in arguments.coarsen:
        for name, mover in EXACT.items():
            step, increment = exact(data, with_share(mover, arguments.share), coarsen)
            rows.append({"model": name, "nodes": nodes(coarsen), "one-step NMSE": step})
            notes.append(f"{name}, {nodes(coarsen)}: relative L2 error of the increments {increment:.3g}")
    report(
        "moving_wrapper", "Does moving help a grid operator that works on fewer nodes than the data have?", rows, notes
    )


if __name__ == "__main__":
    main()
