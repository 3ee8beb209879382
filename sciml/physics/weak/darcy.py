"""Weak forms of Darcy flow -div(a grad u) = f: primal, and mixed with the flux as a field of its own.

Primal: int a grad u . grad v - f v = 0. Mixed: s = a grad u at every point and int s . grad v - f v = 0, in which a is
not differentiated and not multiplied by a gradient that jumps where a does. The coefficient of the forms is a at the
points of the space, ``(B, Q)`` (``HatSpace.at_points`` for one number a cell).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.errors import DataError
from sciml.physics.weak.fields import Fields
from sciml.physics.weak.space import FunctionSpace
from sciml.physics.weak.weak_form import WeakForm


def darcy_form(space: FunctionSpace, source: Tensor | float) -> WeakForm:
    """int a grad u . grad v - f v = 0 of the field u ``(B, 1, Q)``; ``source``: f, a number, ``(Q,)`` or ``(B, Q)``."""
    return WeakForm(
        space,
        flux=lambda x, value, gradient, a: a.unsqueeze(-1) * gradient[:, 0],
        source=lambda x, value, gradient, a: _minus(source, value),
    )


def darcy_balance_form(space: FunctionSpace, source: Tensor | float) -> WeakForm:
    """int s . grad v - f v = 0 of the fields u, s_1, ..., s_d ``(B, 1 + d, Q)``: what flows in flows out."""
    return WeakForm(
        space,
        flux=lambda x, value, gradient, a: value[:, 1:].transpose(1, 2),
        source=lambda x, value, gradient, a: _minus(source, value),
    )


def darcy_flux_mismatch(space: FunctionSpace, fields: Fields, coefficient: Tensor) -> Tensor:
    """int |s - a grad u|^2 / a ``(B,)`` of the fields u, s_1, ..., s_d: the law of Darcy in the energy norm.

    With the balance exact it is the square of the energy errors of u and s together (Prager and Synge, Quart. Appl.
    Math. 5 (1947) 241). Raises ``DataError`` for another number of fields.
    """
    n_fields, dim = fields.gradient.shape[1], fields.gradient.shape[3]
    if n_fields != 1 + dim:
        raise DataError(f"the mixed form has {n_fields} fields; expected {1 + dim}: u and the {dim} components of s")
    difference = fields.value[:, 1:].transpose(1, 2) - coefficient.unsqueeze(-1) * fields.gradient[:, 0]
    return (difference.square().sum(-1) / coefficient) @ space.weights


def _minus(source: Tensor | float, like: Tensor) -> Tensor:
    """-f as ``(Q,)`` or ``(B, Q)``."""
    negative = -torch.as_tensor(source, dtype=like.dtype, device=like.device)
    return negative.expand(like.shape[-1]) if negative.ndim == 0 else negative
