"""``sciml problems``: what can be generated, trained and solved."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sciml.cli import options
from sciml.cli.console import console, make_table, print_json, print_pairs
from sciml.errors import ConfigError

if TYPE_CHECKING:
    from sciml.problems import CaseFamily, Parameter, Problem
    from sciml.problems.particles import ParticleProblem

NEEDS_ARGUMENTS = False
EXAMPLES = """Examples:

  sciml problems
  sciml problems cavity
  sciml problems periodic_flow --dim 2
  sciml problems cavity --json"""


def problems(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="All about this one.", autocompletion=options.complete_problem),
    ] = None,
    dim: Annotated[int | None, typer.Option(min=1, max=3, help="In so many dimensions; default: its first.")] = None,
    json: options.Json = False,
) -> None:
    """List the problems, or the fields (or particles), parameters and subsets of one."""
    from sciml.problems import PARTICLE_PROBLEMS, PROBLEMS, get_problem

    if dim is not None and name is None:
        raise ConfigError("--dim goes with the NAME of a problem")
    chosen = [get_problem(each, dim) for each in ([name] if name else [*sorted(PROBLEMS), *sorted(PARTICLE_PROBLEMS)])]
    if json:
        content = [_description(problem) for problem in chosen]
        print_json(content[0] if name else content)
    elif name:
        _details(chosen[0])
    else:
        rows = [[p.name, _dims(p), p.title, ", ".join(options.ALL_PROBLEMS.get(p.name, p.subsets))] for p in chosen]
        console().print(make_table(("problem", "dims", "title", "subsets"), rows, numbers_from=4))
        print("all about one: sciml problems NAME")


def _description(problem: "CaseFamily") -> dict[str, Any]:
    own = _particle_description(problem) if problem.name in options.PARTICLE_PROBLEMS else _field_description(problem)
    return {
        "name": problem.name,
        "title": problem.title,
        "dim": problem.dim,
        "dims": list(problem.dims),
        "resolution": problem.resolution,
        **own,
        "parameters": {
            p.name: {
                "unit": p.unit,
                "meaning": p.meaning,
                "allowed": p.expected,
                "default": p.default,
                "draw": p.draw,
            }
            for p in problem.parameters
        },
        "subsets": list(problem.subsets),
        "hard_subsets": list(problem.hard_subsets),
        "solver": problem.solver,
    }


def _field_description(problem: "Problem") -> dict[str, Any]:
    return {
        "static": problem.static,
        "frames": 1 if problem.static else problem.frames,
        "frame_interval": None if problem.static else problem.frame_interval,
        "fields": {f.name: {"components": f.components, "unit": f.unit} for f in problem.fields},
        "given": list(problem.given),
        "learned": list(problem.learned),
        "conditions": list(problem.condition_names),
    }


def _particle_description(problem: "ParticleProblem") -> dict[str, Any]:
    return {
        "static": False,
        "frames": problem.frames,
        "frame_interval": problem.frame_interval,
        "kinds": list(problem.kinds),
        "bounds": [list(each) for each in problem.bounds],
        "gravity": list(problem.gravity),
        "particle_parameters": [p.name for p in problem.material_parameters],
    }


def _details(problem: "CaseFamily") -> None:
    own = _particle_details(problem) if problem.name in options.PARTICLE_PROBLEMS else _field_details(problem)
    print(f"{problem.name}: {problem.title}, {problem.dim}D")
    print_pairs(
        {
            **({"dims": f"{_dims(problem)} (--dim)"} if len(problem.dims) > 1 else {}),
            **own,
            "subsets": ", ".join(("all", *problem.subsets)),
            "held out": f"{', '.join(problem.hard_subsets)} (--split extrapolate)" if problem.hard_subsets else "none",
            "solver": problem.solver or "-",
        },
        indent="  ",
    )
    print("parameters")
    print_pairs({p.name: f"{p.meaning}, {p.unit}; {_values(p)}" for p in problem.parameters}, indent="  ")
    print(f"try: sciml train --problem {problem.name}")


def _field_details(problem: "Problem") -> dict[str, str]:
    frames = "one frame, no time" if problem.static else f"{_frames(problem)} (default)"
    return {
        "fields": ", ".join(f"{f.name} ({f.components}, {f.unit})" for f in problem.fields),
        "learned": ", ".join(problem.learned) + (f" from {', '.join(problem.given)}" if problem.given else ""),
        "resolution": f"{problem.resolution} (default)",
        "frames": frames,
    }


def _particle_details(problem: "ParticleProblem") -> dict[str, str]:
    box = " x ".join(f"[{low:g}, {high:g}]" for low, high in problem.bounds)
    return {
        "particles": f"{' and '.join(problem.kinds)}, in the box {box} m; y points up",
        "of each": ", ".join(f"{p.name} ({p.unit})" for p in problem.material_parameters),
        "resolution": f"{problem.resolution} (default) cells along the box, {2**problem.dim} particles in each",
        "frames": f"{_frames(problem)} (default)",
    }


def _frames(problem: "CaseFamily") -> str:
    return f"{problem.frames}, {problem.frame_interval:g} s apart"


def _values(parameter: "Parameter") -> str:
    if parameter.draw:
        return f"draw ({parameter.expected}), not needed where the field itself is given"
    default = "must be given" if parameter.default is None else f"default {parameter.default:g}"
    return f"{parameter.expected}, {default}"


def _dims(problem: "CaseFamily") -> str:
    return ", ".join(f"{dim}D" for dim in problem.dims)
