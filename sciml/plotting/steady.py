"""The surrogate rolled out to steady flow, beside the solver and the table of Ghia, Ghia and Shin (1982)."""

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from sciml.plotting import ghia
from sciml.plotting.profiles import centreline_profiles
from sciml.progress import Progress

if TYPE_CHECKING:
    from sciml.surrogate import Surrogate

END = 40.0
"""Time in units of width / lid speed; from rest the cavity is steady to plotting accuracy by then up to Re 1000."""


def steady_profiles(surrogate: "Surrogate", figures: Path, progress: Progress | None = None) -> list[Path]:
    """Draw ``profiles_steady_re<Re>.png`` for the tabulated Reynolds numbers within 10 % of the training range.

    The rollout starts from the solver's first frame after rest and runs past the frames of the training data, so the
    picture shows whether it stays where the flow settles. A square box of 1 cm and a lid of 10 m/s, in the middle of
    the cavity's subsets. Nothing is drawn for other problems, without a velocity, with history, or without one frame
    interval.
    """
    import torch

    from sciml.problems.cavity import resolved_reynolds
    from sciml.surrogate import OutOfRangeWarning

    progress = progress or Progress()
    problem, interval, grid = surrogate.problem, surrogate.interval, surrogate.grid
    fits = problem.name == "cavity" and list(surrogate.fields) == ["velocity"] and surrogate.history == 1
    if not fits or interval is None or grid is None:
        return []
    low, high = (math.exp(value) for value in surrogate.ranges.get("log_reynolds", (math.inf, -math.inf)))
    known = [re for re in ghia.U if 0.9 * low <= re <= 1.1 * high and re <= resolved_reynolds(min(grid))]
    if not known:
        return []
    speed, side = 10.0, 0.01
    parameters = {
        "lid_velocity": speed,
        "density": 1.0,
        "viscosity": [speed * side / re for re in known],
        "height": side,
        "width": side,
    }
    steps = math.ceil(END * side / (speed * interval))
    times = interval * torch.tensor([0, 1, steps], dtype=torch.float64)
    device = surrogate.normaliser.mean.device
    with torch.inference_mode(), progress.phase("steady flow", 1), warnings.catch_warnings():
        truth = problem.solve(parameters, grid, times)["velocity"]
        warnings.simplefilter("ignore", OutOfRangeWarning)
        predicted = surrogate.rollout(truth[:, 1].to(device), parameters, steps - 1)[:, -1].cpu()
    paths = []
    for case, reynolds in enumerate(known):
        paths.append(figures / f"profiles_steady_re{reynolds}.png")
        centreline_profiles(
            truth[case, -1],
            predicted[case],
            width=side,
            height=side,
            lid_velocity=speed,
            reynolds=reynolds,
            time=float(times[-1]),
            title=f"Rolled out {steps - 1} steps to steady flow, Re {reynolds}",
            path=paths[-1],
        )
    return paths
