"""The problems that the package generates, solves and trains on."""

from sciml.errors import ConfigError, did_you_mean
from sciml.problems.base import Parameter, Problem, Sample
from sciml.problems.cavity import Cavity

PROBLEMS: dict[str, type[Problem]] = {"cavity": Cavity}

__all__ = ["PROBLEMS", "Cavity", "Parameter", "Problem", "Sample", "get_problem"]


def get_problem(name: str, dim: int | None = None) -> Problem:
    """The problem of this name, in ``dim`` dimensions (by default the first that it has).

    Raises ``ConfigError`` that suggests the nearest name for an unknown one, or says in which dimensions it exists.
    """
    if name not in PROBLEMS:
        raise ConfigError(f"unknown problem {name!r}{did_you_mean(name, PROBLEMS)}")
    return PROBLEMS[name](dim)
