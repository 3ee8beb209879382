"""What constraints cost and give in rollouts of the cavity.

U-Net and FNO as they are, corrected afterwards, and trained with the constraints:

    python benchmarks/constrained_rollouts.py [--minutes 2] [--seeds 0] [--operators unet fno]

Every trained contender has the recipe of its operator and the same wall-clock training time; "afterwards" imposes the
constraints on the predictions of the unconstrained network. Divergence is that of the face velocities that belong to
the predicted cell velocities, by the solver's own stencil, relative: see the constraint ``divergence-free``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from harness import Row, report
from torch import Tensor

from sciml.constraints import create_constraint, residuals
from sciml.problems import get_problem
from sciml.progress import Progress
from sciml.surrogate import Surrogate, at_time, load
from sciml.surrogate.constraining import Imposed, constraint_context
from sciml.training import resolve_config, train
from sciml.training.data import Trajectories, prepare, trajectories
from sciml.training.evaluation import first_target, predict, score

SETS = {"divergence-free": ["divergence-free"], "both": ["divergence-free", "boundary-values"]}
"""What is imposed, by the name of the row."""
LONG = 100
"""Steps of the long rollouts."""


def with_constraints(surrogate: Surrogate, names: Sequence[str]) -> Surrogate:
    """The same network, its predictions corrected."""
    surrogate.imposed = tuple(Imposed(create_constraint(name)) for name in names)
    return surrogate


def largest_residuals(surrogate: Surrogate, frames: Tensor, parameters: dict[str, Tensor]) -> dict[str, float]:
    """Largest residual of ``frames (N, T, C, *grid)``, whether the constraint is imposed or not."""
    context = constraint_context(surrogate, at_time(parameters, 0, 1), tuple(frames.shape[3:]), None, None)
    constraints = [create_constraint(name) for name in SETS["both"]]
    found = [residuals(constraints, frame, context) for frame in frames.unbind(1)]
    return {name: max(float(values[name].max()) for values in found) for name in SETS["both"]}


def row(operator: str, seed: int, imposed: str, steps: int, surrogate: Surrogate, data: Trajectories) -> Row:
    """Errors on the test cases, and the residuals of a hundred steps from the same true frame."""
    first = first_target(surrogate)
    started = time.perf_counter()
    made = predict(surrogate, data)
    seconds = time.perf_counter() - started
    scores = score(made, data.state[:, first:]).summary()
    now = at_time(data.parameters, 0, 1)
    long = surrogate.rollout(data.state[:, first - 1], now, LONG)
    assert isinstance(long, Tensor)
    worst = largest_residuals(surrogate, long, data.parameters)
    return {
        "operator": operator,
        "seed": seed,
        "imposed": imposed,
        "training steps": steps,
        "one-step NMSE": scores["nmse"],
        "rollout mean": scores["rollout_mean"],
        "rollout last": scores["rollout_last"],
        "worst last": scores["rollout_worst_last"],
        **{f"{name}, {LONG} steps": value for name, value in worst.items()},
        "finite": bool(long.isfinite().all()),
        "evaluation s": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0, help="training time of each contender")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--operators", nargs="+", default=["unet", "fno"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows: list[Row] = []
    for operator in arguments.operators:
        for seed in arguments.seeds:
            overrides = [f"budget.minutes={arguments.minutes}", f"seed={seed}"]
            config = resolve_config("cavity", operator, None, overrides)
            (part,) = prepare(config.data, get_problem("cavity"), "cpu", Progress()).test
            data = trajectories(part, config.data.fields)
            with tempfile.TemporaryDirectory() as folder:
                for imposed, names in {"none": [], **SETS}.items():
                    flags = {"constraints": [{"name": name} for name in names]}
                    chosen = resolve_config("cavity", operator, None, overrides, flags)
                    result = train(chosen, Path(folder) / imposed)
                    steps = result.summary["steps"]
                    if not names:
                        unconstrained_steps = steps
                    else:
                        free = with_constraints(load(Path(folder) / "none"), names)
                        rows.append(row(operator, seed, f"{imposed}, afterwards", unconstrained_steps, free, data))
                        imposed = f"{imposed}, in training too"
                    rows.append(row(operator, seed, imposed, steps, load(result.directory), data))
    report(
        "constrained_rollouts",
        "What do constraints cost and give in rollouts of the cavity?",
        rows,
        [
            f"{arguments.minutes:g} minutes of training each, {len(data.state)} test cases",
            "both: divergence-free and boundary-values imposed together; their columns are the largest relative "
            "residual of any case and frame",
        ],
    )


if __name__ == "__main__":
    main()
