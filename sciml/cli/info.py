"""``sciml info``: what is in a run directory, a surrogate or a data file."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from sciml.cli import options
from sciml.cli.console import print_json, print_pairs
from sciml.cli.report import print_results, timing
from sciml.errors import CheckpointError, DataError

NEEDS_ARGUMENTS = True
EXAMPLES = """Examples:

  sciml info runs/cavity/unet/RUN
  sciml info runs/cavity/unet/RUN/surrogate
  sciml info data/cavity.h5 --json"""


def info(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A run directory, a surrogate or a data file.")],
    json: options.Json = False,
) -> None:
    """Say what is in a run, a surrogate or a data file."""
    content = describe(path)
    if json:
        print_json(content)
        return
    test = content.pop("test", None)
    seconds = content.pop("seconds", None)
    nested = {name: content.pop(name) for name, value in list(content.items()) if isinstance(value, dict)}
    print_pairs({name: _text(value) for name, value in content.items()})
    if seconds:
        print_pairs({"time": timing(seconds)})
    for name, values in nested.items():
        print(f"\n{name}")
        print_pairs({str(key): _text(value) for key, value in values.items()}, indent="  ")
    if test:
        print()
        print_results(str(content.get("operator", "operator")), test)


def describe(path: Path) -> dict[str, Any]:
    """The content of ``path`` as a dictionary with its ``kind``: run, surrogate or data.

    Raises CheckpointError or DataError for a path that is none of them.
    """
    if not path.exists():
        raise DataError(f"{path} is not there; give a run directory, a surrogate directory or a data file")
    if path.is_file():
        return _data(path)
    if (path / "config.yaml").is_file():
        return _run(path)
    if (path / "surrogate.json").is_file():
        return _surrogate(path / "surrogate.json")
    if (path / "config.json").is_file():
        return _operator(path / "config.json")
    raise CheckpointError(
        f"{path} is neither a run (no config.yaml) nor a surrogate (no surrogate.json); "
        "runs lie in runs/PROBLEM/OPERATOR/"
    )


def _run(path: Path) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
        content = {
            "problem": config["problem"],
            "operator": config["operator"]["name"],
            "seed": config["seed"],
        }
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path / 'config.yaml'} is damaged: {error}") from None
    steps = sorted(each.name for each in (path / "checkpoints").glob("step_*") if not each.name.endswith(".tmp"))
    summary = _json(path / "summary.json") if (path / "summary.json").is_file() else {}
    return {
        "kind": "run",
        "path": str(path),
        "state": "finished" if summary else f"unfinished; go on with: sciml train --resume {path}",
        **content,
        "checkpoint": steps[-1] if steps else None,
        "figures": len(list((path / "figures").glob("*"))),
        **summary,
    }


def _surrogate(path: Path) -> dict[str, Any]:
    config = _json(path)
    keys = ("problem", "fields", "parameters", "history", "target", "interval", "ranges", "provenance")
    found = {key: config[key] for key in keys if key in config}
    if "problem" not in found or "fields" not in found:
        raise CheckpointError(f"{path} does not describe a surrogate (no problem or no fields)")
    version = f"sciml {config.get('sciml_version', '?')}"
    return {"kind": "surrogate", "path": str(path.parent), "written by": version, **found}


def _operator(path: Path) -> dict[str, Any]:
    config = _json(path)
    if "operator" not in config:
        raise CheckpointError(f"{path} does not describe a surrogate, nor an operator of sciml")
    return {"kind": "operator", "path": str(path.parent), **config}


def _data(path: Path) -> dict[str, Any]:
    from sciml.datasets import DatasetFile
    from sciml.datasets.particles import is_particle_file

    if is_particle_file(path):
        return _particles(path)
    file = DatasetFile(path)
    declared = file.info
    counts = {subset: list(file.subsets).count(subset) for subset in sorted(set(file.subsets))}
    last = file.times[:, -1]
    series = {name: _range(file.series(name), unit) for name, unit in declared.series.items()}
    parts = {str(p.path): f"{p.n_cases} cases, {p.path.stat().st_size / 1e6:.1f} MB" for p in file.parts}
    return {
        "kind": "data",
        "path": str(path),
        "megabytes": round(path.stat().st_size / 1e6, 1),
        **({"storage": "virtual: the cases lie in the parts, which it needs where they are"} if file.parts else {}),
        "problem": declared.problem,
        "cases": file.n_cases,
        "frames": file.n_frames,
        "grid": "x".join(str(n) for n in declared.grid),
        "end time": _range(last, "s"),
        "solver": declared.solver,
        "seed": declared.seed,
        "written by": f"sciml {declared.version}",
        "subsets": counts,
        "fields": {f.name: f"{f.components} component{'s' * (f.components > 1)}, {f.unit}" for f in declared.fields}
        | {f.name: f"faces normal to {f.axis}, {f.unit}" for f in declared.face_fields}
        | {f.name: f"constant in time, {f.unit}" for f in declared.constant_fields},
        **({"series": series} if series else {}),
        "parameters": {name: _range(file.parameters[name], unit) for name, unit in declared.parameters.items()},
        **({"parts": parts} if parts else {}),
    }


def _particles(path: Path) -> dict[str, Any]:
    import numpy as np

    from sciml.datasets.particles import ParticleFile

    file = ParticleFile(path)
    declared, cases = file.info, range(len(file))
    counts = {subset: file.subsets.count(subset) for subset in sorted(set(file.subsets))}
    box = " x ".join(f"{low:g} to {high:g}" for low, high in declared.bounds)
    velocities = [file.moments(case)[0] for case in cases]  # of the free particles, in frame differences
    mean_square = [float((each.mean**2 + each.m2 / max(each.n, 1)).sum()) for each in velocities]
    return {
        "kind": "particles",
        "path": str(path),
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "problem": declared.problem,
        "dim": declared.dim,
        "cases": len(file),
        "particles": _counts([file.count(case) for case in cases]),
        "frames": _counts([file.frames(case) for case in cases]),
        "interval": f"{declared.interval:g} s",
        "bounds": f"{box} m",
        "gravity": f"{', '.join(f'{g:g}' for g in declared.gravity)} m/s^2",
        "kinds": list(declared.kinds),
        "speed (rms)": _range(np.sqrt(mean_square) / declared.interval, "m/s"),
        "fastest component": f"{max(each.largest.max() for each in velocities) / declared.interval:.4g} m/s",
        "solver": declared.solver,
        "seed": declared.seed,
        "written by": f"sciml {declared.version}",
        "subsets": counts,
        **({"parameters of particles": dict(declared.parameters)} if declared.parameters else {}),
        "parameters": {name: _range(file.case_parameters[name], u) for name, u in declared.case_parameters.items()},
    }


def _counts(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _range(values: Any, unit: str) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.4g} {unit}" if low == high else f"{low:.4g} to {high:.4g} {unit}"


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json_module.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is damaged: it holds {type(content).__name__}, not a description")
    return content


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(each)}" for key, each in value.items())
    if isinstance(value, list) and len(value) == 2 and all(isinstance(each, (int, float)) for each in value):
        return f"{value[0]:.6g} to {value[1]:.6g}"
    if isinstance(value, list):
        return ", ".join(_text(each) for each in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if value >= 10000 else str(value)
    return "–" if value is None else str(value)
