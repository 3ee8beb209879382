"""``sciml pretrain``: one operator on several problems, to fine-tune from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sciml.cli import options
from sciml.cli.console import console, is_main_process, make_table, print_json, say
from sciml.cli.progress import RichProgress
from sciml.cli.report import timing

if TYPE_CHECKING:
    from rich.table import Table

NEEDS_ARGUMENTS = False
SIZES = ("mini", "tiny", "small", "base", "large")  # written out: the configuration loads too much for a TAB
EXAMPLES = """Examples (no data needed: they generate a small set of every problem first, and keep it):

  sciml pretrain --time-limit 30
  sciml pretrain --problems vorticity,cavity --size tiny
  sciml pretrain data.cases.train=400 problems.tube.weight=10
  sciml train --problem periodic_flow --dim 2 --from runs/pretrain/poseidon/RUN

Your own configuration, going on after Ctrl-C, two processes:

  sciml pretrain --print-config > mine.yaml
  sciml pretrain --config mine.yaml
  sciml pretrain --resume runs/pretrain/poseidon/RUN
  torchrun --nproc-per-node 2 -m sciml pretrain"""


def complete_size(incomplete: str) -> list[str]:
    """Sizes for the shell."""
    return [name for name in SIZES if name.startswith(incomplete)]


def pretrain(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Any key of the configuration; data.KEY holds for every problem, problems.NAME.data.KEY for one.",
            show_default=False,
        ),
    ] = None,
    problems: Annotated[
        str | None,
        typer.Option(
            "--problems",
            "-p",
            metavar="NAME,NAME",
            help="The mixture: see 'sciml problems'.",
            show_default="seven problems in the plane",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help=f"Size of the Poseidon: {', '.join(SIZES)}.", autocompletion=complete_size),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="YAML file, see --print-config.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="auto|PATH", help="Go on with a run: this one, or the newest unfinished one."),
    ] = None,
    device: Annotated[options.Device | None, typer.Option(help="Where to train.", show_default="auto")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights and batches.", show_default="0")] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="MINUTES", help="Minutes of training, without generation and evaluation."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Run directory.", show_default="runs/pretrain/OPERATOR/TIME"),
    ] = None,
    json: options.Json = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved configuration as YAML and stop.")
    ] = False,
) -> None:
    """Pretrain one operator on several problems, to fine-tune it with 'sciml train --from'.

    Every training step is on one problem; channels that it does not have are left out of its loss. It ends with a
    table of the errors on held-out cases of every problem and a directory that 'sciml train --from' takes.
    """
    file = config
    if file is None and resume not in (None, "auto") and (Path(str(resume)) / "config.yaml").is_file():
        # 'sciml pretrain --resume RUN' alone goes on with what the run was started with.
        file = Path(str(resume)) / "config.yaml"
    from sciml.training.mixture_config import resolve_pretrain_config

    names = [name.strip() for name in (problems or "").split(",") if name.strip()]
    resolved = resolve_pretrain_config(names, size, file, overrides or (), _flags(device, seed, time_limit))
    if print_config:
        print(resolved.to_yaml(), end="")
        return
    from sciml.training.mixture_run import fine_tuning_command
    from sciml.training.mixture_run import pretrain as run

    with RichProgress() as progress:
        result = run(resolved, out, resume, progress)
    if not is_main_process():
        return
    summary, directory = result.summary, result.directory
    console(stderr=json).print(pretraining_table(summary))
    lines = [
        f"run        {directory}",
        f"operator   {directory / 'operator'}",
        f"time       {timing(summary['seconds'])}",
        "",
        "Next:",
        f"  {fine_tuning_command(directory, summary['task'])}",
    ]
    if json:
        say("\n".join(lines))
        print_json({"directory": str(directory), **summary})
    else:
        print("\n".join(["", *lines]))


def _flags(device: options.Device | None, seed: int | None, time_limit: float | None) -> dict[str, Any]:
    """The flags that were given, in the shape of the configuration."""
    flags = {
        "device": device.value if device else None,
        "seed": seed,
        "budget": None if time_limit is None else {"minutes": time_limit},
    }
    return {name: value for name, value in flags.items() if value is not None}


def pretraining_table(summary: dict[str, Any]) -> "Table":
    """A rich table of a pretraining run's ``summary.json``: the problems, the operator beside persistence."""
    columns = (("one-step\nNMSE", "nmse"), ("rollout\nmean", "rollout_mean"), ("rollout\nlast", "rollout_last"))
    rows = []
    for name, test in summary["test"].items():
        for label, prefix in ((summary["operator"], ""), ("look-up", "lookup_"), ("persistence", "persistence_")):
            if f"{prefix}nmse" in test:
                head = "" if prefix else f"{name} ({test['cases']})"
                rows.append([head, label, *(f"{test[prefix + key]:.3g}" for _, key in columns)])
    headings = ["problem (cases)", "method", *(heading for heading, _ in columns)]
    return make_table(headings, rows, "Held-out cases; rollouts: relative L2; less is better\n", numbers_from=2)
