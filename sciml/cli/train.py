"""``sciml train``: the main job, end to end."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sciml.cli import options
from sciml.cli.console import is_main_process, print_json, say
from sciml.cli.progress import RichProgress
from sciml.cli.report import next_steps, print_results, timing
from sciml.errors import ConfigError, SciMLError, did_you_mean

NEEDS_ARGUMENTS = True
EXAMPLES = """Examples (no data needed: they generate a small set first, and keep it):

  sciml train --problem cavity
  sciml train --problem cavity --operator fno --time-limit 10
  sciml train --problem cavity batch_size=32 optimizer.learning_rate=1e-3
  sciml train --problem cavity --split extrapolate
  sciml train --problem darcy
  sciml train --problem darcy task.points=200
  sciml train --problem burgers --dim 2
  sciml train --problem cavity --constraint divergence-free --constraint boundary-values

Particles: few points are stepped, all of them are brought along:

  sciml train --problem water
  sciml train --problem sand --dim 3 data.points=1000
  sciml train --problem water --operator gns data.points=null
  sciml train --problem particles --data mine.h5

Without training data, from the equation alone: whole solutions, soft, or with experts that solve it on tiles:

  sciml train --problem diffusion_sorption --physics-only
  sciml train --problem diffusion_sorption --physics-only --constraint mixture-of-experts
  sciml train --problem vorticity --physics-only experts.tiles=[1,2,2] experts.bases=32

An operator that also runs backwards, from few noisy observations to the input (see sciml invert):

  sciml train --problem darcy --operator dgno
  sciml train --problem darcy --operator dgno data.subset=waves task.learn=both data.labelled=100
  sciml train --problem stokes

From pretrained weights: a run, a surrogate, an operator's directory or a hub id:

  sciml train --problem tube --from runs/cavity/unet/RUN
  sciml train --problem cavity --operator poseidon --from camlab-ethz/Poseidon-T

Your own files, your own configuration, going on after Ctrl-C, two processes:

  sciml train --problem cavity --data data/*.h5 --out runs/mine
  sciml train --problem cavity --print-config > mine.yaml
  sciml train --config mine.yaml
  sciml train --resume runs/cavity/unet/RUN
  torchrun --nproc-per-node 2 -m sciml train --problem cavity"""


def train(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Any key of the configuration, e.g. batch_size=32.",
            show_default=False,
        ),
    ] = None,
    problem: Annotated[
        str | None,
        typer.Option(
            "--problem",
            "-p",
            help="What to learn: see 'sciml problems'.",
            autocompletion=options.complete_learned,
        ),
    ] = None,
    dim: Annotated[
        int | None,
        typer.Option(min=1, max=3, help="Space dimensions, where the problem has several.", show_default=False),
    ] = None,
    operator: Annotated[
        str | None,
        typer.Option(
            help="unet, fno, deeponet, multionet, poseidon, neuralstagger, moving_mesh, mmpde; of particles giorom, "
            "gns; of weak forms dgno.",
            autocompletion=options.complete_operator,
            show_default=False,
        ),
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="PATH",
            help="Start from these weights: a run, a surrogate, an operator's directory or a hub id.",
            show_default=False,
        ),
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(
            "--constraint",
            metavar="NAME",
            help="Make every prediction obey; give several: divergence-free, boundary-values, conservation; "
            "mixture-of-experts with --physics-only.",
            autocompletion=options.complete_constraint,
            show_default=False,
        ),
    ] = None,
    physics_only: Annotated[
        bool,
        typer.Option(
            "--physics-only",
            help="Learn from the equation alone, without training data: whole solutions, or steps (neuralstagger); "
            "dgno does by itself.",
        ),
    ] = False,
    data: options.Data = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="YAML file, see --print-config.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="auto|PATH", help="Go on with a run: this one, or the newest unfinished one."),
    ] = None,
    device: Annotated[options.Device | None, typer.Option(help="Where to train.", show_default="auto")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights and batches.", show_default="0")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Stop after so many passes over the data.")] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="MINUTES", help="Minutes of training, without generation and evaluation."),
    ] = None,
    split: Annotated[
        options.Split | None, typer.Option(help="How test cases are held out.", show_default="random")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Run directory.", show_default="runs/PROBLEM/OPERATOR/TIME"),
    ] = None,
    figures: Annotated[bool, typer.Option(help="Draw pictures at the end.")] = True,
    json: options.Json = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved configuration as YAML and stop.")
    ] = False,
) -> None:
    """Train a surrogate and evaluate it on cases it never saw.

    Without --data a small set is generated first and kept for the next run. It ends with a table of the
    operator against persistence and look-up, pictures, and a directory that sciml.load opens.
    """
    words, files = options.split_positionals(overrides, data)
    flags = _flags(dim, pretrained, constraint, physics_only, device, seed, epochs, time_limit, split, files)
    file = config
    if file is None and resume not in (None, "auto") and (Path(str(resume)) / "config.yaml").is_file():
        # 'sciml train --resume RUN' alone goes on with what the run was started with.
        file = Path(str(resume)) / "config.yaml"
    resolved = _resolve(problem, operator, file, words, flags)
    if print_config:
        print(resolved.to_yaml(), end="")
        return
    from sciml.training import train as run

    with RichProgress() as progress:
        result = run(resolved, out, resume, progress)
        drawn = _figures(result.directory, progress) if figures and is_main_process() else []
    if not is_main_process():
        return
    summary, directory = result.summary, result.directory
    print_results(str(summary.get("operator", "operator")), summary.get("test", {}), stderr=json)
    lines = [f"run        {directory}", f"surrogate  {directory / 'surrogate'}"]
    if drawn:
        lines.append(f"pictures   {directory / 'figures'}")
    lines += [
        f"time       {timing(summary.get('seconds', {}))}",
        "",
        next_steps(directory, summary.get("test", {})),
    ]
    if json:
        say("\n".join(lines))
        print_json({"directory": str(directory), **summary, "figures": [str(path) for path in drawn]})
    else:
        print("\n".join(["", *lines]))


def _flags(
    dim: int | None,
    pretrained: str | None,
    constraints: list[str] | None,
    physics_only: bool,
    device: options.Device | None,
    seed: int | None,
    epochs: int | None,
    time_limit: float | None,
    split: options.Split | None,
    files: list[Path],
) -> dict[str, Any]:
    """The flags that were given, in the shape of the configuration."""
    budget = {"epochs": epochs, "minutes": time_limit}
    data = {"split": split.value if split else None, "files": [str(file) for file in files] or None}
    flags = {
        "dim": dim,
        "pretrained": pretrained,
        "constraints": [{"name": name} for name in constraints or [] if name != options.EXPERTS] or None,
        "task": _given({"residual": 1.0 if physics_only else None}),
        "device": device.value if device else None,
        "seed": seed,
        "budget": _given(budget),
        "data": _given(data),
    }
    flags = {name: value for name, value in _given(flags).items() if value != {}}
    return {**flags, "experts": {}} if options.EXPERTS in (constraints or []) else flags


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _resolve(
    problem: str | None, operator: str | None, file: Path | None, overrides: list[str], flags: dict[str, Any]
) -> Any:
    from sciml.training.config import load_yaml, resolve_config

    if problem is None and file is not None:
        problem = load_yaml(file).get("problem")
    if problem is None:
        names = ", ".join(options.PROBLEMS)
        raise ConfigError(f"what should be trained? Give --problem ({names}), or --config with a file that names it")
    resolved = resolve_config(problem, operator, file, overrides, flags)
    from sciml.constraints import CONSTRAINTS
    from sciml.operators import OPERATORS
    from sciml.training import LatentConfig, ParticleConfig

    if isinstance(resolved, (ParticleConfig, LatentConfig)):
        return resolved
    # Here and not when the network is built, which is after minutes of generation.
    if resolved.operator.name not in OPERATORS:
        known = did_you_mean(resolved.operator.name, (*OPERATORS, *options.LATENT_OPERATORS))
        raise ConfigError(f"unknown operator {resolved.operator.name!r}{known}")
    for constraint in resolved.constraints:
        if constraint.name not in CONSTRAINTS:
            known = did_you_mean(constraint.name, CONSTRAINTS)
            raise ConfigError(f"unknown constraint {constraint.name!r}{known}; known are {', '.join(CONSTRAINTS)}")
    return resolved


def _figures(directory: Path, progress: RichProgress) -> list[Path]:
    """The pictures of the run. A picture that cannot be drawn must not cost the results of a training."""
    from sciml.plotting import run_figures

    try:
        return run_figures(directory, progress)
    except (SciMLError, OSError) as error:
        progress.message(f"warning: no pictures: {error}")
        return []
