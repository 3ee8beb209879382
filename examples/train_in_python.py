"""Train a small surrogate from Python and use it in a loop of your own."""

from pathlib import Path

import torch

import sciml
from sciml.problems import get_problem
from sciml.problems.generate import generate
from sciml.training import make_config, train


def main(directory: Path, steps: int = 50) -> float:
    data = directory / "data.h5"
    if not data.exists():
        generate("cavity", data, cases=20, resolution=24, frames=6)
    config = make_config(
        {
            "data": {"files": [str(data)]},
            "operator": {"name": "unet", "hidden_channels": [16, 32]},
            "budget": {"steps": steps},
            "device": "cpu",
        }
    )
    run = train(config, directory / "run")
    print(f"one-step NMSE {run.summary['test']['nmse']:.2e}, copying {run.summary['test']['persistence_nmse']:.2e}")

    surrogate = sciml.load(run.directory)
    parameters = {"lid_velocity": 10.0, "density": 1.0, "viscosity": 1.43e-3, "height": 0.01, "width": 0.01}
    with torch.inference_mode():
        truth = get_problem("cavity").solve(parameters, resolution=24)["velocity"]
    state = truth[:, 1]
    for frame in range(2, 6):
        state = surrogate.step(state, parameters)
        error = (state - truth[:, frame]).norm() / truth[:, frame].norm()
        print(f"frame {frame}: relative error {float(error):.3f}")
    return float(error)


if __name__ == "__main__":
    main(Path("example"))
