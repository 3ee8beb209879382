"""``sciml problems``: what can be generated, trained and solved."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sciml.cli import options
from sciml.cli.console import console, make_table, print_json, print_pairs
from sciml.errors import ConfigError

if TYPE_CHECKING:
    from sciml.problems import CaseFamily, Parameter, Problem
    from sciml.problems.particles import ParticleProblem
    from sciml.problems.weak import WeakProblem

NEEDS_ARGUMENTS = False
EXAMPLES = """Examples:

  sciml problems
  sciml problems cavity
  sciml problems periodic_flow --dim 2
  sciml problems stokes
  sciml problems cavity --json"""


def problems(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="All about this one.", autocompletion=options.complete_learned),
    ] = None,
    dim: Annotated[int | None, typer.Option(min=1, max=3, help="In so many dimensions; default: its first.")] = None,
    json: options.Json = False,
) -> None:
    """List the problems, or the fields (or particles), parameters and subsets of one."""
    from sciml.problems import PARTICLE_PROBLEMS, PROBLEMS, get_problem

    if dim is not None and name is None:
        raise ConfigError("--dim goes with the NAME of a problem")
    from sciml.problems.weak import get_weak_problem

    if name in options.WEAK_ONLY:
        weak = get_weak_problem(name)
        if dim not in (None, weak.dim):
            raise ConfigError(f"problem {name!r} exists in {weak.dim}D only, not in {dim}D")
        if json:
            print_json(_weak_alone(weak))
        else:
            _details(weak)
        return
    chosen = [get_problem(each, dim) for each in ([name] if name else [*sorted(PROBLEMS), *sorted(PARTICLE_PROBLEMS)])]
    if json:
        content = [_description(problem) for problem in chosen]
        alone = [_weak_alone(get_weak_problem(each)) for each in options.WEAK_ONLY]
        print_json(content[0] if name else content + alone)
    elif name:
        _details(chosen[0])
    else:
        rows = [[p.name, _dims(p), p.title, ", ".join(options.ALL_PROBLEMS.get(p.name, p.subsets))] for p in chosen]
        console().print(make_table(("problem", "dims", "title", "subsets"), rows, numbers_from=4))
        print("\nWeak forms, which --operator dgno learns:")
        weak = [get_weak_problem(each) for each in sorted(options.WEAK_PROBLEMS)]
        rows = [
            [p.name, p.title, f"{p.input.name} -> {', '.join(f.name for f in p.fields)}", ", ".join(p.subsets)]
            for p in weak
        ]
        console().print(make_table(("problem", "title", "from -> to", "subsets"), rows, numbers_from=4))
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
        **_parameters(problem),
        "subsets": list(problem.subsets),
        "hard_subsets": list(problem.hard_subsets),
        "solver": problem.solver,
        "weak_form": _weak_description(problem.name),
    }


def _parameters(problem: "CaseFamily") -> dict[str, Any]:
    return {
        "parameters": {
            p.name: {
                "unit": p.unit,
                "meaning": p.meaning,
                "allowed": p.expected,
                "default": p.default,
                "draw": p.draw,
            }
            for p in problem.parameters
        }
    }


def _weak_alone(problem: "WeakProblem") -> dict[str, Any]:
    """The description of a problem that exists in weak form alone: ``_description`` without a data file's entries."""
    return {
        "name": problem.name,
        "title": problem.title,
        "dim": problem.dim,
        "dims": list(problem.dims),
        "resolution": problem.cells,
        "static": problem.static,
        "fields": {f.name: {"components": f.components, "unit": f.unit} for f in problem.fields},
        **_parameters(problem),
        "subsets": list(problem.subsets),
        "hard_subsets": [],
        "solver": problem.solver,
        "weak_form": _weak_description(problem.name),
    }


def _weak_description(name: str) -> dict[str, Any] | None:
    """What the weak form of a problem relates; None where it has none."""
    if name not in options.WEAK_PROBLEMS:
        return None
    from sciml.problems.weak import get_weak_problem

    problem = get_weak_problem(name)
    return {
        "operators": list(options.LATENT_OPERATORS),
        "input": {problem.input.name: {"unit": problem.input.unit, "axes": list(problem.input_axes)}},
        "fields": {f.name: {"components": f.components, "unit": f.unit} for f in problem.fields},
        "axes": list(problem.axes),
        "resolution": problem.cells,
        "subsets": list(problem.subsets),
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
    alone = problem.name in options.WEAK_ONLY
    print(f"{problem.name}: {problem.title}, {problem.dim}D")
    print_pairs({} if alone else _generated_details(problem), indent="  ")
    print("parameters")
    print_pairs({p.name: f"{p.meaning}, {p.unit}; {_values(p)}" for p in problem.parameters}, indent="  ")
    if problem.name in options.WEAK_PROBLEMS:
        from sciml.problems.weak import get_weak_problem

        print("weak form")
        print_pairs(_weak_details(get_weak_problem(problem.name)), indent="  ")
    print(f"try: sciml train --problem {problem.name}")
    if problem.name in options.WEAK_PROBLEMS and not alone:
        print(f"     sciml train --problem {problem.name} --operator dgno")


def _generated_details(problem: "CaseFamily") -> dict[str, str]:
    """What ``sciml generate`` makes of a problem."""
    own = _particle_details(problem) if problem.name in options.PARTICLE_PROBLEMS else _field_details(problem)
    return {
        **({"dims": f"{_dims(problem)} (--dim)"} if len(problem.dims) > 1 else {}),
        **own,
        "subsets": ", ".join(("all", *problem.subsets)),
        "held out": f"{', '.join(problem.hard_subsets)} (--split extrapolate)" if problem.hard_subsets else "none",
        "solver": problem.solver or "-",
    }


def _field_details(problem: "Problem") -> dict[str, str]:
    frames = "one frame, no time" if problem.static else f"{_frames(problem)} (default)"
    return {
        "fields": ", ".join(f"{f.name} ({f.components}, {f.unit})" for f in problem.fields),
        "learned": ", ".join(problem.learned) + (f" from {', '.join(problem.given)}" if problem.given else ""),
        "resolution": f"{problem.resolution} (default)",
        "frames": frames,
    }


def _weak_details(problem: "WeakProblem") -> dict[str, str]:
    given = f"{problem.input.name} ({problem.input.unit}) of {', '.join(problem.input_axes)}"
    return {
        "learned by": f"{', '.join(options.LATENT_OPERATORS)} (--operator), which 'sciml invert' turns around",
        "from": f"{given}, at {len(problem.input_points)} points",
        "to": f"{_solution(problem)} at any {', '.join(problem.axes)}",
        "subsets": f"{', '.join(problem.subsets)} (data.subset=...)",
        "resolution": f"{problem.cells} (default)",
        "solver": problem.solver or "-",
    }


def _solution(problem: "WeakProblem") -> str:
    return ", ".join(f"{f.name} ({f.components}, {f.unit})" for f in problem.fields)


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
