"""``sciml generate``: solve cases with the reference solver and write them to a data file."""

import os
from pathlib import Path
from typing import Annotated

import typer

from sciml.cli import options
from sciml.cli.console import print_json
from sciml.cli.progress import RichProgress
from sciml.errors import ConfigError

NEEDS_ARGUMENTS = True
EXAMPLES = """Examples:

  sciml generate --problem cavity --cases 100 --out data/cavity.h5
  sciml generate --problem cavity --subset geo --cases 24 --out data/geo.h5
  sciml generate --problem water --dim 3 --cases 20 --out data/water.h5
  sciml train --problem cavity --data data/*.h5

The second of four jobs that make one set together, and what joins them:

  sciml generate --problem cavity --cases 1000 --out part2.h5 --shard 2/4
  sciml merge all.h5 part*.h5

Stopped? The same command again goes on with the cases that are missing."""


def generate(
    problem: Annotated[
        str,
        typer.Option(
            "--problem",
            "-p",
            help="What to solve: see 'sciml problems'.",
            autocompletion=options.complete_problem,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The HDF5 file to write.")],
    subset: Annotated[
        str,
        typer.Option(
            help="Which cases: see 'sciml problems NAME'; all is a mixture.", autocompletion=options.complete_subset
        ),
    ] = "all",
    dim: Annotated[
        int | None, typer.Option(min=1, max=3, help="Space dimensions; default: the problem's first.")
    ] = None,
    cases: Annotated[int, typer.Option(min=1, help="Number of cases, over all shards.")] = 100,
    resolution: Annotated[
        int | None, typer.Option(min=8, help="Cells along a side; default: the problem's.", show_default=False)
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            min=1, help="Frames of each case, the initial state included; default: the problem's.", show_default=False
        ),
    ] = None,
    interval: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Time between frames.", show_default="the problem's")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Make only the I-th of N files (I from 1 to N).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the parameters.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Most processes that solve; default: one a core.", show_default=False)
    ] = None,
    device: Annotated[options.Device, typer.Option(help="Where to solve.")] = options.Device.cpu,
    json: options.Json = False,
) -> None:
    """Solve cases with the reference solver and write a data file."""
    part = parse_shard(shard)
    _check_weak(problem, subset)
    from sciml.problems import get_problem

    made_from = get_problem(problem, dim)
    if problem in options.PARTICLE_PROBLEMS:
        from sciml.problems.particles.generate import generate_timed
    else:
        from sciml.problems.generate import generate_timed

    chosen = device.value
    if chosen == "auto":
        import torch

        chosen = "cuda" if torch.cuda.is_available() else "cpu"
    with RichProgress() as progress:
        made = generate_timed(
            made_from,
            out,
            subset=subset,
            cases=cases,
            resolution=resolution,
            frames=frames,
            interval=interval,
            seed=seed,
            shard=part,
            workers=workers or os.cpu_count() or 1,
            device=chosen,
            progress=progress,
        )
        size = made.path.stat().st_size
        processes = "1 process" if made.processes == 1 else f"{made.processes} processes"
        progress.message(
            f"wrote {made.path} ({size / 1e6:.1f} MB): {made.solved} cases in {made.seconds:.3g} s, "
            f"{made.seconds_per_case:.2g} s per case on {processes}; look at it with: sciml info {made.path}"
        )
    if json:
        print_json(
            {
                "file": str(made.path),
                "bytes": size,
                "cases": made.cases,
                "solved": made.solved,
                "seconds": made.seconds,
                "seconds_per_case": made.seconds_per_case,
                "workers": made.processes,
            }
        )


def _check_weak(problem: str, subset: str) -> None:
    """Raise ConfigError for what exists in weak form alone: its cases have no data file."""
    own = options.ALL_PROBLEMS.get(problem, ())
    if problem in options.WEAK_ONLY or (subset in options.WEAK_PROBLEMS.get(problem, ()) and subset not in own):
        what = f"problem {problem!r}" if problem in options.WEAK_ONLY else f"subset {subset!r} of problem {problem!r}"
        raise ConfigError(
            f"{what} exists in weak form alone, whose cases are drawn where it is trained: sciml train --problem "
            f"{problem} --operator dgno" + (f" data.subset={subset}" if subset != "all" else "")
        )


def parse_shard(text: str | None) -> tuple[int, int]:
    """``"2/4"`` to ``(2, 4)``; None is the whole. Raises ConfigError for anything else."""
    if text is None:
        return 1, 1
    try:
        index, count = (int(part) for part in text.split("/"))
    except ValueError:
        raise ConfigError(f"--shard is {text!r}; expected I/N, e.g. 2/4") from None
    if not 1 <= index <= count:
        raise ConfigError(f"--shard is {text!r}; expected I/N with 1 <= I <= N")
    return index, count
