"""A map from permeability to pressure, learned from Darcy's equation alone: no solution is seen in training."""

import tempfile
from pathlib import Path

import sciml
from sciml.problems import get_problem
from sciml.training import resolve_config, train

HARD = {"task": {"kind": "trajectory"}, "experts": {"tiles": [2, 2], "bases": 16}}
SMALL = ["data.resolution=16", "operator.n_modes=[7, 7]", "data.cases.validation=2", "data.cases.test=4", "device=cpu"]


def main(directory: Path, steps: int = 100) -> float:
    overrides = [*SMALL, f"budget.steps={steps}", f"data.directory={directory / 'data'}"]
    run = train(resolve_config("darcy", overrides=overrides, flags=HARD), directory / "run")
    surrogate = sciml.load(run.directory)

    darcy = get_problem("darcy")
    parameters = darcy.sample(1, "smooth", seed=99).parameters
    truth = darcy.solve(parameters, resolution=16)["pressure"]
    found = surrogate.solve(parameters)["pressure"]
    residual = surrogate.residual_report(parameters)
    error = float((found - truth).norm() / truth.norm())
    print(f"{steps} steps without data; relative error of the pressure {error:.3f}")
    print("residual:", {name: f"{float(value.max()):.1e}" for name, value in residual.items()})
    return error


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
