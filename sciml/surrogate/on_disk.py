"""What all surrogates have on disk: ``surrogate.json``, the operator's two files and the model card ``README.md``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sciml.version import __version__


def write(surrogate: Any, config: dict[str, Any], card: str, directory: Path | str) -> Path:
    """Write a surrogate with what ``config`` says beyond problem, fields and parameters; return the directory."""
    directory = Path(directory)
    shared = {
        "sciml_version": __version__,
        "problem": surrogate.problem.name,
        "dim": surrogate.problem.dim,
        "kind": surrogate.kind,
        "fields": {name: {"components": f.components, "unit": f.unit} for name, f in surrogate.fields.items()},
        "parameters": {parameter.name: parameter.unit for parameter in surrogate.problem.parameters},
    }
    own = {**config, "ranges": surrogate.ranges, "provenance": surrogate.provenance}
    surrogate.operator.save_pretrained(directory)
    (directory / "surrogate.json").write_text(json.dumps({**shared, **own}, indent=2) + "\n")
    (directory / "README.md").write_text(card)
    return directory
