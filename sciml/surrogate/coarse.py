"""Running only some of the subtasks of a NeuralStagger: accuracy or speed, chosen when the surrogate is used."""

from __future__ import annotations

from collections.abc import Sequence

from sciml.errors import ConfigError
from sciml.operators import NeuralStagger
from sciml.surrogate.surrogate import Surrogate


def coarse(surrogate: Surrogate, phase: Sequence[int] | None = None, frames: str = "all") -> Surrogate:
    """The surrogate on the coarse grid of one phase: every s-th cell, from the offset ``phase`` (the first cell) on.

    Its state is ``state[..., p::s, q::s]`` of the fine one. ``frames="last"``: also only the last frame of each call,
    so that a step is ``temporal`` intervals long; of mode independent it takes one network of ``temporal``. The weights
    are shared with the surrogate, and the constraints act on the coarse grid.

    Raises ``ConfigError`` for another operator, for a problem with obstacles, for mode stacked (one network sees all
    phases) and for a phase that there is not.
    """
    operator = surrogate.operator
    if not isinstance(operator, NeuralStagger):
        raise ConfigError(
            f"the operator is a {operator.name}, which has no coarse level; a neuralstagger of mode shared or "
            "independent has"
        )
    if surrogate.problem.geometry_fields:
        raise ConfigError(
            f"problem {surrogate.problem.name!r} has obstacles, which the grid of one phase does not show as the fine "
            "grid does: use the whole surrogate"
        )
    subtask = operator.subtask(phase, frames)
    grid = None
    if surrogate.grid is not None:
        grid = [cells // factor for cells, factor in zip(surrogate.grid, operator.spatial, strict=True)]
    return Surrogate(
        subtask,
        surrogate.problem,
        surrogate.normaliser,
        fields=list(surrogate.fields),
        history=surrogate.history,
        target=surrogate.target,
        interval=None if surrogate.interval is None else surrogate.interval * subtask.stride,
        time_scale=surrogate.time_scale,
        grid=grid,
        ranges=surrogate.ranges,
        constraints=surrogate.imposed,
        provenance=surrogate.provenance,
    ).train(surrogate.training)
