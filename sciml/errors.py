"""Errors that a user can act on. The command line prints their message without a stack trace.

A message says what was given, what was expected, and what to do.
"""

import difflib
from collections.abc import Iterable


class SciMLError(Exception):
    """Something the user can mend. ``exit_code`` is what the command line ends with."""

    exit_code = 1


class ConfigError(SciMLError, ValueError):
    """A name, key or value in a configuration, a command or an argument is wrong."""

    exit_code = 2


class DataError(SciMLError, ValueError):
    """A file or an array is missing, damaged, foreign, non-finite or of the wrong shape."""


class SolverError(SciMLError, ArithmeticError):
    """A numerical solver was asked for something it cannot resolve, or did not converge."""


class CheckpointError(SciMLError):
    """A checkpoint or surrogate directory is missing, incomplete or belongs to another configuration."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """``"; did you mean 'cavity'?"`` or, with no near name, ``"; known: ..."``, to end an error message with."""
    known = sorted(known)
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}? (known: {', '.join(known)})"
    return f"; known: {', '.join(known)}"
