"""``sciml plot``: the pictures of a run, or of a case of a data file."""

from pathlib import Path
from typing import Annotated

import typer

from sciml.cli import options
from sciml.cli.console import print_json
from sciml.cli.progress import RichProgress
from sciml.errors import ConfigError

NEEDS_ARGUMENTS = True
EXAMPLES = """Examples:

  sciml plot runs/cavity/unet/RUN
  sciml plot data.h5 --case 3

  sciml plot runs/water/giorom/RUN --vtk paraview/"""

Target = Annotated[Path, typer.Argument(metavar="RUN|FILE", help="A run directory or a data file.")]
Case = Annotated[int | None, typer.Option("--case", metavar="N", help="Of a data file: the case, from 0. [default: 0]")]

Vtk = Annotated[
    Path | None, typer.Option("--vtk", metavar="DIR", help="Of particles: also write PVD series for ParaView.")
]


def plot(target: Target, case: Case = None, vtk: Vtk = None, json: options.Json = False) -> None:
    """Draw the pictures of a run into its figures/, or those of a case of a data file beside it.

    Of a run: fields, profiles, spectra, errors, training curves, and an animated rollout, as they suit the problem.
    Of a data file: what was generated. Particles are drawn as points, and written for ParaView with --vtk.
    """
    series: list[Path] = []
    if vtk is not None:
        from sciml.plotting.particles.vtk import particle_series

        series = particle_series(target, vtk, 0 if case is None else case)
    if target.is_file() or target.suffix.lower() in options.DATA_SUFFIXES:
        from sciml.plotting import case_figure

        figures = case_figure(target, 0 if case is None else case)
    elif case is not None:
        raise ConfigError(f"--case chooses a case of a data file, and {target} is not one; leave it out for a run")
    else:
        from sciml.plotting import run_figures

        with RichProgress() as progress:
            figures = run_figures(target, progress)
    if json:
        found = {"figures": [str(path) for path in figures]}
        print_json(found | ({"series": [str(path) for path in series]} if vtk is not None else {}))
        return
    for path in (*figures, *series):
        print(path)
