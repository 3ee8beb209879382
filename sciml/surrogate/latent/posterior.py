"""What is kept of an inversion: pointwise means, deviations and bands, draws, and the files that hold them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.inference import check
from sciml.surrogate.latent.inversion import Inversion, bands
from sciml.surrogate.latent.observations import channel_names

LEVEL = 0.9
"""Probability of the bands that are kept."""
KEPT = 200
"""Draws of the input function that are kept, evenly out of all."""
AT_ONCE = 20_000_000
"""Numbers of drawn solutions in memory at a time."""


@dataclass(frozen=True)
class Summary:
    """Pointwise statistics of draws: each has the shape of one draw; ``low``, ``high``: the ends of the band."""

    mean: Tensor
    deviation: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Posterior:
    """What an inversion found at the problem's points, on the CPU.

    ``input``: of the input function ``(P,)``; ``solution``: of the solution's channels ``(C, N)``; ``samples (n, P)``:
    some draws of the input function; ``noise (n, K)``: draws of the standard deviation of each observed channel's
    noise, in its unit; ``rhat``, ``effective``: the worst R-hat and the least effective sample size of the input
    function's values, None without chains; ``trouble``: what is wrong with these, in sentences.
    """

    input: Summary
    solution: Summary
    samples: Tensor
    noise: Tensor
    rhat: float | None
    effective: float | None
    trouble: str = ""


def summarise(found: Inversion) -> Posterior:
    """The pointwise statistics of an inversion; see ``Posterior``."""
    inputs = found.inputs().cpu()
    rhat = effective = None
    trouble = ""
    if found.diagnostics is not None:
        moving = inputs.std(0) > 0  # a probability may be 1 in every draw, which is no fault of the chains
        if bool(moving.any()):
            problem = found.surrogate.problem
            places = problem.input_points[moving].tolist()
            names = [f"{problem.input.name} at ({', '.join(f'{c:.3g}' for c in place)})" for place in places]
            chains = check(inputs[:, moving].unflatten(0, found.draws.shape[:2]), names)
            trouble = chains.trouble()
            rhat, effective = _extreme(chains.rhat, max), _extreme(torch.fmin(chains.bulk, chains.tail), min)
    noisy = found.with_decoder_noise(inputs)
    shown = torch.linspace(0, len(inputs) - 1, min(KEPT, len(inputs))).round().long()
    return Posterior(
        Summary(inputs.mean(0), noisy.std(0, correction=0), *bands(noisy, LEVEL)),
        _solution(found),
        inputs[shown],
        _noise(found),
        rhat,
        effective,
        trouble,
    )


def _solution(found: Inversion) -> Summary:
    """In parts of the points: draws of a whole solution in space and time may not fit into memory."""
    points = found.surrogate.points
    channels = len(channel_names(found.surrogate.problem))
    part = max(1, AT_ONCE // (channels * found.draws.shape[0] * found.draws.shape[1]))
    kept: list[tuple[Tensor, ...]] = []
    for some in points.split(part):
        draws = found.solutions(some)
        kept.append((draws.mean(0), draws.std(0, correction=0), *bands(draws, LEVEL)))
    return Summary(*(torch.cat(values, 1).cpu() for values in zip(*kept, strict=True)))


def _noise(found: Inversion) -> Tensor:
    draws = found.noise_draws().cpu()[:, None]
    if found.noise is not None:  # in the fields' unit already
        return draws.expand(-1, len(found.observations.channels))
    size = found.observations.values.square().mean(0).sqrt().to(draws)
    return draws * torch.where(size > 0, size, 1.0)


def _extreme(values: Tensor, worst: Any) -> float | None:
    known = values[torch.isfinite(values)].tolist()
    return float(worst(known)) if known else None


def save_posterior(found: Inversion, posterior: Posterior, record: dict[str, Any], directory: Path | str) -> Path:
    """Write ``posterior.npz``, ``posterior.csv`` and ``inversion.json`` (``record``); return the directory.

    Whatever stood in the directory is replaced once everything new is there.
    """
    directory = Path(directory)
    aside = directory.with_name(directory.name + ".new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    problem, observed = found.surrogate.problem, found.observations
    arrays: dict[str, Any] = {
        "input_points": problem.input_points,
        "points": problem.points,
        "input_samples": posterior.samples,
        "noise_samples": posterior.noise,
        "observation_points": observed.points,
        "observation_values": observed.values,
    }
    for name, summary in (("input", posterior.input), ("solution", posterior.solution)):
        arrays |= {
            f"{name}_mean": summary.mean,
            f"{name}_deviation": summary.deviation,
            f"{name}_low": summary.low,
            f"{name}_high": summary.high,
        }
    names = {
        "input_name": problem.input.name,
        "channels": channel_names(problem),
        "observed_channels": observed.channels,
        "level": LEVEL,
    }
    written = {name: np.asarray(value.cpu()) for name, value in arrays.items()}
    np.savez_compressed(aside / "posterior.npz", **written, **{name: np.array(v) for name, v in names.items()})
    _table(aside / "posterior.csv", found, posterior.input)
    (aside / "inversion.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if directory.is_dir():
        shutil.rmtree(directory)
    aside.rename(directory)
    return directory


def _table(path: Path, found: Inversion, summary: Summary) -> None:
    problem = found.surrogate.problem
    columns: Iterable[Tensor] = (*problem.input_points.T, summary.mean, summary.low, summary.high)
    with path.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow([*problem.input_axes, "mean", "low", "high"])
        for row in zip(*(column.tolist() for column in columns), strict=True):
            writer.writerow([f"{value:.7g}" for value in row])
