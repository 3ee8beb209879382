"""How good a surrogate is on cases it never saw, beside copying the last frame and looking up the nearest training
case.

Protocol: one-step errors over the frame pairs from the problem's first frame on; rollout from that true frame. Of a
flow that starts from rest it is frame 1 (from frame 0 copying scores an error of exactly 1, which would flatter
everything measured against it). Maps are judged in ``map_evaluation``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml import metrics
from sciml.errors import DataError
from sciml.surrogate import Surrogate, at_time
from sciml.training.data import Trajectories

CHUNK = 16
"""Cases evaluated together."""


@dataclass(frozen=True)
class Predictions:
    """Frames ``first_target ...`` of every case, ``(N, T, C, *grid)``: from true inputs, and rolled out."""

    one_step: Tensor
    rollout: Tensor


@torch.no_grad()
def predict(surrogate: Surrogate, data: Trajectories) -> Predictions:
    """One-step and rolled-out predictions of the surrogate."""
    one_step, rollout = [], []
    for start in range(0, len(data.state), CHUNK):
        piece = _cases(data, slice(start, start + CHUNK))
        one_step.append(_one_step(surrogate, piece))
        rollout.append(_rollout(surrogate, piece))
    return Predictions(torch.cat(one_step), torch.cat(rollout))


def first_target(surrogate: Surrogate) -> int:
    """The first frame that is predicted."""
    return surrogate.problem.first_frame + surrogate.history


def _one_step(surrogate: Surrogate, data: Trajectories) -> Tensor:
    frames, device = data.state.shape[1], surrogate.normaliser.mean.device
    predictions = []
    for frame in range(first_target(surrogate), frames):
        window = data.state[:, frame - surrogate.history : frame].to(device)
        now = at_time(data.parameters, frame - 1, frames - 1)
        predictions.append(surrogate(window, now, data.time[:, frame] - data.time[:, frame - 1]).cpu())
    return torch.stack(predictions, 1)


def _rollout(surrogate: Surrogate, data: Trajectories) -> Tensor:
    frames, device = data.state.shape[1], surrogate.normaliser.mean.device
    first = first_target(surrogate)
    window = data.state[:, surrogate.problem.first_frame : first].to(device)
    predictions = []
    for frame in range(first, frames):
        now = at_time(data.parameters, frame - 1, frames - 1)
        following = surrogate(window, now, data.time[:, frame] - data.time[:, frame - 1])
        predictions.append(following.cpu())
        window = torch.cat([window[:, 1:], following.unsqueeze(1)], 1)
    return torch.stack(predictions, 1)


def persistence(data: Trajectories, first: int) -> Predictions:
    """Copy the last true frame (one step), or the initial frame for ever (rollout)."""
    one_step = data.state[:, first - 1 : -1]
    return Predictions(one_step, data.state[:, first - 1 : first].expand_as(one_step))


def lookup(surrogate: Surrogate, train: Trajectories, data: Trajectories, first: int) -> Predictions:
    """The nearest training case, rescaled to the natural units of the asked case.

    Nearest in the problem's weighted conditions, or, where initial fields are drawn at random, in the frame that the
    rollout starts from. Rollout: that case's true frames. One step: the input plus that case's true increment. It
    learns nothing, so an operator that does not beat it has learned nothing worth the name.
    """
    known, asked = (_lookup_keys(surrogate, cases, first - 1) for cases in (train, data))
    nearest = torch.cdist(asked, known).argmin(1)
    frames = data.state.shape[1]
    found = train.state[nearest][:, :frames]
    scale = _scales(surrogate, data) / _scales(surrogate, _cases(train, nearest), frames - 1)
    # The scale of a frame is that of the transition that leads to it.
    rollout = found[:, first:] * scale[:, first - 1 :]
    increment = (found[:, first:] - found[:, first - 1 : -1]) * scale[:, first - 1 :]
    return Predictions(data.state[:, first - 1 : -1] + increment, rollout)


def _lookup_keys(surrogate: Surrogate, data: Trajectories, frame: int) -> Tensor:
    """What cases are compared by, ``(N, D)``."""
    problem, now = surrogate.problem, at_time(data.parameters, 0, 1)
    if problem.draw_names:
        scale = surrogate.field_scales(now)
        return (data.state[:, frame] / scale.reshape(*scale.shape, *(1,) * problem.dim)).flatten(1)
    weights = torch.tensor(problem.lookup_weights, dtype=torch.float64)
    return problem.conditions(now, data.time[:, 1] - data.time[:, 0]) * weights


def _scales(surrogate: Surrogate, data: Trajectories, transitions: int | None = None) -> Tensor:
    count = transitions or data.state.shape[1] - 1
    per_step = [surrogate.field_scales(at_time(data.parameters, index, count)) for index in range(count)]
    stacked = torch.stack(per_step, 1)
    return stacked.reshape(*stacked.shape, *(1,) * (data.state.ndim - 3))


@dataclass(frozen=True)
class Scores:
    """Errors ``(cases, frames)``: one-step NMSE and VRMSE (mean over channels), rollout relative L2."""

    nmse: Tensor
    vrmse: Tensor
    relative_l2: Tensor

    def summary(self, cases: Tensor | slice = slice(None)) -> dict[str, float]:
        """Means over the chosen cases and all frames, at the last frame, and the worst case at the last frame."""
        rollout = self.relative_l2[cases]
        return {
            "nmse": float(self.nmse[cases].mean()),
            "vrmse": float(self.vrmse[cases].mean()),
            "rollout_mean": float(rollout.mean()),
            "rollout_last": float(rollout[:, -1].mean()),
            "rollout_worst_last": float(rollout[:, -1].max()),
        }


def score(predictions: Predictions, target: Tensor) -> Scores:
    """Errors of predictions against the true frames ``(N, T, C, *grid)``."""
    return Scores(
        nmse=metrics.nmse(predictions.one_step, target),
        vrmse=metrics.vrmse(predictions.one_step, target).mean(2),
        relative_l2=metrics.relative_l2(predictions.rollout, target),
    )


def field_errors(surrogate: Surrogate, prediction: Tensor, target: Tensor) -> dict[str, dict[str, Any]]:
    """Every measure of ``sciml.metrics`` for each field by itself: over everything, and ``<measure>_per_step``.

    Means over cases and components; of ``max_error`` the largest.
    """
    errors: dict[str, dict[str, Any]] = {}
    start = 0
    for name, field in surrogate.fields.items():
        channels = slice(start, start + field.components)
        start += field.components
        errors[name] = {}
        for key, value in metrics.all_metrics(prediction[:, :, channels], target[:, :, channels]).items():
            by_step = value.transpose(0, 1).flatten(1)
            by_step = by_step.amax(1) if key == "max_error" else by_step.mean(1)
            errors[name][key] = float(by_step.max() if key == "max_error" else by_step.mean())
            errors[name][f"{key}_per_step"] = by_step.tolist()
    return errors


def divergence(surrogate: Surrogate, frames: Tensor, data: Trajectories) -> float | None:
    """Mean ``metrics.relative_divergence`` of the velocity in ``frames (N, T, C, *grid)``.

    None where it means nothing.
    """
    if "velocity" not in surrogate.fields or not surrogate.problem.divergence_free:
        return None
    start = 0
    for name, field in surrogate.fields.items():
        if name == "velocity":
            break
        start += field.components
    velocity = frames[:, :, start : start + field.components]
    now = at_time(data.parameters, 0, 1)
    coordinates = surrogate.problem.coordinates(now, velocity.shape[3:])
    spacing = torch.stack([centres[:, 1] - centres[:, 0] for centres in coordinates.values()], 1)
    return float(metrics.relative_divergence(velocity, spacing).mean())


def evaluate(
    surrogate: Surrogate, train: Trajectories | None, parts: Sequence[Trajectories]
) -> tuple[dict[str, Any], dict[str, Predictions]]:
    """The ``test`` entry of ``summary.json``, over all parts together and by subset, and the predictions."""
    check_fit(surrogate, parts)
    data = _concatenate(parts)
    first = first_target(surrogate)
    contenders = {"": predict(surrogate, data), "persistence_": persistence(data, first)}
    if train is not None and train.state.shape[1] >= data.state.shape[1]:
        contenders["lookup_"] = lookup(surrogate, train, data, first)
    target = data.state[:, first:]
    scores = {prefix: score(made, target) for prefix, made in contenders.items()}

    def table(cases: Tensor | slice = slice(None)) -> dict[str, float]:
        return {prefix + key: value for prefix, own in scores.items() for key, value in own.summary(cases).items()}

    summary: dict[str, Any] = {"cases": len(data.state), "frames": int(data.state.shape[1]), **table()}
    for prefix, own in scores.items():
        summary[f"{prefix}rollout_relative_l2"] = own.relative_l2.mean(0).tolist()
        summary[f"{prefix}nmse_per_step"] = own.nmse.mean(0).tolist()
    summary["divergence"] = divergence(surrogate, contenders[""].rollout, data)
    summary["truth_divergence"] = divergence(surrogate, target, data)
    own = contenders[""]
    summary["fields"] = {
        "one_step": field_errors(surrogate, own.one_step, target),
        "rollout": field_errors(surrogate, own.rollout, target),
    }
    labels = np.array(data.subsets)
    summary["per_subset"] = {
        str(label): {"cases": int((labels == label).sum()), **table(torch.from_numpy(labels == label))}
        for label in np.unique(labels)
    }
    return summary, contenders


def _cases(data: Trajectories, chosen: slice | Tensor) -> Trajectories:
    return Trajectories(
        data.state[chosen],
        {name: values[chosen] for name, values in data.parameters.items()},
        data.time[chosen],
        (),
    )


def _concatenate(pieces: Sequence[Trajectories]) -> Trajectories:
    return Trajectories(
        torch.cat([piece.state for piece in pieces]),
        {name: torch.cat([piece.parameters[name] for piece in pieces]) for name in pieces[0].parameters},
        torch.cat([piece.time for piece in pieces]),
        tuple(label for piece in pieces for label in piece.subsets),
    )


def check_fit(surrogate: Surrogate, parts: Sequence[Trajectories]) -> None:
    """Raise ``DataError`` unless all parts have the surrogate's grid, one number of frames, and a frame to predict."""
    frames = sorted({part.state.shape[1] for part in parts})
    if len(frames) > 1:
        raise DataError(
            f"the files have {' and '.join(map(str, frames))} frames; evaluate files of one length together"
        )
    if frames[0] <= first_target(surrogate):
        raise DataError(
            f"the data have {frames[0]} frames; this surrogate needs at least {first_target(surrogate) + 1}"
        )
    for part in parts:
        grid = tuple(part.state.shape[3:])
        if surrogate.grid is not None and grid != surrogate.grid:
            raise DataError(
                f"the data have a grid of {'x'.join(map(str, grid))} cells, the surrogate was trained on "
                f"{'x'.join(map(str, surrogate.grid))}; interpolate the data, or train on them"
            )


def save_predictions(
    path: Path,
    surrogate: Surrogate,
    contenders: Mapping[str, Predictions],
    parts: Sequence[Trajectories],
    shown: int = 6,
) -> None:
    """What the pictures are drawn from: the rollouts of a few cases (of every subset in turn) and the error curves of
    all.

    Arrays: those of ``description``; ``truth``, ``prediction (n, T, C, *grid)`` with the starting frame first, ``time
    (n, T)``, one ``parameter_<name>`` ``(n,)`` or, where it changes in time, ``(n, T')`` each, ``subset (n,)``;
    ``rollout_relative_l2``, ``persistence_…``, ``lookup_… (cases, steps)``; ``subsets (cases,)``.
    """
    data = _concatenate(parts)
    first = first_target(surrogate)
    chosen = few_of_each(data.subsets, shown)
    start = data.state[chosen, first - 1 : first]
    arrays: dict[str, Any] = {
        "truth": data.state[chosen, first - 1 :].numpy(),
        "prediction": torch.cat([start, contenders[""].rollout[chosen]], 1).numpy(),
        "time": data.time[chosen, first - 1 :].numpy(),
        "subset": np.array([data.subsets[case] for case in chosen]),
        "subsets": np.array(data.subsets),
        "case": np.array(chosen),
        **description(surrogate, {name: values[chosen] for name, values in data.parameters.items()}),
    }
    for name, values in data.parameters.items():
        constant = bool((values == values[:, :1]).all())
        arrays[f"parameter_{name}"] = (values[chosen, 0] if constant else values[chosen]).numpy()
    target = data.state[:, first:]
    for prefix, made in contenders.items():
        arrays[f"{prefix}rollout_relative_l2"] = metrics.relative_l2(made.rollout, target).numpy()
    np.savez_compressed(path, **arrays)


def description(surrogate: Surrogate, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a picture has to know about the chosen cases: ``problem``, ``kind``, ``fields`` with their ``units`` and
    ``components``, ``lengths (n, dim)`` of the box and its ``origin (dim,)`` in metres.
    """
    problem, fields = surrogate.problem, surrogate.fields.values()
    first = {name: values[:, 0] if values.ndim == 2 else values for name, values in parameters.items()}
    return {
        "problem": np.array(problem.name),
        "kind": np.array(surrogate.kind),
        "fields": np.array(list(surrogate.fields)),
        "units": np.array([field.unit for field in fields]),
        "components": np.array([field.components for field in fields]),
        "lengths": problem.lengths(first).numpy(),
        "origin": np.array(problem.origin()),
    }


def few_of_each(subsets: Sequence[str], count: int) -> list[int]:
    """The first cases of each subset in turn, ``count`` in all."""
    by_subset = [[case for case, label in enumerate(subsets) if label == name] for name in sorted(set(subsets))]
    turns = [case for turn in itertools.zip_longest(*by_subset) for case in turn if case is not None]
    return turns[:count]
