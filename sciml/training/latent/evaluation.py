"""How far a surrogate of a weak problem is from the reference: on its own mesh, and on one four times finer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.errors import SolverError
from sciml.progress import Progress
from sciml.surrogate.latent import LatentSurrogate
from sciml.training.latent.data import LatentCases, LatentSplit
from sciml.training.latent.objective import relative_square

FINER = 4
"""How many times finer the mesh of the second reference is."""
SHOWN = 4
"""Test cases that the pictures show."""


@torch.no_grad()
def predictions(surrogate: LatentSurrogate, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Solution ``(B, C, N)`` at the mean latent vectors, and the input function that these decode to ``(B, P)``."""
    inputs = inputs.to(surrogate.points)
    latent = surrogate.operator.encode(surrogate.standardised(inputs)).mean
    return surrogate.values(latent, surrogate.points, inputs), surrogate.decoded_input(latent)


def latent_validation(cases: LatentCases) -> Callable[[LatentSurrogate], dict[str, float]]:
    """Errors of a surrogate on cases that stay in memory."""

    def judge(surrogate: LatentSurrogate) -> dict[str, float]:
        made, _ = predictions(surrogate, cases.inputs)
        truth = cases.solutions.to(made)
        square = relative_square(made, truth, [f.components for f in surrogate.problem.fields])
        return {"relative_l2": float(square.sqrt().mean()), "nmse": float(square.mean())}

    return judge


def channel_errors(surrogate: LatentSurrogate, cases: LatentCases) -> list[float]:
    """Root mean square error of each channel over cases and points, in the channel's unit."""
    made, _ = predictions(surrogate, cases.inputs)
    return (made.cpu() - cases.solutions).square().mean((0, 2)).sqrt().tolist()


@torch.no_grad()
def input_deviation(surrogate: LatentSurrogate, cases: LatentCases) -> float:
    """Root mean square error of the decoded input function over cases and points, standardised; 0 for two values."""
    if surrogate.problem.link == "two_values":
        return 0.0
    x = surrogate.standardised(cases.inputs.to(surrogate.points))
    output = surrogate.operator.coefficient(surrogate.operator.encode(x).mean, surrogate.input_points)
    return float((output - x).square().mean().sqrt())


@torch.no_grad()
def consistency(surrogate: LatentSurrogate, cases: LatentCases, seed: int) -> tuple[float, float]:
    """Mean and deviation of ``surrogate.log_residual`` over latent vectors of cases, drawn from the encoder."""
    found = surrogate.operator.encode(surrogate.standardised(cases.inputs.to(surrogate.points)))
    variational = surrogate.operator.variational
    latent = found.sample(torch.Generator().manual_seed(seed)) if variational else found.mean
    level = torch.cat([surrogate.log_residual(part) for part in latent.split(25)])
    return float(level.mean()), float(level.std())


def evaluate_latent(
    surrogate: LatentSurrogate, split: LatentSplit, directory: Path | None, progress: Progress, finer: bool = True
) -> dict[str, Any]:
    """The ``test`` entry of ``summary.json``; with a directory also its ``predictions.npz``.

    Relative L2 errors of each field and of the decoded input function (means over the cases), against the reference
    on the same mesh and, where its solver reaches it, on one four times finer.
    """
    test, problem = split.test, surrogate.problem
    made, decoded = (value.cpu() for value in predictions(surrogate, test.inputs))
    components = [field.components for field in problem.fields]
    names = [field.name for field in problem.fields]
    errors = relative_square(made, test.solutions, components).sqrt()
    result: dict[str, Any] = {
        "kind": "latent",
        "cases": len(test),
        "relative_l2": dict(zip(names, errors.mean(0).tolist(), strict=True)),
        "worst_relative_l2": dict(zip(names, errors.amax(0).tolist(), strict=True)),
    }
    if finer:
        fine = problem.inputs(split.parameters, FINER) if problem.link != "two_values" else test.inputs.double()
        try:
            references = []
            with progress.phase("reference", len(test)):
                for part in fine.split(10):
                    references.append(problem.solve(part, FINER))
                    progress.advance(len(part))
            against = relative_square(made, torch.cat(references).float(), components).sqrt()
            result["relative_l2_against_finer"] = dict(zip(names, against.mean(0).tolist(), strict=True))
            result["finer"] = FINER
        except SolverError as error:
            progress.message(f"no reference on a finer mesh: {error}")
    result["input"] = input_errors(surrogate, decoded, test.inputs)
    if directory is not None:
        np.savez_compressed(
            directory / "predictions.npz",
            points=problem.points.numpy(),
            input_points=problem.input_points.numpy(),
            input=test.inputs[:SHOWN].numpy(),
            input_decoded=decoded[:SHOWN].numpy(),
            solution=test.solutions[:SHOWN].numpy(),
            solution_predicted=made[:SHOWN].numpy(),
        )
    return result


def input_errors(surrogate: LatentSurrogate, decoded: Tensor, inputs: Tensor) -> dict[str, float]:
    """Of decoded input functions ``(B, P)``: relative L2 error; of two values also the share of wrong points."""
    error = (decoded - inputs).norm(dim=1) / inputs.norm(dim=1)
    found = {"relative_l2": float(error.mean())}
    if surrogate.problem.link == "two_values":
        middle = sum(surrogate.problem.levels) / 2
        found["wrong"] = float(((decoded > middle) != (inputs > middle)).float().mean())
    return found
