"""A latent surrogate on disk: ``surrogate.json``, the operator's files, ``prior.safetensors``, a card; no pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sciml.errors import CheckpointError, ConfigError
from sciml.operators.dgno import DGNO
from sciml.problems.weak import WEAK_PROBLEMS, WeakProblem, get_weak_problem
from sciml.surrogate.latent.observations import channel_names
from sciml.surrogate.latent.surrogate import LatentSurrogate
from sciml.surrogate.on_disk import write

PRIOR = "prior.safetensors"


def save(surrogate: LatentSurrogate, directory: Path | str) -> Path:
    """Write the surrogate; return the directory."""
    config = {
        "subset": surrogate.problem.subset,
        "resolution": surrogate.problem.cells,
        "mean": surrogate.mean,
        "std": surrogate.std,
        "errors": list(surrogate.errors),
        "input_deviation": surrogate.input_deviation,
        "consistency": surrogate.consistency,
        "prior": None if surrogate.prior is None else surrogate.prior.options,
    }
    directory = write(surrogate, config, model_card(surrogate), directory)
    if surrogate.prior is not None:
        state = {name: value.detach().cpu().contiguous() for name, value in surrogate.prior.state_dict().items()}
        save_file(state, directory / PRIOR)
    return directory


def from_config(config: dict[str, Any], directory: Path, problem: WeakProblem | None = None) -> LatentSurrogate:
    """The surrogate that ``save`` wrote; ``problem``: of your own, where it was trained on one.

    Raises ``CheckpointError`` if a file is missing or damaged, ``ConfigError`` for a problem of your own that is not
    given or is another one, ``KeyError`` for a missing key.
    """
    problem = _problem(config, directory, problem)
    prior = None
    if config["prior"] is not None:
        from sciml.inference import Flow

        prior = Flow(**config["prior"])
        try:
            prior.load_state_dict(load_file(directory / PRIOR))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise CheckpointError(f"{directory / PRIOR} cannot be read: {error}") from None
    return LatentSurrogate(
        DGNO.from_pretrained(directory),
        problem,
        mean=config["mean"],
        std=config["std"],
        errors=config["errors"],
        input_deviation=config["input_deviation"],
        consistency=config["consistency"],
        ranges=config["ranges"],
        prior=prior,
        provenance=config["provenance"],
    )


def _problem(config: dict[str, Any], directory: Path, given: WeakProblem | None) -> WeakProblem:
    """Raises ``ConfigError`` as ``from_config`` does."""
    name, subset, cells = config["problem"], config["subset"], config["resolution"]
    if given is None:
        if name not in WEAK_PROBLEMS:
            raise ConfigError(
                f"{directory} was trained on {name!r}, a problem of your own: give it with "
                f"sciml.load(path, problem=...), at the resolution {cells}"
            )
        return get_weak_problem(name, subset, cells)
    if (given.name, given.subset, given.cells) != (name, subset, cells):
        raise ConfigError(
            f"{directory} was trained on the problem {name!r}, subset {subset!r}, at the resolution {cells}; given is "
            f"{given.name!r}, subset {given.subset!r}, at {given.cells}"
        )
    return given


def model_card(surrogate: LatentSurrogate) -> str:
    """What the surrogate is, takes, returns and was trained on, as Markdown."""
    problem = surrogate.problem
    count = sum(parameter.numel() for parameter in surrogate.operator.parameters())
    rows = "\n".join(f"| `{name}` | {low:.6g} | {high:.6g} |" for name, (low, high) in surrogate.ranges.items())
    provenance = "\n".join(f"- {key}: {value}" for key, value in surrogate.provenance.items())
    names = ", ".join(f"`{f.name}` ({f.components}, {f.unit})" for f in surrogate.fields.values())
    columns = ",".join((*problem.axes, *channel_names(problem)))
    given, unit, points = problem.input.name, problem.input.unit, len(problem.input_points)
    return f"""# Surrogate: {problem.title}, {problem.subset}

DGNO with {count:,} parameters: `{given}` ({unit}) at {points} points to {names} at any
point, and back from a few noisy observations.

    surrogate = sciml.load("path/to/this/directory")
    fields = surrogate.solve({given})     # (batch, {points}), at surrogate.problem.input_points

    sciml invert path/to/this/directory --observations obs.csv      # columns {columns}

## Range of the training data
Outside this range the surrogate warns, and its error is unknown.

| quantity | from | to |
|---|---|---|
{rows}

## Provenance
{provenance or "- not recorded"}
"""
