"""``sciml invert``: the input function (a permeability, say) that explains a few noisy observations."""

import math
import time
import warnings
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sciml.cli import options
from sciml.cli.console import print_json, say
from sciml.cli.input_functions import read_input_functions
from sciml.cli.progress import RichProgress
from sciml.errors import ConfigError, DataError, SciMLError

if TYPE_CHECKING:
    from sciml.surrogate.latent import Inversion, LatentSurrogate, Observations, Posterior

NEEDS_ARGUMENTS = True
SAMPLES, CHAINS = 4000, 8
FEWEST = 8
"""Draws of a chain from which one can tell whether it has converged."""
LARGEST_SEED = 2**63 - 1
"""A generator takes no greater one."""

EXAMPLES = """Examples: observations of known noise, of a known signal-to-noise ratio, of unknown noise

  sciml train --problem darcy --operator dgno
  sciml invert runs/darcy/dgno/RUN --observations obs.csv --noise 0.003
  sciml invert runs/darcy/dgno/RUN --observations obs.csv --snr 25
  sciml invert runs/darcy/dgno/RUN --observations obs.csv --out found

Beside what is known (an array at the surrogate's input points, or a table x,y,permeability):

  sciml invert runs/darcy/dgno/RUN --observations obs.csv --truth permeability.csv

The file of observations has a row a sensor, and names its columns, here coordinates and a field:

  x,y,pressure
  0.25,0.5,0.0713
  0.75,0.5,0.0689"""


class Method(str, Enum):
    """How the posterior is found."""

    hmc = "hmc"
    pcn = "pcn"
    vi = "vi"
    map = "map"
    field = "field"


def invert(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or the surrogate inside it.")],
    observations: Annotated[
        Path,
        typer.Option("--observations", "-i", metavar="FILE", help="CSV: coordinates and observed fields, named."),
    ],
    noise: Annotated[
        float | None,
        typer.Option(metavar="S", help="Standard deviation of the noise, in the field's unit.", show_default="unknown"),
    ] = None,
    snr: Annotated[
        float | None,
        typer.Option(metavar="DB", help="The same as a signal-to-noise ratio in decibel.", show_default=False),
    ] = None,
    method: Annotated[
        Method,
        typer.Option(
            help="Markov chains (hmc, pcn), a Gaussian (vi), the most probable alone (map), or chains in the prior of "
            "the input function itself (field: for two values)."
        ),
    ] = Method.hmc,
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=1, help="Draws that are kept, over all chains.", show_default=str(SAMPLES)),
    ] = None,
    chains: Annotated[
        int | None, typer.Option(min=1, help="Markov chains, from different optima.", show_default=str(CHAINS))
    ] = None,
    warmup: Annotated[int, typer.Option(min=1, help="Steps of each chain that are not kept.")] = 500,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The true input function, to compare with (.npy, .npz, .csv)."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of all draws.")] = 0,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads of the computation; its tensors are small, one is quickest.")
    ] = 1,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="What to write.", show_default="RUN/inversions/NAME OF FILE"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    figures: Annotated[bool, typer.Option(help="Draw pictures.")] = True,
    json: options.Json = False,
) -> None:
    """Find the input function of a weak problem from noisy observations, with its uncertainty.

    Of a run of the operator dgno. Where the noise is not given, it is found too. Writes posterior.npz, posterior.csv,
    inversion.json and pictures.
    """
    directory = run / "inversions" / observations.stem if out is None else out
    _check_free(directory, overwrite)
    _check_noise(noise, snr)
    draws, chains = _draws(method.value, samples, chains)
    from sciml.inference import ChainsDisagreeWarning
    from sciml.surrogate import load
    from sciml.surrogate.latent import save_posterior, summarise

    surrogate = load(run)
    if surrogate.kind != "latent":
        raise ConfigError(
            f"the surrogate in {run} is of kind {surrogate.kind}, without a latent vector to look for; an inversion "
            "needs a run of the operator dgno, e.g. sciml train --problem darcy --operator dgno"
        )
    observed = _observations(observations, surrogate)
    known = None
    if truth is not None:
        known = read_input_functions(truth, surrogate.problem)
        if len(known) != 1:
            raise DataError(f"{truth} holds {len(known)} input functions; expected one, the truth")
    deviation = noise if snr is None else _deviation_of(observed, snr)
    if deviation is not None:
        _check_units(surrogate, observed)
    started = time.perf_counter()
    from sciml.training.run import threads as so_many_threads

    with RichProgress() as progress, so_many_threads(threads):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = surrogate.invert(
                observed,
                deviation,
                method=method.value,
                draws=draws,
                chains=chains,
                warmup=warmup,
                seed=seed,
                progress=progress,
            )
        doubts = [str(each.message) for each in caught]
        posterior = summarise(found)
        if posterior.trouble and not any(issubclass(each.category, ChainsDisagreeWarning) for each in caught):
            doubts.append(posterior.trouble)
        from sciml.cli.inversion_report import describe, print_inversion

        record = {
            "run": str(run),
            "observations": str(observations),
            "seed": seed,
            **describe(found, posterior, known, doubts),
            "seconds": time.perf_counter() - started,
        }
        save_posterior(found, posterior, record, directory)
        drawn = _figures(found, directory, posterior, known, progress) if figures else []
    if json:
        for sentence in doubts:
            say(f"warning: {sentence}")
        print_json({"directory": str(directory), **record, "figures": [str(path) for path in drawn]})
        return
    print_inversion(record)
    print(f"\nwritten    {directory}: posterior.npz, posterior.csv, inversion.json")
    for path in drawn:
        print(f"picture    {path}")


def _check_free(directory: Path, overwrite: bool) -> None:
    """What is replaced goes with all it holds: only the result of an inversion may."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    if not (directory / "inversion.json").is_file():
        raise ConfigError(f"{directory} exists already and is not the result of an inversion; choose another --out")
    if not overwrite:
        raise ConfigError(f"{directory} exists already; choose another --out, or replace it with --overwrite")


def _check_noise(noise: float | None, snr: float | None) -> None:
    if noise is not None and snr is not None:
        raise ConfigError("--noise and --snr exclude each other: both say how strong the noise is")
    if noise is not None and not (math.isfinite(noise) and noise > 0):
        raise ConfigError(
            f"--noise is {noise:g}; expected a standard deviation, a number above 0. Leave it out where it is unknown"
        )
    if snr is not None and not (math.isfinite(snr) and abs(snr) <= 200):
        raise ConfigError(f"--snr is {snr:g}; expected decibel, a number from -200 to 200, e.g. 25")


def _draws(method: str, samples: int | None, chains: int | None) -> tuple[int, int]:
    """Draws of each chain and chains, that keep at least ``samples`` together."""
    if method == "map" and (samples, chains) != (None, None):
        raise ConfigError("--method map finds the most probable input function alone: leave out --samples and --chains")
    if method == "vi" and chains is not None:
        raise ConfigError("--method vi draws from a Gaussian, without chains: leave out --chains")
    count = 1 if method == "vi" else chains or CHAINS
    draws = -(-(samples or SAMPLES) // count)
    if method in ("hmc", "pcn", "field") and draws < FEWEST:
        raise ConfigError(
            f"--samples {samples} over {count} chains are {draws} a chain, too few to tell whether they agree; give "
            f"--samples {FEWEST * count} or more, or fewer --chains"
        )
    return draws, count


def _observations(file: Path, surrogate: "LatentSurrogate") -> "Observations":
    from sciml.surrogate.latent import Observations

    return Observations.read(file, surrogate.problem)


def _deviation_of(observed: "Observations", snr: float) -> float:
    """sqrt(mean(values^2) / 10^(snr / 10))."""
    power = float(observed.values.square().mean())
    if power == 0:
        raise ConfigError("--snr says the noise relative to the observations, and these are all 0; give --noise")
    return math.sqrt(power / 10 ** (snr / 10))


def _check_units(surrogate: "LatentSurrogate", observed: "Observations") -> None:
    """One deviation is one number: it has one unit."""
    from sciml.surrogate.latent import channel_units

    units = channel_units(surrogate.problem)
    if len({units[name] for name in observed.channels}) > 1:
        listed = ", ".join(f"{name} ({units[name]})" for name in observed.channels)
        raise ConfigError(
            f"the observations are of {listed}, and the noise is one number with one unit; leave --noise and --snr out "
            "(it is found, relative to each field), or give the observations of one field"
        )


def _figures(
    found: "Inversion", directory: Path, posterior: "Posterior", known: Any, progress: RichProgress
) -> list[Path]:
    """The pictures. One that cannot be drawn must not cost the result."""
    from sciml.plotting import inversion_figures

    try:
        truth = None if known is None else known[0].numpy()
        return inversion_figures(found, directory, posterior=posterior, truth=truth)
    except (SciMLError, OSError) as error:
        progress.message(f"warning: no pictures: {error}")
        return []
