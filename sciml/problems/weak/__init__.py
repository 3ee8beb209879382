"""Problems in their weak form: an input function is given, the fields that follow are learned without solutions.

problem = get_weak_problem("darcy", "piecewise")
cases = problem.draw_cases(8, seed=0)
inputs = problem.inputs(cases)                  # (8, P): permeability of the cells
pressure = problem.solve(inputs)                # (8, 1, N): the reference, at problem.points (N, 2)
"""

from sciml.errors import ConfigError, did_you_mean
from sciml.problems.weak.base import Ansatz, WeakProblem
from sciml.problems.weak.box import BoxProblem
from sciml.problems.weak.burgers import WeakBurgers
from sciml.problems.weak.darcy import WeakDarcy
from sciml.problems.weak.darcy_mixed import WeakDarcyMixed
from sciml.problems.weak.stokes import WeakStokes

WEAK_PROBLEMS: dict[str, type[WeakProblem]] = {
    "burgers": WeakBurgers,
    "darcy": WeakDarcy,
    "darcy_mixed": WeakDarcyMixed,
    "stokes": WeakStokes,
}

__all__ = [
    "WEAK_PROBLEMS",
    "Ansatz",
    "BoxProblem",
    "WeakBurgers",
    "WeakDarcy",
    "WeakDarcyMixed",
    "WeakProblem",
    "WeakStokes",
    "get_weak_problem",
]


def get_weak_problem(name: str, subset: str | None = None, resolution: int | None = None) -> WeakProblem:
    """The problem of this name, for a subset of its cases on a mesh.

    Raises ``ConfigError`` that suggests the nearest name for an unknown one.
    """
    if name not in WEAK_PROBLEMS:
        raise ConfigError(f"no weak form of a problem {name!r}{did_you_mean(name, WEAK_PROBLEMS)}")
    return WEAK_PROBLEMS[name](subset, resolution)
