"""How good a map is on cases it never saw, beside the mean of the training cases and the nearest of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml import metrics
from sciml.errors import DataError
from sciml.surrogate import Surrogate
from sciml.training import obedience
from sciml.training.data import Pairs
from sciml.training.evaluation import description, few_of_each, field_errors, mean_of_medians, relative_l1
from sciml.training.tasks import fluid_beside, observed

CHUNK = 64
"""Cases evaluated together."""


def concatenate(pieces: Sequence[Pairs]) -> Pairs:
    """Several sets of pairs as one."""
    first = pieces[0]
    return Pairs(
        torch.cat([piece.input for piece in pieces]),
        torch.cat([piece.target for piece in pieces]),
        {name: torch.cat([piece.parameters[name] for piece in pieces]) for name in first.parameters},
        torch.cat([piece.interval for piece in pieces]),
        tuple(label for piece in pieces for label in piece.subsets),
    )


@torch.no_grad()
def predict(surrogate: Surrogate, data: Pairs, constrained: bool = True) -> tuple[Tensor, Tensor | None]:
    """The predicted fields ``(N, C, *grid)``, and the points they were predicted from ``(N, points, dim)`` as fractions
    of the box: the same for the same data, whoever asks.
    """
    device = surrogate.normaliser.mean.device
    generator = torch.Generator().manual_seed(0)
    predictions, places = [], []
    for start in range(0, len(data), CHUNK):
        piece = select(data, slice(start, start + CHUNK))
        state, points = observed(surrogate, piece.input.to(device), generator)
        find = surrogate.predict if constrained else surrogate.unconstrained
        made = surrogate.denormalise(*find(state, piece.parameters, piece.interval, points))
        predictions.append(made.cpu())
        places += [] if points is None else [points.cpu()]
    return torch.cat(predictions), torch.cat(places) if places else None


def select(data: Pairs, chosen: slice | Sequence[int] | Tensor) -> Pairs:
    """Some of the pairs."""
    return replace(
        data,
        input=data.input[chosen],
        target=data.target[chosen],
        parameters={name: values[chosen] for name, values in data.parameters.items()},
        interval=data.interval[chosen],
        subsets=(),
    )


def training_mean(surrogate: Surrogate, train: Pairs, data: Pairs) -> Tensor:
    """The mean training field in natural units, rescaled to each case: the best guess without looking."""
    mean = (train.target.double() / _scale(surrogate, train)).mean(0)
    return (mean * _scale(surrogate, data)).float()


def lookup(surrogate: Surrogate, train: Pairs, data: Pairs) -> Tensor:
    """The field of the training case with the nearest input (and conditions), rescaled to the asked case."""
    nearest = torch.cdist(_keys(surrogate, data), _keys(surrogate, train)).argmin(1)
    return train.target[nearest] / _scale(surrogate, train)[nearest].float() * _scale(surrogate, data).float()


def _keys(surrogate: Surrogate, data: Pairs) -> Tensor:
    """What cases are compared by: standardised inputs (their root mean square counts), conditions and lead time."""
    norm, problem = surrogate.normaliser, surrogate.problem
    keys = []
    if surrogate.inputs:
        scale = surrogate.field_scales(data.parameters, surrogate.inputs)
        scaled = (data.input.flatten(2) / scale[..., None]).cpu()
        standard = (scaled - norm.input_mean.cpu()[:, None]) / norm.input_std.cpu()[:, None]
        keys.append(standard.flatten(1) * standard.shape[-1] ** -0.5)
    if problem.condition_names:
        raw = surrogate.conditions(data.parameters, data.interval).float()
        keys.append((raw - norm.condition_mean.cpu()) / norm.condition_std.cpu())
    if (time := surrogate.lead_time(data.interval)) is not None:
        keys.append(time.float().unsqueeze(1))
    return torch.cat(keys, 1)


def _scale(surrogate: Surrogate, data: Pairs) -> Tensor:
    scale = surrogate.field_scales(data.parameters).double()
    return scale.reshape(*scale.shape, *(1,) * (data.target.ndim - 2))


def errors(prediction: Tensor, target: Tensor, fluid: Tensor | None = None) -> dict[str, Tensor]:
    """NMSE, VRMSE (mean over channels) and relative L2 of each case, ``(N,)``, over the cells ``fluid (N, *grid)``."""
    p, y = prediction.unsqueeze(1), target.unsqueeze(1)
    return {
        "nmse": metrics.nmse(p, y, fluid)[:, 0],
        "vrmse": metrics.vrmse(p, y, fluid).mean(2)[:, 0],
        "relative_l2": metrics.relative_l2(p, y, fluid)[:, 0],
    }


def evaluate(
    surrogate: Surrogate, train: Pairs | None, data: Pairs
) -> tuple[dict[str, Any], dict[str, Tensor], Tensor | None]:
    """The ``test`` entry of ``summary.json``, the predictions by contender, and the points.

    Contenders: the surrogate ``""``, ``"mean_"`` and ``"lookup_"`` (with training cases).

    Raises ``DataError`` for data on another grid than the surrogate's.
    """
    grid = tuple(data.target.shape[2:])
    if surrogate.grid is not None and grid != surrogate.grid:
        sizes = ["x".join(map(str, shape)) for shape in (grid, surrogate.grid)]
        raise DataError(f"the data have a grid of {sizes[0]} cells, the surrogate was trained on {sizes[1]}")
    own, points = predict(surrogate, data)
    raw = predict(surrogate, data, constrained=False)[0] if surrogate.imposed else own
    contenders = {"": own}
    if train is not None:
        contenders["mean_"] = training_mean(surrogate, train, data)
        if surrogate.inputs or surrogate.problem.condition_names:
            contenders["lookup_"] = lookup(surrogate, train, data)
    fluid = fluid_beside(surrogate, data.parameters, data.target)
    scores = {prefix: errors(made, data.target, fluid) for prefix, made in contenders.items()}
    groups = [field.components for field in surrogate.fields.values()]
    by_field = {
        prefix: relative_l1(made.unsqueeze(1), data.target.unsqueeze(1), groups, fluid)[:, 0]
        for prefix, made in contenders.items()
    }

    def table(cases: Tensor | slice = slice(None)) -> dict[str, float]:
        row = {}
        for prefix, own in scores.items():
            row |= {prefix + key: float(value[cases].mean()) for key, value in own.items()}
            row[f"{prefix}relative_l2_worst"] = float(own["relative_l2"][cases].max())
            row[f"{prefix}median_relative_l1"] = mean_of_medians(by_field[prefix][cases])
        return row

    labels = np.array(data.subsets)
    summary = {
        "cases": len(data),
        **table(),
        "constraints": obedience.of_map(surrogate, raw, own, data),
        "fields": {"map": field_errors(surrogate, own.unsqueeze(1), data.target.unsqueeze(1), fluid)},
        "per_subset": {
            str(label): {"cases": int((labels == label).sum()), **table(torch.from_numpy(labels == label))}
            for label in np.unique(labels)
        },
    }
    return summary, contenders, points


def save_predictions(
    path: Path,
    surrogate: Surrogate,
    contenders: Mapping[str, Tensor],
    points: Tensor | None,
    data: Pairs,
    shown: int = 6,
) -> None:
    """What the pictures are drawn from: a few cases (of every subset in turn) and the errors of all.

    Arrays: those of ``evaluation.description``; ``input (n, Cin, *grid)`` with the names ``inputs`` and
    ``input_units``, ``points (n, N, dim)`` in metres, ``truth``, ``prediction (n, 1, C, *grid)``, ``time (n, 1)``,
    ``parameter_<name> (n,)``, ``subset``, ``case (n,)``; ``relative_l2``, ``mean_relative_l2``,
    ``lookup_relative_l2 (cases,)``, ``subsets (cases,)``; of a problem with obstacles ``fluid (n, *grid)`` bool.
    """
    chosen = few_of_each(data.subsets, shown)
    few = select(data, chosen)
    arrays: dict[str, Any] = {
        **description(surrogate, few.parameters),
        "truth": few.target.unsqueeze(1).numpy(),
        "prediction": contenders[""][chosen].unsqueeze(1).numpy(),
        "time": few.interval.unsqueeze(1).numpy(),
        "inputs": np.array(list(surrogate.inputs), dtype=str),
        "input": few.input.numpy(),
        "input_units": np.array([field.unit for field in surrogate.inputs.values()], dtype=str),
        "subset": np.array([data.subsets[case] for case in chosen]),
        "subsets": np.array(data.subsets),
        "case": np.array(chosen),
    }
    if points is not None:
        arrays["points"] = arrays["origin"] + points[chosen].numpy() * arrays["lengths"][:, None]
    arrays |= {f"parameter_{name}": values.numpy() for name, values in few.parameters.items()}
    fluid = fluid_beside(surrogate, data.parameters, data.target)
    if fluid is not None:
        arrays["fluid"] = fluid[chosen].numpy()
    for prefix, made in contenders.items():
        arrays[f"{prefix}relative_l2"] = errors(made, data.target, fluid)["relative_l2"].numpy()
    np.savez_compressed(path, **arrays)
