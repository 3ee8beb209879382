"""Independent tiles on several ranks: each rank solves its own, then all have all weights and the whole report."""

from __future__ import annotations

from dataclasses import fields

from torch import Tensor

from sciml.collectives import Group, gather, on_all_ranks, rank_of, share_sizes, size_of
from sciml.constraints.least_squares.problem import Problem
from sciml.constraints.least_squares.report import Options, Report
from sciml.constraints.least_squares.solve import Solution, least_squares, speak
from sciml.errors import DataError


def least_squares_of_shares(
    problem: Problem,
    start: Tensor,
    *,
    tiles: int,
    group: Group = None,
    options: Options | None = None,
    gradient: str = "full",
    on_failure: str = "warn",
) -> Solution:
    """``least_squares`` of B x ``tiles`` problems of which this rank has those of its own tiles.

    Args:
        problem, start: of the problems ``(B K_own, ...)`` of this rank's tiles (``own_share``), case by case.
        tiles: K, on all ranks together.
        group: the ranks; None: this rank has all tiles.
        options, gradient, on_failure: of ``least_squares``.

    Returns the weights ``(B K, n)`` and the report of all problems, on every rank; gradients flow to this rank's own.
    Raises ``SolverError`` on every rank if the solve fails on one.
    """
    if size_of(group) == 1:
        return least_squares(problem, start, options=options, gradient=gradient, on_failure=on_failure)

    def solve() -> Solution:
        found = least_squares(problem, start, options=options, gradient=gradient, on_failure="mask")
        if found.report.status.numel() != len(start):
            raise DataError("tiles that ranks share are given as problems (B K, 1, M, N) of one tile each")
        return found

    found = on_all_ranks(solve, group)
    own = share_sizes(tiles, group)[rank_of(group)]

    def every(x: Tensor) -> Tensor:
        return gather(x.unflatten(0, (-1, own)), 1, tiles, group).flatten(0, 1)

    report = Report(**{field.name: every(getattr(found.report, field.name)) for field in fields(Report)})
    speak(report, on_failure)
    return Solution(every(found.weights), report)
