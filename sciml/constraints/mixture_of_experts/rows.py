"""The least squares problem of all experts: residual rows of every tile, agreement between tiles, conditions.

Rows are weighted so that the cost is a mean square, whatever the number of rows: that of the residual over all rows,
plus that of the disagreement at the faces between tiles times ``interface_weight^2``, plus that of the conditions times
``condition_weight^2``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.constraints.mixture_of_experts.equation import Equation
from sciml.constraints.mixture_of_experts.tilings import Tiling


def gather(term: Tensor, rows: Tensor, axes: int) -> Tensor:
    """``(B, ..., *row_shape)`` at ``rows (K, M)``: ``(B, ..., K, M)``."""
    return term.flatten(-axes)[..., rows.to(term.device)]


def gather_terms(term: Tensor, rows: Tensor, axes: int) -> Tensor:
    """Terms of basis fields ``(B, N, *row_shape)`` at ``rows (K, M)``, as least squares wants it: ``(B, K, M, N)``."""
    points = term.flatten(-axes).transpose(1, 2)
    return points.index_select(1, rows.flatten().to(term.device)).unflatten(1, rows.shape)


def gathered_coefficients(equation: Equation, rows: Tensor) -> list[Tensor]:
    """Coefficients at ``rows (K, M)``: ``(B, K, M)``, or ``(B, 1, 1)`` where they are one number a case."""
    axes = len(equation.row_shape)
    result = []
    for value in equation.coefficients:
        if value[0].numel() == 1:
            result.append(value.reshape(-1, 1, 1))
        else:
            result.append(gather(value.expand(len(value), *equation.row_shape), rows, axes))
    return result


def agreement_rows(equation: Equation, lifted: Tensor, tiling: Tiling) -> Tensor | None:
    """Differences ``(B, L, K, N)`` of neighbours at the faces between them, each of order 1, or None without faces.

    A row is weighted by the root of one over the number of faces between its two tiles.
    """
    parts = []
    for interface in tiling.interfaces:
        traces = equation.traces(lifted, interface.axis, interface.positions).flatten(3)
        chosen = traces[..., interface.places.to(lifted.device)]  # (B, N, quantities, L)
        signs = torch.zeros(len(interface.low), tiling.count, dtype=lifted.dtype)
        signs.scatter_(1, interface.high[:, None], 1.0).scatter_(1, interface.low[:, None], -1.0)
        signs = (signs * interface.share.sqrt()[:, None]).to(lifted.device)
        quantities = chosen.shape[2]
        values = chosen.permute(0, 2, 3, 1).flatten(1, 2)  # (B, quantities * L, N)
        parts.append(values[:, :, None] * signs.repeat(quantities, 1)[None, :, :, None])
    return torch.cat(parts, 1) if parts else None


def condition_rows(
    equation: Equation, lifted: Tensor, tiling: Tiling, *, everywhere: bool
) -> tuple[Tensor, Tensor] | None:
    """Conditions ``(B, K, L, N)`` and their right-hand sides ``(B, K, L)``, or None.

    ``everywhere``: every tile has to meet all of them, as in PI-HC-MoE; else the tile that owns the row next to each.
    """
    free = equation.conditions(lifted, homogeneous=True)
    known = equation.conditions(equation.offset.unsqueeze(1), homogeneous=False)
    if free is None or known is None:
        return None
    values, places = free
    own = torch.ones(tiling.count, len(places), dtype=lifted.dtype)
    if not everywhere:
        own = (tiling.owner.flatten()[places.cpu()] == torch.arange(tiling.count)[:, None]).to(lifted.dtype)
    own = (own / math.sqrt(len(places))).to(lifted.device)
    rows = own[None, :, :, None] * values.transpose(1, 2)[:, None]
    return rows, -own * known[0][:, :1]


def stacked_rows(blocks: Sequence[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor] | None:
    """Weighted blocks of linear rows ``(P, L, n)`` with right-hand sides (None: zeros), one below another."""
    if not blocks:
        return None
    rows = torch.cat([rows for rows, _ in blocks], 1)
    sides = [rows.new_zeros(rows.shape[:2]) if side is None else side for rows, side in blocks]
    return rows, torch.cat(sides, 1)


def sampled(tiling: Tiling, samples: int | None, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Rows ``(K, M)`` of every tile and whether they count: all of them, or ``samples`` at random from each tile.

    Tiles that have fewer rows take all of theirs.
    """
    if samples is None or samples >= tiling.rows.shape[1]:
        return tiling.rows, tiling.valid
    order = torch.rand(tiling.rows.shape, generator=generator, dtype=torch.float64)
    order = torch.where(tiling.valid, order, 2.0).argsort(1)[:, :samples]
    return tiling.rows.gather(1, order), tiling.valid.gather(1, order)
