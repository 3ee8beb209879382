"""Corners: where the rows of two sides meet they determine the same number, and must agree about it.

With rows w along x and v along y, and right-hand sides g(y) and h(x), every field that obeys both has

    sum_j v_j g(y_j)  =  sum_ij w_i v_j u_ij  =  sum_i w_i h(x_i),

for two prescribed values: both extrapolate to the same value in the corner. Where they do not, one side has to own the
corner: the other one gives up its row at the cell in the corner. The remaining rows determine what that row would say,
so giving it up is the same as replacing its right-hand side by the number that agrees, which is what is done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from sciml.constraints.boundary_values.rows import SideRows
from sciml.errors import ConfigError

TOLERANCE = 1e-6
"""Relative difference up to which two sides agree in a corner."""


def settled(field: str, rows: Sequence[SideRows], owners: str, gap: int) -> list[SideRows]:
    """The rows with right-hand sides that agree in all corners, those that own corners first.

    A prescribed value owns the corner against a derivative; of two of a kind the axis that comes first in ``owners``.
    With a ``gap``, both leave out their rows on so many points from a corner in which they disagree.

    Raises ``ConfigError`` where two of a kind disagree, ``owners`` names the axis of neither and there is no gap.
    """
    ordered = sorted(rows, key=lambda row: (not row.prescribes_value, (owners + "xyz").index("xyz"[row.axis]), row.end))
    kept = {row.name: row for row in ordered}
    for owner, other in combinations(ordered, 2):
        if not _meet(owner, other) or owner.prescribes_value != other.prescribes_value:
            continue
        named = "xyz"[owner.axis] in owners or "xyz"[other.axis] in owners
        if gap:
            apart = _conflict(owner, other).flatten(1).any(1, keepdim=True)
            kept[owner.name] = _without(kept[owner.name], other, apart, gap)
            kept[other.name] = _without(kept[other.name], owner, apart, gap)
        elif not named:
            _check_agreement(field, *sorted((owner, other), key=lambda row: row.axis))
        elif owner.normal is not None:  # no rows of the owner determine what the other one gives up
            apart = _conflict(owner, other).flatten(2).any(2) & (_shared(owner, other) == 0).flatten(1)
            kept[other.name] = _without(kept[other.name], owner, apart, 1)
    done: list[SideRows] = []
    for row in ordered:
        row = kept[row.name]
        for owner in done:
            if _meet(row, owner):
                row = _yielding(row, owner)
        done.append(row)
    return done


def _meet(row: SideRows, other: SideRows) -> bool:
    """Whether they share a corner at which they might disagree."""
    return row.axis != other.axis and not (row.zero and other.zero)


def _yielding(row: SideRows, owner: SideRows) -> SideRows:
    """``row`` with the right-hand side at the owner's end replaced by the one that agrees with the owner."""
    dim = owner.axis + 2
    value = row.value
    corner, rest = _split(value, dim, owner.end, 1)
    surplus = (row.apply(owner.value) - owner.apply(value)) / owner.first(value.ndim)
    corner = corner + surplus * _shared(row, owner)
    shape = torch.broadcast_shapes(corner.shape, (*rest.shape[:dim], 1, *rest.shape[dim + 1 :]))
    rest = rest.expand(*shape[:dim], -1, *shape[dim + 1 :])
    return replace(row, value=_join(corner, rest, dim, owner.end), zero=False)


def _shared(one: SideRows, two: SideRows) -> Tensor:
    """1 for the components that have rows on both sides, else 0: ``(1, 1 or C, 1, ...)``."""
    if one.normal is None or one.keep is None:
        return one.value.new_ones((1,) * one.value.ndim)
    shared = one.value.new_ones(1, one.keep.shape[1], *(1,) * (one.value.ndim - 2))
    shared[:, [one.normal, two.normal]] = 0
    return shared


def _without(row: SideRows, other: SideRows, leave_out: Tensor, width: int) -> SideRows:
    """``row`` without its rows on the points next to another side, in the cases and components ``(B, 1 or C)``."""
    dim = other.axis + 2
    keep = row.value.new_ones(*leave_out.shape, *row.value.shape[2:])
    if row.keep is not None:
        keep = keep * row.keep
    near, rest = _split(keep, dim, other.end, width)
    near = near * ~leave_out.reshape(*leave_out.shape, *(1,) * (keep.ndim - 2))
    return replace(row, keep=_join(near, rest, dim, other.end))


def _split(x: Tensor, dim: int, end: int, width: int) -> tuple[Tensor, Tensor]:
    """The points next to an end, and the others."""
    n = x.shape[dim]
    if end == 0:
        return x.narrow(dim, 0, width), x.narrow(dim, width, n - width)
    return x.narrow(dim, n - width, width), x.narrow(dim, 0, n - width)


def _join(near: Tensor, rest: Tensor, dim: int, end: int) -> Tensor:
    """The inverse of ``_split``."""
    return torch.cat([near, rest] if end == 0 else [rest, near], dim)


def _corner_numbers(one: SideRows, two: SideRows) -> tuple[Tensor, Tensor]:
    """What the right-hand sides of either lead to in their corner, ``(B, C, *corner)``."""
    return two.apply(one.value), one.apply(two.value)


@torch.no_grad()
def _conflict(one: SideRows, two: SideRows) -> Tensor:
    """Where two sides lead to different numbers in their corner, ``(B, C, *corner)`` bool.

    That is, beyond round-off and the error of the extrapolation of a profile, for which its difference from a
    polynomial of one degree less stands.
    """
    first, second = _corner_numbers(one, two)
    tolerance = torch.zeros_like(first)
    for side, towards in ((one, two), (two, one)):
        tolerance = tolerance + TOLERANCE * towards.apply(side.value.abs(), towards.weights.abs())
        if side.varies:
            tolerance = tolerance + (towards.apply(side.value) - towards.apply(side.value, towards.lower)).abs()
    return (first - second).abs() > tolerance


def _check_agreement(field: str, one: SideRows, two: SideRows) -> None:
    """``ConfigError`` if two sides lead to different numbers in their corner."""
    conflict = _conflict(one, two)
    if not bool(conflict.any()):
        return
    where = tuple(conflict.nonzero()[0].tolist())
    numbers = [float(side.detach().expand(conflict.shape)[where]) for side in _corner_numbers(one, two)]
    what = "values" if one.prescribes_value else "derivatives"
    raise ConfigError(
        f"{one.name} and {two.name} claim their corner with conflicting {what} of {field!r}: {numbers[0]:g} from "
        f"{one.name} and {numbers[1]:g} from {two.name} (case {where[0]}, component {where[1]}); make them agree, name "
        f"the axis whose sides own the corners (corners='{'xyz'[one.axis]}' or corners='{'xyz'[two.axis]}'), or leave "
        "out the rows beside such corners (gap=8)"
    )
