"""A surrogate on disk: ``surrogate.json``, the operator's two files and a model card; no pickles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sciml.errors import CheckpointError, ConfigError
from sciml.operators import Operator
from sciml.problems import get_problem
from sciml.surrogate.constraining import Imposed
from sciml.surrogate.normaliser import Normaliser
from sciml.surrogate.on_disk import write
from sciml.surrogate.surrogate import Surrogate, cells
from sciml.surrogate.trajectory import TrajectorySurrogate
from sciml.surrogate.trajectory_storage import from_config
from sciml.version import __version__

if TYPE_CHECKING:
    from sciml.problems.weak import WeakProblem
    from sciml.surrogate.latent import LatentSurrogate
    from sciml.surrogate.particles import ParticleSurrogate


def save(surrogate: Surrogate, directory: Path | str) -> Path:
    """Write ``surrogate.json``, the operator's two files and the model card ``README.md``; return the directory."""
    config = {
        "inputs": list(surrogate.inputs) if surrogate.kind == "map" else [],
        "points": surrogate.points,
        "history": surrogate.history,
        "target": surrogate.target,
        "interval": surrogate.interval,
        "time_scale": surrogate.time_scale,
        "pairs": surrogate.pairs,
        "grid": surrogate.grid,
        "constraints": [imposed.as_dict() for imposed in surrogate.imposed],
        "normaliser": surrogate.normaliser.as_dict(),
    }
    return write(surrogate, config, model_card(surrogate), directory)


def load(
    path: Path | str, device: torch.device | str = "cpu", problem: WeakProblem | None = None
) -> Surrogate | TrajectorySurrogate | ParticleSurrogate | LatentSurrogate:
    """Load a surrogate from its directory, or from the run directory that holds it: a ``Surrogate``, a
    ``TrajectorySurrogate`` of what was trained without data, a ``ParticleSurrogate``, or a ``LatentSurrogate`` of a
    weak problem. ``problem``: the one it was trained on, where that is a weak problem of your own.

    Raises ``CheckpointError`` if the directory is missing, is not a surrogate, or is damaged, ``ConfigError`` for a
    problem of your own that is not given, is another one, or is not asked for.
    """
    directory = Path(path)
    if (directory / "surrogate" / "surrogate.json").is_file():
        directory = directory / "surrogate"
    file = directory / "surrogate.json"
    try:
        config = json.loads(file.read_text())
    except OSError:
        what = "is not there" if not directory.exists() else "holds no surrogate (no surrogate.json)"
        raise CheckpointError(f"{path} {what}; give a run directory or the surrogate directory inside it") from None
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from None
    if problem is not None and config.get("kind") != "latent":
        raise ConfigError(
            f"{path} is no surrogate of a weak problem: it knows its own; leave problem={problem.name} out"
        )
    try:
        if config.get("kind") == TrajectorySurrogate.kind:
            return from_config(config, directory).to(device).eval()
        if config.get("kind") == "particles":
            from sciml.surrogate.particles.storage import from_config as particles_from_config

            return particles_from_config(config, directory).to(device).eval()
        if config.get("kind") == "latent":
            from sciml.surrogate.latent.storage import from_config as latent_from_config

            return latent_from_config(config, directory, problem).to(device).eval()
        surrogate = Surrogate(
            Operator.from_pretrained(directory),
            get_problem(config["problem"], config.get("dim")),
            Normaliser(config["normaliser"]),
            fields=list(config["fields"]),
            kind=config.get("kind", "step"),
            inputs=config.get("inputs", ()),
            points=config.get("points"),
            history=config["history"],
            target=config["target"],
            interval=config["interval"],
            time_scale=config.get("time_scale"),
            pairs=config.get("pairs", "successive"),
            grid=config["grid"],
            ranges=config["ranges"],
            constraints=[Imposed.from_dict(imposed) for imposed in config.get("constraints", [])],
            provenance=config["provenance"],
        )
    except KeyError as error:
        raise CheckpointError(
            f"{file} lacks the key {error}; it was written by sciml "
            f"{config.get('sciml_version', 'of unknown version')}, this is {__version__}"
        ) from None
    return surrogate.to(device).eval()


def model_card(surrogate: Surrogate) -> str:
    """What the surrogate is, takes, returns and was trained on, as Markdown."""
    names = ", ".join(f"`{f.name}` ({f.components}, {f.unit})" for f in surrogate.fields.values())
    count = sum(parameter.numel() for parameter in surrogate.operator.parameters())
    rows = "\n".join(f"| `{name}` | {low:.6g} | {high:.6g} |" for name, (low, high) in surrogate.ranges.items())
    provenance = "\n".join(f"- {key}: {value}" for key, value in surrogate.provenance.items())
    length = "a given time" if surrogate.interval is None else f"{surrogate.interval:g} s"
    if surrogate.pairs == "all":
        length = f"any time up to {surrogate.time_scale:g} s (default {length})"
    on = f" on {cells(surrogate.grid)} cells" if surrogate.grid else ""
    grid = ", ".join(("nx", "ny", "nz")[: surrogate.problem.dim])
    if surrogate.kind == "step":
        does = f"steps {names} by {length}{on}"
        call = f"state = surrogate.step(state, parameters)   # state: (batch, {surrogate.channels}, {grid})"
    else:
        read = ", ".join(f"`{f.name}` ({f.components}, {f.unit})" for f in surrogate.inputs.values())
        where = f" at about {surrogate.points} points" if surrogate.points else ""
        does = f"maps {(read + where) or 'the parameters'} to {names}{on}"
        given = ", points" if surrogate.points else ""
        call = f"fields = surrogate.solve(inputs, parameters{given})   # (batch, {surrogate.channels}, {grid})"
    geometry = ", ".join(f"`{name}`" for name in surrogate.problem.geometry_channels)
    obstacles = f"\nIt reads the geometry ({geometry}) too, which follows from the parameters.\n" if geometry else ""
    asked = [p for p in surrogate.problem.parameters if not p.draw]
    obeys = ", ".join(
        f"`{imposed.constraint.name}`" + ("" if imposed.when == "both" else f" ({imposed.when} only)")
        for imposed in surrogate.imposed
    )
    obeys = f"\nConstraints imposed on every output: {obeys}.\n" if obeys else ""
    return f"""# Surrogate: {surrogate.problem.title}

{type(surrogate.operator).__name__} with {count:,} parameters; {does}.

    surrogate = sciml.load("path/to/this/directory")
    {call}   in physical units

Parameters: {", ".join(f"`{p.name}` ({p.unit})" for p in asked)}.
{obstacles}{obeys}
## Range of the training data
Outside this range the surrogate warns, and its error is unknown.

| quantity | from | to |
|---|---|---|
{rows}

## Provenance
{provenance or "- not recorded"}
"""
