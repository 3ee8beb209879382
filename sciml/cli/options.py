"""Options that several commands share, and the names that the shell completes."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

# Written out, because the registries import torch and a TAB must answer at once; a test compares them.
PROBLEMS = {
    "burgers": ("fno", "pdebench", "dgno", "viscosity", "amplitude"),
    "cavity": ("bc", "prop", "geo"),
    "cylinder": ("bc", "prop", "geo"),
    "dam": ("bc", "prop", "geo"),
    "darcy": ("fno", "smooth", "dgno_piecewise"),
    "diffusion_sorption": ("pdebench", "soil"),
    "gray_scott": ("gliders", "bubbles", "maze", "worms", "spirals", "spots"),
    "periodic_flow": ("random", "taylor_green"),
    "tube": ("bc", "prop", "geo"),
    "two_phase_tube": ("bc", "prop", "geo"),
    "vorticity": ("decaying", "kolmogorov", "controlled", "fno", "hcmoe"),
}
"""Name -> subsets."""
PARTICLE_PROBLEMS = {
    "goop": ("drop", "column", "blocks", "pool", "obstacle"),
    "jelly": ("drop", "blocks", "obstacle"),
    "plasticine": ("drop", "blocks", "obstacle"),
    "sand": ("drop", "column", "blocks", "pool", "obstacle"),
    "water": ("drop", "column", "blocks", "pool", "obstacle"),
}
"""The same of the problems whose states are particles."""
WEAK_PROBLEMS = {
    "burgers": ("dgno",),
    "darcy": ("piecewise", "waves", "smooth", "fno"),
    "darcy_mixed": ("piecewise", "waves", "smooth", "fno"),
    "stokes": ("waves",),
}
"""The same of the problems in weak form, which LATENT_OPERATORS learn."""
ALL_PROBLEMS = {**PROBLEMS, **PARTICLE_PROBLEMS}
"""Those that 'sciml generate' solves."""
WEAK_ONLY = tuple(name for name in WEAK_PROBLEMS if name not in ALL_PROBLEMS)
OPERATORS = ("deeponet", "fno", "mmpde", "moving_mesh", "multionet", "neuralstagger", "poseidon", "unet")
LATENT_OPERATORS = ("dgno",)
CONSTRAINTS = ("boundary-values", "conservation", "divergence-free")
EXPERTS = "mixture-of-experts"
"""The constraint of training without data, which is a section of the configuration."""
DATA_SUFFIXES = (".h5", ".hdf5", ".hdf")


class Device(str, Enum):
    """Where to compute; ``auto`` takes CUDA when there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Split(str, Enum):
    """How cases are held out."""

    random = "random"
    extrapolate = "extrapolate"


def complete_problem(incomplete: str) -> list[str]:
    """Names of problems that can be generated, for the shell."""
    return [name for name in ALL_PROBLEMS if name.startswith(incomplete)]


def complete_learned(incomplete: str) -> list[str]:
    """Names of problems that can be learned, for the shell."""
    return [name for name in (*ALL_PROBLEMS, *WEAK_ONLY) if name.startswith(incomplete)]


def complete_operator(incomplete: str) -> list[str]:
    """Names of operators for the shell."""
    return [name for name in (*OPERATORS, *LATENT_OPERATORS) if name.startswith(incomplete)]


def complete_constraint(incomplete: str) -> list[str]:
    """Names of constraints for the shell."""
    return [name for name in (*CONSTRAINTS, EXPERTS) if name.startswith(incomplete)]


def complete_subset(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of subsets for the shell: those of the problem, where the line names one already."""
    problem = ctx.params.get("problem")
    known = ALL_PROBLEMS.get(problem) or {name for names in ALL_PROBLEMS.values() for name in names}
    return [name for name in sorted({"all", *known}) if name.startswith(incomplete)]


Json = Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout; the rest goes to stderr.")]
Data = Annotated[
    list[Path] | None,
    typer.Option("--data", metavar="FILE", help="Data file; give several, or a shell pattern: --data data/*.h5."),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, as 'sciml train' names it.")]


def split_positionals(words: list[str] | None, data: list[Path] | None) -> tuple[list[str], list[Path]]:
    """Overrides and data files: the shell turns ``--data *.h5`` into one option and loose words, which are
    files too.
    """
    overrides, files = [], list(data or [])
    for word in words or []:
        is_file = files and "=" not in word and (word.lower().endswith(DATA_SUFFIXES) or Path(word).is_file())
        if is_file:
            files.append(Path(word))
        else:
            overrides.append(word)
    return overrides, files
