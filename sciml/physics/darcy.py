"""Darcy flow -div(a grad u) = f in a box: cell-centred finite volumes with harmonic face coefficients.

The flux between two cells is q = -2 a_1 a_2 / (a_1 + a_2) (u_2 - u_1) / h (two-point flux with the harmonic mean,
Patankar, Numerical Heat Transfer and Fluid Flow, 1980, 4.2-3): exact where a jumps on a cell face and the flow is one
dimensional. A side with a prescribed value is half a cell away from the first cell and has that cell's coefficient; a
side without flux has q = 0. Fields are ``(B, n_1[, n_2[, n_3]])`` of equal cells, ``lengths (B, dim)`` the sides of
the boxes. All is differentiable in u, a, f, the prescribed values and the lengths.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from sciml.errors import ConfigError
from sciml.physics.boundary import sides

Sides = Mapping[str, Tensor | float | None]
"""Side ("x_low", "x_high", ...) -> the value of u there: a number, ``(B,)`` or ``(B, *cells of the side)``; None: no
flux."""


def check_sides(boundaries: Sides, dim: int) -> None:
    """Raises ``ConfigError`` unless every side is named and at least one has a value."""
    if set(boundaries) != set(sides(dim)):
        raise ConfigError(f"boundaries name the sides {sorted(boundaries)}; expected {sorted(sides(dim))}.")
    if all(value is None for value in boundaries.values()):
        raise ConfigError("No side has a prescribed value, so u is known up to a constant only; prescribe one side.")


def conductances(coefficient: Tensor, lengths: Tensor, boundaries: Sides) -> tuple[Tensor, ...]:
    """Flux per difference of u across each face, normal to each axis: ``(B, ..., n_i + 1, ...)``."""
    faces = []
    for axis, (low, high) in enumerate(_pairs(boundaries, coefficient.ndim - 1)):
        i, n = axis + 1, coefficient.shape[axis + 1]
        below, above = coefficient.narrow(i, 0, n - 1), coefficient.narrow(i, 1, n - 1)
        ends = [
            torch.zeros_like(cell) if value is None else 2 * cell
            for value, cell in ((low, coefficient.narrow(i, 0, 1)), (high, coefficient.narrow(i, n - 1, 1)))
        ]
        faces.append(torch.cat([ends[0], 2 * below * above / (below + above), ends[1]], i) / _spacing(lengths, axis, n))
    return tuple(faces)


def side_values(boundaries: Sides, like: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """Per axis the values on its low and high side, ``(B, ..., 1, ...)``; 0 where there is no flux.

    Raises ``ConfigError`` for a value of another shape.
    """
    pairs = _pairs(boundaries, like.ndim - 1)
    names = sides(like.ndim - 1)
    return tuple(
        tuple(_slab(value, like, axis, names[2 * axis + end]) for end, value in enumerate(pair))
        for axis, pair in enumerate(pairs)
    )


def homogeneous_operator(u: Tensor, faces: tuple[Tensor, ...], lengths: Tensor) -> Tensor:
    """-div(a grad u) with the prescribed values 0: linear in u, symmetric, positive definite."""
    total = torch.zeros(())
    for axis, face in enumerate(faces):
        pad = [0] * (2 * (u.ndim - 2 - axis)) + [1, 1]
        flux = face * F.pad(u, pad).diff(dim=axis + 1)
        total = total - flux.diff(dim=axis + 1) / _spacing(lengths, axis, u.shape[axis + 1])
    return total


def face_fluxes(u: Tensor, coefficient: Tensor, lengths: Tensor, boundaries: Sides) -> tuple[Tensor, ...]:
    """Flux density q = -a du/dx_i through the faces normal to each axis, ``(B, ..., n_i + 1, ...)``."""
    faces, values = conductances(coefficient, lengths, boundaries), side_values(boundaries, u)
    return tuple(
        -face * torch.cat([low, u, high], axis + 1).diff(dim=axis + 1)
        for axis, (face, (low, high)) in enumerate(zip(faces, values, strict=True))
    )


def darcy_operator(u: Tensor, coefficient: Tensor, lengths: Tensor, boundaries: Sides) -> Tensor:
    """-div(a grad u) per volume, ``(B, *grid)``: the net flux out of each cell divided by its volume."""
    total = torch.zeros_like(u)
    for axis, flux in enumerate(face_fluxes(u, coefficient, lengths, boundaries)):
        total = total + flux.diff(dim=axis + 1) / _spacing(lengths, axis, u.shape[axis + 1])
    return total


def darcy_residual(
    u: Tensor, coefficient: Tensor, source: Tensor | float, lengths: Tensor, boundaries: Sides
) -> Tensor:
    """-div(a grad u) - f per volume, ``(B, *grid)``; ``source`` is f, a number, ``(B,)`` or ``(B, *grid)``."""
    source = torch.as_tensor(source, dtype=u.dtype, device=u.device)
    if source.ndim == 1:
        source = source.reshape(-1, *(1,) * (u.ndim - 1))
    return darcy_operator(u, coefficient, lengths, boundaries) - source


def _spacing(lengths: Tensor, axis: int, n: int) -> Tensor:
    return (lengths[:, axis] / n).reshape(-1, *(1,) * lengths.shape[1])


def _pairs(boundaries: Sides, dim: int) -> list[tuple[Tensor | float | None, Tensor | float | None]]:
    names = sides(dim)
    return [(boundaries[names[2 * axis]], boundaries[names[2 * axis + 1]]) for axis in range(dim)]


def _slab(value: Tensor | float | None, like: Tensor, axis: int, side: str) -> Tensor:
    shape = list(like.shape)
    shape[axis + 1] = 1
    if value is None:
        return like.new_zeros(shape)
    value = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    if value.ndim == 1 and len(value) in (1, shape[0]):
        value = value.reshape(-1, *(1,) * (len(shape) - 1))
    elif value.ndim == like.ndim - 1 and value.ndim > 1:
        value = value.unsqueeze(axis + 1)
    try:
        return value.expand(shape)
    except RuntimeError:
        cells = tuple(n for i, n in enumerate(shape) if i != axis + 1)
        raise ConfigError(
            f"The value on {side} has shape {tuple(value.shape)}; expected a number, ({shape[0]},) or {cells}."
        ) from None
