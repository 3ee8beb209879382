"""Weak form of Stokes flow -mu lap u + grad p = f, div u = 0, for the fields u_1, ..., u_d, p.

Momentum: int (mu grad u_i - p e_i) . grad v - f_i v = 0 for each component i; the natural condition is that of an
outlet, mu du/dn = p n. Mass: int (div u)^2. The velocity errors in H1 and the pressure error over mu in L2 are bounded
by the momentum residual over mu in the dual norm and the divergence in L2 (the inf-sup condition; Boffi, Brezzi and
Fortin, Mixed Finite Element Methods, 2013, section 8.2), so the natural sum is momentum^2 + (mu divergence)^2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError
from sciml.physics.weak.fields import Fields
from sciml.physics.weak.space import FunctionSpace
from sciml.physics.weak.weak_form import WeakForm


def stokes_form(space: FunctionSpace, viscosity: float, force: Sequence[Tensor | float] | None = None) -> WeakForm:
    """The momentum equations, one per component. ``viscosity``: mu in Pa s; ``force``: f_i, each a number, ``(Q,)`` or
    ``(B, Q)``, in N/m^3. Raises ``ConfigError`` for a viscosity that is not positive or another number of forces."""
    if not viscosity > 0:
        raise ConfigError(f"the viscosity is {viscosity}; expected a positive number")
    if force is not None and len(force) != space.dim:
        raise ConfigError(f"the force has {len(force)} components; expected {space.dim}")

    def flux(points: Tensor, value: Tensor, gradient: Tensor, _: object) -> list[Tensor]:
        _check_fields(gradient)
        pressure = value[:, space.dim, :, None]
        unit = torch.eye(space.dim, dtype=value.dtype, device=value.device)
        return [viscosity * gradient[:, i] - pressure * unit[i] for i in range(space.dim)]

    def source(points: Tensor, value: Tensor, gradient: Tensor, _: object) -> list[Tensor]:
        terms = [-torch.as_tensor(f, dtype=value.dtype, device=value.device) for f in force or ()]
        return [term.expand(value.shape[-1]) if term.ndim == 0 else term for term in terms]

    return WeakForm(space, flux=flux, source=None if force is None else source)


def divergence_square(space: FunctionSpace, fields: Fields) -> Tensor:
    """int (div u)^2 ``(B,)`` of the velocity u_1, ..., u_d, which comes first among the fields. Raises ``DataError``
    for fewer fields than dimensions."""
    _check_fields(fields.gradient, pressure=False)
    divergence = torch.stack([fields.gradient[:, i, :, i] for i in range(space.dim)]).sum(0)
    return divergence.square() @ space.weights


def _check_fields(gradient: Tensor, *, pressure: bool = True) -> None:
    dim = gradient.shape[3]
    if gradient.shape[1] < dim + int(pressure):
        also = " and the pressure" if pressure else ""
        raise DataError(f"there are {gradient.shape[1]} field(s); expected the {dim} components of velocity{also}")
