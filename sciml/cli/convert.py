"""``sciml convert``: particles of other programs to a particle file, and back."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from sciml.cli import options
from sciml.cli.console import print_json
from sciml.cli.progress import RichProgress
from sciml.errors import ConfigError, DataError

NEEDS_ARGUMENTS = True
EXAMPLES = """Examples:

  sciml convert WaterDrop/ --out water.h5 --allow-pickle       GNS: train.npz, valid.npz, test.npz, metadata.json
  sciml convert log/jelly/ --out jelly.h5 --kind jelly         NCLaw: directories with state/NNNN.pt
  sciml convert rollout_full.pt --out sand.h5 --interval 2.5e-3 --bounds 0,1,0,1,0,1 --allow-pickle
  sciml convert frames/ --out mine.h5 --interval 0.01          numbered .vtu, .vtk or .ply files, or a .pvd

Out of a particle file, for ParaView or GNS:

  sciml convert water.h5 --case 3 --out case3/ --to vtk
  sciml convert water.h5 --out gns/ --to gns

Files with Python objects in them (GNS, GIOROM) are read only with --allow-pickle, and then only arrays, numbers, lists
and dictionaries of them. Stopped? The same command again goes on."""


class Target(str, Enum):
    """What a particle file becomes."""

    vtk = "vtk"
    gns = "gns"


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A file or directory of particles.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="OUT", help="The particle file (.h5), or with --to a directory.")
    ],
    to: Annotated[Target | None, typer.Option(help="Write IN, a particle file, for another program.")] = None,
    case: Annotated[
        int | None,
        typer.Option(min=0, help="With --to: this case; default: vtk the first, gns all.", show_default=False),
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read arrays out of pickles, and nothing else.")
    ] = False,
    interval: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Time between frames, where IN does not say it.")
    ] = None,
    bounds: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH,...",
            help="The box: low and high of each axis; default: what IN says, or a box around all.",
        ),
    ] = None,
    gravity: Annotated[
        str | None, typer.Option(metavar="X,Y[,Z]", help="Gravity in m/s^2; default: what IN says, or none.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the particles are, where there is one kind.")
    ] = None,
    problem: Annotated[
        str | None, typer.Option(metavar="NAME", help="The problem that the data is of; default: IN's name.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT where it exists.")] = False,
    json: options.Json = False,
) -> None:
    """Convert trajectories of particles from and to the formats of other programs."""
    told = {"interval": interval, "bounds": _pairs(bounds), "gravity": _numbers("--gravity", gravity), "kind": kind}
    told |= {"problem": problem, "allow_pickle": allow_pickle or None}
    if to is not None:
        if given := sorted(name for name, value in told.items() if value is not None):
            raise ConfigError(f"{_option(given[0])} is for reading other formats; leave it out with --to")
        _export(source, out, to.value, case, json)
        return
    if case is not None:
        raise ConfigError("--case goes with --to vtk or --to gns; other formats are converted whole")
    _import(source, out, {name: value for name, value in told.items() if value is not None}, overwrite, json)


def _import(source: Path, out: Path, told: dict[str, Any], overwrite: bool, json: bool) -> None:
    if out.suffix.lower() not in options.DATA_SUFFIXES:
        raise ConfigError(f"--out is {out}; expected a file name that ends in {', '.join(options.DATA_SUFFIXES)}")
    from sciml.datasets.particles import ParticleFile, convert_particles, is_particle_file

    if source.is_file() and is_particle_file(source):
        raise ConfigError(f"{source} is a particle file already; with --to vtk or --to gns it is written for others")
    with RichProgress() as progress:
        file = ParticleFile(convert_particles(source, out, overwrite=overwrite, progress=progress, **told))
        for name in ("bounds", "gravity"):
            if note := file.info.extra.get(name):
                progress.message(f"{name}: {note} (--{name} to say them)")
        size = out.stat().st_size
        progress.message(
            f"wrote {out} ({size / 1e6:.1f} MB): {len(file)} cases of {', '.join(file.info.kinds)}; "
            f"look at it with: sciml info {out}"
        )
    if json:
        print_json({"file": str(out), "bytes": size, "cases": len(file), "kinds": list(file.info.kinds)})


def _export(source: Path, out: Path, to: str, case: int | None, json: bool) -> None:
    from sciml.datasets.particles import ParticleFile, write_gns, write_vtk_case
    from sciml.points import propose_radius

    file = ParticleFile(source)
    if case is not None and case >= len(file):
        raise DataError(f"{source} has the cases 0 to {len(file) - 1}, got --case {case}")
    with RichProgress() as progress:
        if to == "vtk":
            chosen = case or 0
            written = write_vtk_case(out, f"{source.stem}_case{chosen}", file.trajectory(chosen), file.info.interval)
            progress.message(f"wrote {written} and its {file.frames(chosen)} frames; ParaView opens it")
        else:
            cases = [(file, each) for each in (range(len(file)) if case is None else [case])]
            radius = propose_radius(file.positions(cases[0][1], 0, 1)[0])
            written = write_gns(out, _splits(cases), radius=radius)
            progress.message(f"wrote {len(cases)} cases to {written} with a connectivity radius of {radius:.3g} m")
    if json:
        print_json({"out": str(written), "to": to})


def _splits(cases: list[tuple[Any, int]]) -> dict[str, list[tuple[Any, int]]]:
    """By the labels that a GNS set has, where all cases have one of them; else all are training data."""
    labels = [file.subsets[case] for file, case in cases]
    if not set(labels) <= {"train", "valid", "test"}:
        return {"train": cases}
    return {
        split: [c for c, label in zip(cases, labels, strict=True) if label == split] for split in dict.fromkeys(labels)
    }


def _numbers(option: str, text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option} is {text!r}; expected numbers with commas between them") from None


def _pairs(text: str | None) -> list[tuple[float, float]] | None:
    numbers = _numbers("--bounds", text)
    if numbers is None:
        return None
    if len(numbers) % 2:
        raise ConfigError(f"--bounds is {text!r}; expected low and high of each axis, e.g. 0,1,0,1")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
