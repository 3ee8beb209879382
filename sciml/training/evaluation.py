"""How good a surrogate is on cases it never saw, beside copying the last frame and looking up the nearest training
case.

Protocol: one-step errors over the frame pairs from the problem's first frame on; rollout from that true frame. Of a
flow that starts from rest it is frame 1 (from frame 0 copying scores an error of exactly 1, which would flatter
everything measured against it). A surrogate that learned steps of any length is also judged by direct jumps, one step
from that same frame to each later one. Maps are judged in ``map_evaluation``.
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
from sciml.surrogate.conditions import check_blocks
from sciml.training import obedience, series_evaluation
from sciml.training.data import Trajectories

CHUNK = 16
"""Cases evaluated together."""


@dataclass(frozen=True)
class Jumps:
    """``frames (N, T, C, *grid)``, each in one step from the first true frame, and the cases ``(N,)`` whose parameters
    do not change in time: one step can follow no others.
    """

    frames: Tensor
    steady: Tensor


@dataclass(frozen=True)
class Predictions:
    """Frames ``first_target ...`` of every case, ``(N, T, C, *grid)``: from true inputs, rolled out, and of a surrogate
    that learned steps of any length by direct jumps.
    """

    one_step: Tensor
    rollout: Tensor
    direct: Jumps | None = None


@torch.no_grad()
def predict(surrogate: Surrogate, data: Trajectories) -> Predictions:
    """One-step, rolled-out and direct predictions of the surrogate."""
    one_step, rollout, direct = [], [], []
    for start in range(0, len(data.state), CHUNK):
        piece = _cases(data, slice(start, start + CHUNK))
        one_step.append(_one_step(surrogate, piece))
        rollout.append(_rollout(surrogate, piece))
        if surrogate.pairs == "all":
            direct.append(_direct(surrogate, piece))
    if not direct:
        return Predictions(torch.cat(one_step), torch.cat(rollout))
    steady = _steady(data, surrogate.problem.first_frame)
    return Predictions(torch.cat(one_step), torch.cat(rollout), Jumps(torch.cat(direct), steady))


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
    for frame in range(first, frames, surrogate.temporal):
        now = at_time(data.parameters, frame - 1, frames - 1)
        interval = data.time[:, frame] - data.time[:, frame - 1]
        following = surrogate.advance(window, now, interval)[:, : frames - frame]
        predictions.append(following.cpu())
        window = torch.cat([window, following], 1)[:, -surrogate.history :]
    return torch.cat(predictions, 1)


def _direct(surrogate: Surrogate, data: Trajectories) -> Tensor:
    frames, device = data.state.shape[1], surrogate.normaliser.mean.device
    start = surrogate.problem.first_frame
    state = data.state[:, start : start + 1].to(device)
    now = at_time(data.parameters, start, frames - 1)
    elapsed = data.time - data.time[:, start : start + 1]
    jumps = [surrogate(state, now, elapsed[:, frame]).cpu() for frame in range(first_target(surrogate), frames)]
    return torch.stack(jumps, 1)


def _steady(data: Trajectories, start: int) -> Tensor:
    """Which cases ``(N,)`` have the same parameters in all steps from frame ``start`` on."""
    same = [(values[:, start:] == values[:, start : start + 1]).all(1) for values in data.parameters.values()]
    return torch.stack(same).all(0)


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
class JumpScores:
    """Of direct jumps: relative L2 ``(cases, frames)``, relative L1 of each field at the last frame ``(cases, fields)``
    and which cases count ``(cases,)``.
    """

    relative_l2: Tensor
    last_l1: Tensor
    steady: Tensor


@dataclass(frozen=True)
class Scores:
    """Errors ``(cases, frames)``: one-step NMSE and VRMSE (mean over channels), rollout relative L2; relative L1 of
    each field, ``(cases, frames, fields)`` of one step and ``(cases, fields)`` at the rollout's last frame; the errors
    of direct jumps.
    """

    nmse: Tensor
    vrmse: Tensor
    relative_l2: Tensor
    one_step_l1: Tensor
    last_l1: Tensor
    direct: JumpScores | None = None

    def summary(self, cases: Tensor | slice = slice(None)) -> dict[str, float]:
        """Means over the chosen cases and all frames, at the last frame, and the worst case at the last frame.

        ``median_relative_l1``: of one step, the median over cases and frames for each field, then the mean over fields;
        ``rollout_last_median_relative_l1`` that of the last frame. Fields are in physical units (in the paper that
        introduced the measure they are standardised). ``direct_…``: of the cases among the chosen whose parameters do
        not change, none if there are none.
        """
        rollout = self.relative_l2[cases]
        found = {
            "nmse": float(self.nmse[cases].mean()),
            "vrmse": float(self.vrmse[cases].mean()),
            "median_relative_l1": mean_of_medians(self.one_step_l1[cases].flatten(0, 1)),
            "rollout_mean": float(rollout.mean()),
            "rollout_last": float(rollout[:, -1].mean()),
            "rollout_worst_last": float(rollout[:, -1].max()),
            "rollout_last_median_relative_l1": mean_of_medians(self.last_l1[cases]),
        }
        if self.direct is not None and (steady := self.direct.steady[cases]).any():
            direct = self.direct.relative_l2[cases][steady]
            found |= {
                "direct_mean": float(direct.mean()),
                "direct_last": float(direct[:, -1].mean()),
                "direct_worst_last": float(direct[:, -1].max()),
                "direct_last_median_relative_l1": mean_of_medians(self.direct.last_l1[cases][steady]),
            }
        return found


def score(
    predictions: Predictions, target: Tensor, groups: Sequence[int] | None = None, fluid: Tensor | None = None
) -> Scores:
    """Errors of predictions against the true frames ``(N, T, C, *grid)``; ``groups``: channels of each field;
    ``fluid (N, *grid)``: the cells that count.
    """
    groups = [target.shape[2]] if groups is None else groups
    direct = None
    if predictions.direct is not None:
        frames = predictions.direct.frames
        direct = JumpScores(
            metrics.relative_l2(frames, target, fluid),
            relative_l1(frames[:, -1:], target[:, -1:], groups, fluid)[:, 0],
            predictions.direct.steady,
        )
    return Scores(
        nmse=metrics.nmse(predictions.one_step, target, fluid),
        vrmse=metrics.vrmse(predictions.one_step, target, fluid).mean(2),
        relative_l2=metrics.relative_l2(predictions.rollout, target, fluid),
        one_step_l1=relative_l1(predictions.one_step, target, groups, fluid),
        last_l1=relative_l1(predictions.rollout[:, -1:], target[:, -1:], groups, fluid)[:, 0],
        direct=direct,
    )


def fluid_of(surrogate: Surrogate, data: Trajectories) -> Tensor | None:
    """The cells ``(N, *grid)`` bool that are in the fluid of each case; None for a problem without obstacles."""
    return surrogate.problem.fluid_cells(at_time(data.parameters, 0, 1), tuple(data.state.shape[3:]))


def relative_l1(prediction: Tensor, target: Tensor, groups: Sequence[int], fluid: Tensor | None = None) -> Tensor:
    """``metrics.relative_l1`` of each field, ``(N, T, fields)``."""
    pairs = zip(prediction.split(list(groups), 2), target.split(list(groups), 2), strict=True)
    return torch.stack([metrics.relative_l1(p, y, fluid) for p, y in pairs], 2)


def mean_of_medians(errors: Tensor) -> float:
    """Mean over fields of the median over samples, ``errors (samples, fields)``."""
    return float(np.median(errors.numpy(), axis=0).mean())


def field_errors(
    surrogate: Surrogate, prediction: Tensor, target: Tensor, fluid: Tensor | None = None
) -> dict[str, dict[str, Any]]:
    """Every measure of ``sciml.metrics`` for each field by itself: over everything, and ``<measure>_per_step``.

    Means over cases and components; of ``max_error`` the largest.
    """
    errors: dict[str, dict[str, Any]] = {}
    start = 0
    for name, field in surrogate.fields.items():
        channels = slice(start, start + field.components)
        start += field.components
        errors[name] = {}
        for key, value in metrics.all_metrics(prediction[:, :, channels], target[:, :, channels], fluid).items():
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
    return float(metrics.relative_divergence(velocity, spacing, fluid_of(surrogate, data)).mean())


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
    groups = [field.components for field in surrogate.fields.values()]
    fluid = fluid_of(surrogate, data)
    scores = {prefix: score(made, target, groups, fluid) for prefix, made in contenders.items()}

    def table(cases: Tensor | slice = slice(None)) -> dict[str, float]:
        return {prefix + key: value for prefix, own in scores.items() for key, value in own.summary(cases).items()}

    summary: dict[str, Any] = {"cases": len(data.state), "frames": int(data.state.shape[1]), **table()}
    for prefix, own in scores.items():
        summary[f"{prefix}rollout_relative_l2"] = own.relative_l2.mean(0).tolist()
        summary[f"{prefix}nmse_per_step"] = own.nmse.mean(0).tolist()
    summary["divergence"] = divergence(surrogate, contenders[""].rollout, data)
    summary["truth_divergence"] = divergence(surrogate, target, data)
    own = contenders[""]
    summary["constraints"] = obedience.of_steps(surrogate, contenders[""].one_step, contenders[""].rollout, data)
    summary["fields"] = {
        "one_step": field_errors(surrogate, own.one_step, target, fluid),
        "rollout": field_errors(surrogate, own.rollout, target, fluid),
    }
    if surrogate.problem.series and (told := series_evaluation.report(surrogate, own.rollout, data, first)):
        summary["series"] = told
    if (jumps := direct_errors(own, target, fluid)) is not None:
        summary["direct_relative_l2"] = jumps.mean(0).tolist()
        summary["direct_cases"] = len(jumps)
    labels = np.array(data.subsets)
    summary["per_subset"] = {
        str(label): {"cases": int((labels == label).sum()), **table(torch.from_numpy(labels == label))}
        for label in np.unique(labels)
    }
    return summary, contenders


def direct_errors(predictions: Predictions, target: Tensor, fluid: Tensor | None = None) -> Tensor | None:
    """Relative L2 ``(cases, frames)`` of direct jumps through the cases where one step can go; None without any."""
    direct = predictions.direct
    if direct is None or not direct.steady.any():
        return None
    cells = None if fluid is None else fluid[direct.steady]
    return metrics.relative_l2(direct.frames[direct.steady], target[direct.steady], cells)


def _cases(data: Trajectories, chosen: slice | Tensor | list[int]) -> Trajectories:
    return Trajectories(
        data.state[chosen],
        {name: values[chosen] for name, values in data.parameters.items()},
        data.time[chosen],
        (),
        {name: values[chosen] for name, values in data.series.items()},
    )


def _concatenate(pieces: Sequence[Trajectories]) -> Trajectories:
    return Trajectories(
        torch.cat([piece.state for piece in pieces]),
        {name: torch.cat([piece.parameters[name] for piece in pieces]) for name in pieces[0].parameters},
        torch.cat([piece.time for piece in pieces]),
        tuple(label for piece in pieces for label in piece.subsets),
        {
            name: torch.cat([piece.series[name] for piece in pieces])
            for name in pieces[0].series
            if all(name in piece.series for piece in pieces)
        },
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
        # Blocks of frames are counted from the frame that the rollout starts from.
        start = first_target(surrogate) - 1
        later = {name: values[:, start:] for name, values in part.parameters.items()}
        check_blocks(later, part.time.diff(dim=1)[:, start:], surrogate.temporal)
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
    ``rollout_relative_l2``, ``persistence_…``, ``lookup_… (cases, steps)``; ``subsets (cases,)``; of a surrogate that
    learned steps of any length ``direct_relative_l2 (cases, steps)`` of the cases whose parameters do not change.
    Of a problem with obstacles ``fluid (n, *grid)`` bool; of one with series those of ``series_evaluation.arrays``.
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
    target, fluid = data.state[:, first:], fluid_of(surrogate, data)
    if fluid is not None:
        arrays["fluid"] = fluid[chosen].numpy()
    if surrogate.problem.series:
        arrays |= series_evaluation.arrays(surrogate, contenders[""].rollout[chosen], _cases(data, chosen), first)
    for prefix, made in contenders.items():
        arrays[f"{prefix}rollout_relative_l2"] = metrics.relative_l2(made.rollout, target, fluid).numpy()
    if (jumps := direct_errors(contenders[""], target, fluid)) is not None:
        arrays["direct_relative_l2"] = jumps.numpy()
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
