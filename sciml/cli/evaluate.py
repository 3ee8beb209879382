"""``sciml evaluate``: how good a trained surrogate is, beside persistence and look-up."""

from typing import Annotated

import typer

from sciml.cli import options
from sciml.cli.console import print_json
from sciml.cli.progress import RichProgress
from sciml.cli.report import operator_name, print_results
from sciml.errors import ConfigError

NEEDS_ARGUMENTS = True
EXAMPLES = """Examples: its own held-out cases, those outside its training range, your file

  sciml evaluate runs/cavity/unet/RUN
  sciml evaluate runs/cavity/unet/RUN --split extrapolate
  sciml evaluate runs/cavity/unet/RUN --data my.h5 --json"""


def evaluate(
    run: options.Run,
    more: Annotated[list[str] | None, typer.Argument(metavar="", hidden=True, help="More files after --data.")] = None,
    data: options.Data = None,
    split: Annotated[
        options.Split | None,
        typer.Option(help="Evaluate on the held-out cases of this split.", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """Evaluate a run on cases it never saw.

    One-step and rollout errors, with persistence and look-up beside them.
    """
    words, files = options.split_positionals(more, data)
    if words:
        raise ConfigError(f"cannot use {words[0]!r} here; 'sciml evaluate' takes one RUN, and files after --data")
    if files and split is not None:
        raise ConfigError("--data and --split exclude each other: a file is evaluated whole")
    from sciml.training import evaluate_run

    with RichProgress() as progress:
        test = evaluate_run(run, files or None, split.value if split else None, progress)
    if json:
        print_json(test)
        return
    print_results(operator_name(run), test)
