"""A trajectory surrogate on disk: ``surrogate.json``, the operator's two files and a model card; no pickles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sciml.operators import Operator
from sciml.problems import get_problem
from sciml.surrogate.on_disk import write
from sciml.surrogate.trajectory import TrajectorySurrogate


def save(surrogate: TrajectorySurrogate, directory: Path | str) -> Path:
    """Write ``surrogate.json``, the operator's two files and the model card ``README.md``; return the directory."""
    config = {
        "times": surrogate.times,
        "grid": surrogate.grid,
        "periodic": surrogate.periodic,
        "condition_mean": surrogate.condition_mean.tolist(),
        "condition_std": surrogate.condition_std.tolist(),
        "experts": surrogate.experts,
    }
    return write(surrogate, config, model_card(surrogate), directory)


def from_config(config: Mapping[str, Any], directory: Path) -> TrajectorySurrogate:
    """The surrogate of a ``surrogate.json`` beside its operator. Raises ``KeyError`` for what is not in it."""
    return TrajectorySurrogate(
        Operator.from_pretrained(directory),
        get_problem(config["problem"], config["dim"]),
        times=config["times"],
        grid=config["grid"],
        periodic=config["periodic"],
        condition_mean=config["condition_mean"],
        condition_std=config["condition_std"],
        experts=config["experts"],
        ranges=config["ranges"],
        provenance=config["provenance"],
    )


def model_card(surrogate: TrajectorySurrogate) -> str:
    """What the surrogate is, takes, returns and was trained on, as Markdown."""
    problem, experts = surrogate.problem, surrogate.experts
    names = ", ".join(f"`{f.name}` ({f.components}, {f.unit})" for f in surrogate.fields.values())
    count = sum(parameter.numel() for parameter in surrogate.operator.parameters())
    on = "x".join(map(str, surrogate.grid))
    frames = "" if problem.static else f" and {len(surrogate.times)} frames up to {surrogate.times[-1]:g} s"
    given = ", ".join(problem.given) if problem.static else "initial"
    how = "The operator's output is the field."
    if experts is not None:
        tiles = "one expert" if experts["tiles"] is None else f"experts on {'x'.join(map(str, experts['tiles']))} tiles"
        how = (
            f"The operator gives {experts['bases']} basis fields; {tiles} ({experts['tiling']}) find the weights that "
            "make the residual of the equation least, for every case anew: `surrogate.residual_report(parameters)`."
        )
    rows = "\n".join(f"| `{name}` | {low:.6g} | {high:.6g} |" for name, (low, high) in surrogate.ranges.items())
    provenance = "\n".join(f"- {key}: {value}" for key, value in surrogate.provenance.items())
    return f"""# Surrogate: {problem.title}

{type(surrogate.operator).__name__} with {count:,} parameters; gives whole solutions {names} on {on} cells{frames}.
Trained without data, on the residual of the equation. {how}

    surrogate = sciml.load("path/to/this/directory")
    fields = surrogate.solve(parameters)   # in physical units; also solve(parameters, {given}=...)

Parameters: {", ".join(f"`{p.name}` ({p.unit})" for p in problem.parameters)}.

## Range of the training cases
Outside this range the surrogate warns, and its error is unknown.

| quantity | from | to |
|---|---|---|
{rows}

## Provenance
{provenance or "- not recorded"}
"""
