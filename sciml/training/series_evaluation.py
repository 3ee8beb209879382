"""What the rolled-out fields say of a problem's series (drag, lift), beside the true fields and the solver itself.

The same estimate, ``problem.diagnose``, is made on predicted and on true frames: what the two differ by is the
surrogate's error, what that on true frames differs by from the solver's own numbers is the estimate's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml import metrics
from sciml.surrogate import Surrogate, at_time
from sciml.training.data import Trajectories

CHUNK = 16
"""Cases estimated together."""


def report(surrogate: Surrogate, rollout: Tensor, data: Trajectories, first: int) -> dict[str, Any]:
    """The entry ``series`` of a ``test`` entry; ``rollout (N, T - first, C, *grid)`` are the frames from ``first`` on.

    For each series: its ``unit``, and of each source (``solver``: the file's own numbers; ``truth``, ``prediction``:
    estimated from these frames) the means over the cases of ``mean``, ``range`` (greatest minus least) and
    ``frequency`` (``metrics.dominant_frequency``, of the ``frequency_cases`` that have one) over the predicted frames.
    ``against_solver``, ``against_truth``: medians over the cases of ``mean_error`` and ``range_error``, in units of the
    other source's root mean square over the frames of the case, and of ``frequency_error``, relative, over the
    ``frequency_cases`` where both have one. None where there is no number. Series that can neither be estimated nor are
    in the files are left out.
    """
    time = data.time[:, first:]
    found = {}
    for name, sources in _sources(surrogate, rollout, data, first).items():
        numbers = {source: _numbers(values[:, 1:], time) for source, values in sources.items()}
        entry: dict[str, Any] = {"unit": surrogate.problem.series[name]}
        for source, own in numbers.items():
            periodic = own["frequency"][own["frequency"].isfinite()]
            entry[source] = {"mean": _number(own["mean"].mean()), "range": _number(own["range"].mean())}
            entry[source]["frequency"] = _number(periodic.mean()) if len(periodic) else None
            entry[source]["frequency_cases"] = len(periodic)
            others = [other for other in ("solver", "truth") if other in numbers]
            for other in others[: others.index(source) if source in others else None]:
                entry[source][f"against_{other}"] = _errors(own, numbers[other])
        found[name] = entry
    return found


def arrays(surrogate: Surrogate, rollout: Tensor, data: Trajectories, first: int) -> dict[str, Any]:
    """What pictures are drawn from: the names ``series`` with their ``series_units``, and of each of them that there is
    ``solver_<name>``, ``truth_<name>``, ``prediction_<name> (n, T)`` from the frame before ``first`` on.
    """
    found = _sources(surrogate, rollout, data, first)
    curves = {f"{source}_{name}": values.numpy() for name, own in found.items() for source, values in own.items()}
    units = [surrogate.problem.series[name] for name in found]
    return {"series": np.array(list(found), dtype=str), "series_units": np.array(units, dtype=str), **curves}


def _sources(surrogate: Surrogate, rollout: Tensor, data: Trajectories, first: int) -> dict[str, dict[str, Tensor]]:
    """Series -> source -> ``(N, T)`` from the frame before ``first`` on, of which a rollout has the true one."""
    truth = data.state[:, first - 1 :]
    estimates = {
        "truth": _estimated(surrogate, truth, data, first),
        "prediction": _estimated(surrogate, torch.cat([truth[:, :1], rollout], 1), data, first),
    }
    found: dict[str, dict[str, Tensor]] = {}
    for name in surrogate.problem.series:
        own = {"solver": data.series[name][:, first - 1 :]} if name in data.series else {}
        own |= {source: values[name] for source, values in estimates.items() if name in values}
        if own:
            found[name] = own
    return found


def _estimated(surrogate: Surrogate, frames: Tensor, data: Trajectories, first: int) -> dict[str, Tensor]:
    """``problem.diagnose`` of frames ``(N, T, C, *grid)`` that begin with the one before ``first``; nothing of a
    surrogate that does not predict all ``learned`` fields, which the estimate may read.
    """
    problem, sizes = surrogate.problem, [field.components for field in surrogate.fields.values()]
    if not set(problem.learned) <= set(surrogate.fields):
        return {}
    now, time = at_time(data.parameters, 0, 1), data.time[:, first - 1 :]
    pieces: list[Mapping[str, Tensor]] = []
    for start in range(0, len(frames), CHUNK):
        part = slice(start, start + CHUNK)
        by_field = dict(zip(surrogate.fields, frames[part].split(sizes, 2), strict=True))
        pieces.append(problem.diagnose(by_field, {name: value[part] for name, value in now.items()}, time[part]))
    return {name: torch.cat([piece[name].double() for piece in pieces]) for name in pieces[0]}


def _numbers(values: Tensor, time: Tensor) -> dict[str, Tensor]:
    """Of each case ``(N,)``: mean, range, root mean square and dominant frequency over its frames ``(N, T)``."""
    return {
        "mean": values.mean(1),
        "range": values.amax(1) - values.amin(1),
        "size": values.square().mean(1).sqrt(),
        "frequency": metrics.dominant_frequency(values, time),
    }


def _errors(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Any]:
    """How far one source's numbers are from another's."""
    found: dict[str, Any] = {}
    for key in ("mean", "range"):
        gap = (own[key] - other[key]).abs()
        found[f"{key}_error"] = _median((gap / other["size"]).masked_fill(gap == 0, 0.0))
    relative = ((own["frequency"] - other["frequency"]) / other["frequency"]).abs()
    found["frequency_error"] = _median(relative[relative.isfinite()])
    found["frequency_cases"] = int(relative.isfinite().sum())
    return found


def _median(values: Tensor) -> float | None:
    """The median, in which NaN counts as the largest; None of nothing, and where it is no number."""
    if not len(values):
        return None
    ranked = values.nan_to_num(nan=math.inf, posinf=math.inf).sort().values
    return _number((ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2)


def _number(value: Tensor) -> float | None:
    return float(value) if bool(value.isfinite()) else None
