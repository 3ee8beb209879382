"""How good a surrogate of whole trajectories is: against the solver at the same frames, beside the initial field held.

There are no training data, so no look-up and no training mean. Measured over whole trajectories without their first
frame, which is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml import metrics
from sciml.datasets import Collection
from sciml.errors import DataError
from sciml.surrogate import TrajectorySurrogate
from sciml.surrogate.trajectory import equation_residual
from sciml.training.data import Part
from sciml.training.evaluation import description, few_of_each

CHUNK = 16
"""Cases evaluated together."""


@dataclass(frozen=True)
class Solutions:
    """Held-out cases: the solver's fields ``state (N, T, C, *grid)``, what was known of them by argument of
    ``TrajectorySurrogate.solve``, parameters ``(N,)``, ``time (N, T)``, the subset of each.
    """

    state: Tensor
    given: dict[str, Tensor]
    parameters: dict[str, Tensor]
    time: Tensor
    subsets: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.state)


def read_solutions(surrogate: TrajectorySurrogate, parts: Sequence[Part]) -> Solutions:
    """The cases of these parts, in memory.

    Raises ``DataError`` for files on another grid or at other times than the surrogate's.
    """
    return _joined([_read(surrogate, part) for part in parts])


def _read(surrogate: TrajectorySurrogate, part: Part) -> Solutions:
    collection = Collection(part.files)
    found = collection.trajectory(part.cases)
    state = torch.cat([found[name] for name in surrogate.fields], 2).contiguous()
    times = torch.tensor(surrogate.times, dtype=torch.float64)
    grid = tuple(state.shape[3:])
    if grid != surrogate.grid:
        sizes = ["x".join(map(str, shape)) for shape in (grid, surrogate.grid)]
        raise DataError(f"the data have a grid of {sizes[0]} cells, the surrogate was trained on {sizes[1]}")
    if found["time"].shape[1] != len(times) or not torch.allclose(found["time"], times, rtol=1e-6):
        raise DataError(
            f"{part.files[0]} has {found['time'].shape[1]} frames up to {float(found['time'].max()):g} s, the "
            f"surrogate gives {len(times)} up to {float(times[-1]):g} s at times of its own; it is judged at these only"
        )
    problem = surrogate.problem
    if problem.static:
        given = {name: found[name][:, 0].contiguous() for name in problem.given}
    else:
        given = {"initial": state[:, 0]}
    parameters = {name: v[:, 0] if v.ndim == 2 else v for name, v in collection.parameters(part.cases).items()}
    return Solutions(state, given, parameters, found["time"], part.subsets)


def _joined(pieces: Sequence[Solutions]) -> Solutions:
    first = pieces[0]
    return Solutions(
        torch.cat([piece.state for piece in pieces]),
        {name: torch.cat([piece.given[name] for piece in pieces]) for name in first.given},
        {name: torch.cat([piece.parameters[name] for piece in pieces]) for name in first.parameters},
        torch.cat([piece.time for piece in pieces]),
        tuple(label for piece in pieces for label in piece.subsets),
    )


@torch.no_grad()
def predict(surrogate: TrajectorySurrogate, data: Solutions) -> tuple[Tensor, dict[str, Tensor]]:
    """The surrogate's fields ``(N, T, C, *grid)``, and ``(N,)`` of each case: ``residual`` and that of the solver's own
    fields ``truth_residual``; with experts ``held_out`` (of rows that they were not solved on), ``jump``, ``failed``.
    """
    device = surrogate.condition_mean.device
    made: list[Tensor] = []
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(data), CHUNK):
        chosen = slice(start, start + CHUNK)
        parameters = {name: values[chosen] for name, values in data.parameters.items()}
        equation = surrogate.equation(parameters, **{name: values[chosen] for name, values in data.given.items()})
        field = surrogate(equation, surrogate.conditions(parameters))
        fields = equation.trajectory(field)
        made.append(torch.cat([fields[name] for name in surrogate.fields], 2).float().cpu())
        truth = data.state[chosen].to(device, torch.float64).reshape(field.shape)
        numbers = {"residual": equation_residual(equation, field), "truth_residual": equation_residual(equation, truth)}
        if surrogate.constraint is not None and (report := surrogate.constraint.report) is not None:
            failed = report.least_squares.failed.reshape(equation.batch, -1).sum(1).double()
            numbers |= {"jump": report.jump, "failed_solves": failed}
            if not bool(report.held_out.isnan().any()):
                numbers["held_out_residual"] = report.held_out
        for name, values in numbers.items():
            found.setdefault(name, []).append(values.cpu())
    return torch.cat(made), {name: torch.cat(values) for name, values in found.items()}


def errors(prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    """NMSE, VRMSE (mean over channels) and relative L2 of each case over its whole trajectory, ``(N,)``."""
    p, y = (values.movedim(2, 1).flatten(2, 3).unsqueeze(1) for values in (prediction, target))
    return {
        "nmse": metrics.nmse(p, y)[:, 0],
        "vrmse": metrics.vrmse(p, y).mean(2)[:, 0],
        "relative_l2": metrics.relative_l2(p, y)[:, 0],
    }


def judge(surrogate: TrajectorySurrogate, data: Solutions) -> dict[str, float]:
    """Means over the cases, for the log of a training."""
    made, numbers = predict(surrogate, data)
    first = _first(surrogate)
    found = {**errors(made[:, first:], data.state[:, first:]), **numbers}
    kept = ("nmse", "relative_l2", "residual", "held_out_residual")
    summary = {name: float(found[name].mean()) for name in kept if name in found}
    if "failed_solves" in found:
        summary["failed_solves"] = float(found["failed_solves"].sum())
    return summary


def evaluate(surrogate: TrajectorySurrogate, data: Solutions) -> tuple[dict[str, Any], Tensor]:
    """The ``test`` entry of ``summary.json``, and the predictions ``(N, T, C, *grid)``.

    Contenders: the surrogate ``""`` and, where there is time, the initial field held, ``"persistence_"``.
    """
    made, numbers = predict(surrogate, data)
    first = _first(surrogate)
    target, contenders = data.state[:, first:], {"": made[:, first:]}
    if first:
        contenders["persistence_"] = data.state[:, :1].expand_as(target)
    scores = {prefix: errors(fields, target) for prefix, fields in contenders.items()}

    def table(cases: Tensor | slice = slice(None)) -> dict[str, float]:
        row = {name: float(values[cases].mean()) for name, values in numbers.items() if name != "failed_solves"}
        if "failed_solves" in numbers:
            row["failed_solves"] = float(numbers["failed_solves"][cases].sum())
        for prefix, own in scores.items():
            row |= {prefix + key: float(value[cases].mean()) for key, value in own.items()}
            row[f"{prefix}relative_l2_worst"] = float(own["relative_l2"][cases].max())
        return row

    labels = np.array(data.subsets)
    summary: dict[str, Any] = {
        "kind": surrogate.kind,
        "cases": len(data),
        "frames": data.state.shape[1],
        **table(),
    }
    for prefix, fields in contenders.items():
        summary[f"{prefix}relative_l2_per_frame"] = metrics.relative_l2(fields, target).mean(0).tolist()
    summary["per_subset"] = {
        str(label): {"cases": int((labels == label).sum()), **table(torch.from_numpy(labels == label))}
        for label in np.unique(labels)
    }
    return summary, made


def save_predictions(path: Path, surrogate: TrajectorySurrogate, made: Tensor, data: Solutions, shown: int = 6) -> None:
    """What the pictures are drawn from: a few cases (of every subset in turn), and the errors of all.

    The arrays of ``evaluation.save_predictions`` for an evolution, of ``map_evaluation.save_predictions`` for a static
    problem.
    """
    chosen = few_of_each(data.subsets, shown)
    first, static = _first(surrogate), surrogate.problem.static
    parameters = {name: values[chosen] for name, values in data.parameters.items()}
    arrays: dict[str, Any] = {
        **description(surrogate, parameters),
        "kind": np.array("map" if static else surrogate.kind),
        "truth": data.state[chosen].numpy(),
        "prediction": made[chosen].numpy(),
        "time": data.time[chosen].numpy(),
        "subset": np.array([data.subsets[case] for case in chosen]),
        "subsets": np.array(data.subsets),
        "case": np.array(chosen),
        **{f"parameter_{name}": values.numpy() for name, values in parameters.items()},
    }
    target = data.state[:, first:]
    if static:
        known = {field.name: field for field in surrogate.problem.fields}
        arrays |= {
            "inputs": np.array(list(data.given), dtype=str),
            "input": torch.cat([values[chosen] for values in data.given.values()], 1).numpy(),
            "input_units": np.array([known[name].unit for name in data.given], dtype=str),
            "relative_l2": errors(made, target)["relative_l2"].numpy(),
        }
    else:
        held = data.state[:, :1].expand_as(target)
        arrays["rollout_relative_l2"] = metrics.relative_l2(made[:, first:], target).numpy()
        arrays["persistence_rollout_relative_l2"] = metrics.relative_l2(held, target).numpy()
    np.savez_compressed(path, **arrays)


def _first(surrogate: TrajectorySurrogate) -> int:
    """The first frame that is predicted."""
    return 0 if surrogate.problem.static else 1
