"""``sciml problems``: what can be generated, trained and solved."""

from typing import Annotated

import typer

from sciml.cli import options
from sciml.cli.console import console, make_table, print_json

NEEDS_ARGUMENTS = False
EXAMPLES = """Examples:

  sciml problems
  sciml problems cavity --json"""


def problems(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Only this one.", autocompletion=options.complete_problem),
    ] = None,
    json: options.Json = False,
) -> None:
    """List the problems with their fields, parameters and subsets."""
    from sciml.problems import PROBLEMS, get_problem

    chosen = [get_problem(each) for each in ([name] if name else sorted(PROBLEMS))]
    if json:
        content = [
            {
                "name": problem.name,
                "title": problem.title,
                "dim": problem.dim,
                "fields": {f.name: {"components": f.components, "unit": f.unit} for f in problem.fields},
                "parameters": {p.name: {"unit": p.unit, "meaning": p.meaning} for p in problem.parameters},
                "subsets": list(problem.subsets),
                "hard_subsets": list(problem.hard_subsets),
            }
            for problem in chosen
        ]
        print_json(content[0] if name else content)
        return
    out = console()
    for problem in chosen:
        out.print(f"{problem.name}: {problem.title}, {problem.dim}D")
        out.print(f"  fields   {', '.join(f'{f.name} ({f.components}, {f.unit})' for f in problem.fields)}")
        out.print(
            f"  subsets  {', '.join(('all', *problem.subsets))}; held out for --split extrapolate: "
            f"{', '.join(problem.hard_subsets) or 'none'}",
            soft_wrap=True,
        )
        rows = [[p.name, p.unit, p.meaning] for p in problem.parameters]
        out.print(make_table(("parameter", "unit", "meaning"), rows, numbers_from=3))
    out.print(f"try: sciml train --problem {chosen[0].name}")
