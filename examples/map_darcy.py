"""Learn the map from permeability to pressure, and use it with the permeability known at a few wells only."""

import tempfile
from pathlib import Path

import torch

import sciml
from sciml.problems import get_problem
from sciml.training import resolve_config, train

SMALL = ["data.cases.train=200", "data.cases.validation=20", "data.cases.test=20", "data.resolution=32", "device=cpu"]


def main(directory: Path, minutes: float = 0.5, steps: int | None = None) -> float:
    budget = f"budget.steps={steps}" if steps else f"budget.minutes={minutes}"
    config = resolve_config(
        "darcy", overrides=[*SMALL, budget, "task.points=60", f"data.directory={directory / 'data'}"]
    )
    run = train(config, directory / "run")
    surrogate = sciml.load(run.directory)

    # One new case: its permeability at 40 wells anywhere in the square, its pressure everywhere.
    darcy = get_problem("darcy")
    parameters = darcy.sample(1, "fno", seed=99).parameters
    truth = darcy.solve(parameters, resolution=32)
    wells = torch.rand(40, 2, generator=torch.Generator().manual_seed(0))
    cells = (32 * wells).long()
    measured = truth["permeability"][:, 0, :, cells[:, 0], cells[:, 1]]  # (1, 1, 40)
    known = {name: value for name, value in parameters.items() if name != "draw"}
    pressure = surrogate.solve({"permeability": measured}, known, points=wells)["pressure"]
    error = float((pressure - truth["pressure"][:, 0]).norm() / truth["pressure"].norm())
    print(f"{run.summary['steps']} steps; relative error of the pressure from 40 wells {error:.2f}")
    return error


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
