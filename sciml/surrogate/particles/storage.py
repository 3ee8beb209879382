"""A particle surrogate on disk: ``surrogate.json``, the stepper's files, ``upsampler/``, a model card; no pickles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sciml.operators.particles.base import ParticleOperator
from sciml.operators.particles.upsampler import KernelUpsampler
from sciml.surrogate.particles.surrogate import ParticleSurrogate
from sciml.version import __version__


def save(surrogate: ParticleSurrogate, directory: Path | str) -> Path:
    """Write the surrogate; return the directory, which is a directory of its stepper too."""
    directory = Path(directory)
    surrogate.stepper.save_pretrained(directory)
    if surrogate.upsampler is not None:
        surrogate.upsampler.save_pretrained(directory / "upsampler")
    config = {
        "sciml_version": __version__,
        "problem": surrogate.problem_name,
        "dim": surrogate.dim,
        "kind": surrogate.kind,
        "kinds": list(surrogate.kinds),
        "parameters": surrogate.parameter_units,
        "interval": surrogate.interval,
        "points": surrogate.points,
        "sampling": surrogate.sampling,
        "anchor_every": surrogate.anchor_every,
        "correct_every": surrogate.correct_every,
        "upsampler": surrogate.upsampler is not None,
        "statistics": surrogate.normaliser.statistics,
        "ranges": surrogate.ranges,
        "provenance": surrogate.provenance,
    }
    (directory / "surrogate.json").write_text(json.dumps(config, indent=2) + "\n")
    (directory / "README.md").write_text(model_card(surrogate))
    return directory


def from_config(config: dict[str, Any], directory: Path) -> ParticleSurrogate:
    """The surrogate that ``save`` wrote.

    Raises ``CheckpointError`` if a network is missing or damaged, ``KeyError`` for a missing key.
    """
    return ParticleSurrogate(
        ParticleOperator.from_pretrained(directory),
        KernelUpsampler.from_pretrained(directory / "upsampler") if config["upsampler"] else None,
        config["statistics"],
        problem=config["problem"],
        kinds=config["kinds"],
        parameters=config["parameters"],
        points=config["points"],
        sampling=config["sampling"],
        anchor_every=config["anchor_every"],
        correct_every=config.get("correct_every", 1),
        ranges=config["ranges"],
        provenance=config["provenance"],
    )


def model_card(surrogate: ParticleSurrogate) -> str:
    """What the surrogate is, takes, returns and was trained on, as Markdown."""
    count = sum(p.numel() for p in surrogate.operator.parameters())
    rows = "\n".join(
        f"| `{name}` ({surrogate.parameter_units[name]}) | {low:.6g} | {high:.6g} |"
        for name, (low, high) in surrogate.ranges.items()
    )
    provenance = "\n".join(f"- {key}: {value}" for key, value in surrogate.provenance.items())
    stepped = "all particles" if surrogate.points is None else f"about {surrogate.points} particles of a scene"
    along = "" if surrogate.upsampler is None else "; the others are brought along by a `KernelUpsampler`"
    return f"""# Surrogate of particles: {surrogate.problem_name}, {surrogate.dim}D

{type(surrogate.stepper).__name__} with {count:,} parameters in all; steps {stepped} by {surrogate.interval:g} s{along}.
Kinds of particles: {", ".join(surrogate.kinds)}. Connectivity radius {surrogate.stepper.radius:g} m.

    from sciml.surrogate.particles import scene_of
    surrogate = sciml.load("path/to/this/directory")
    scene = scene_of(trajectory, info, slice(0, {surrogate.history + 1}))    # the frames that are given
    for frame in surrogate.dense_rollout(scene, steps=100):
        frame.position                                     # (N, {surrogate.dim}) in metres

## Range of the training data
Outside this range the surrogate warns, and its error is unknown.

| material parameter | from | to |
|---|---|---|
{rows}

## Provenance
{provenance or "- not recorded"}
"""
