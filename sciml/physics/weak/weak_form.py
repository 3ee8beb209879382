"""A weak form of the user's own equation: residuals against every test function, and their dual norm.

    find u:  int F(x, u, grad u, a) . grad v + G(x, u, grad u, a) v dx = 0   for all test functions v

which is -div F + G = 0 with F . n = 0 on the sides where test functions do not vanish. E.g. -div(a grad u) = f:

    form = WeakForm(space, flux=lambda x, u, du, a: a.unsqueeze(-1) * du[:, 0], source=lambda x, u, du, a: -f(x))
    loss = form.square(fields, a).mean()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError
from sciml.physics.weak.fields import Fields
from sciml.physics.weak.space import FunctionSpace

# of one equation a tensor, of several one each; None: the equation has no such term
Terms: TypeAlias = Tensor | Sequence[Tensor | None]
PointFunction: TypeAlias = Callable[[Tensor, Tensor, Tensor, Any], Terms]


@dataclass(frozen=True)
class WeakForm:
    """``flux`` and ``source``: F and G, or None, as functions of points ``(Q, d)``, value ``(B, C, Q)``, gradient
    ``(B, C, Q, d)`` and the coefficient (whatever the form is given).

    They return ``(B, Q, space.dim)`` and ``(B, Q)``, or a tuple or list of them, one per equation (None where an
    equation has no such term). A batch of 1 and shapes without a batch, ``(Q, dim)`` and ``(Q,)``, stand for every
    case. Raises ``ConfigError`` for a form without terms, or with more fluxes than sources or fewer, ``DataError`` for
    fields and terms of a wrong shape.
    """

    space: FunctionSpace
    flux: PointFunction | None = None
    source: PointFunction | None = None

    def __post_init__(self) -> None:
        if self.flux is None and self.source is None:
            raise ConfigError("a weak form has neither flux nor source; give one function at least")

    def residual(self, fields: Fields, coefficient: Any = None) -> Tensor:
        """r ``(B, equations, J)``: the form with every test function."""
        points, batch = self.space.points, fields.value.shape[0]
        if fields.value.shape[2] != len(points) or fields.gradient.shape[3] != points.shape[1]:
            raise DataError(
                f"the fields have a gradient of shape {tuple(fields.gradient.shape)}; expected (B, C, "
                f"{len(points)}, {points.shape[1]}), at the points of the space"
            )
        fluxes, sources = (
            None if function is None else _listed(function(points, fields.value, fields.gradient, coefficient))
            for function in (self.flux, self.source)
        )
        n_equations = len(sources if fluxes is None else fluxes)
        fluxes = [None] * n_equations if fluxes is None else fluxes
        sources = [None] * n_equations if sources is None else sources
        if len(fluxes) != len(sources):
            raise ConfigError(
                f"flux returns {len(fluxes)} equation(s) and source {len(sources)}; return one each per equation, "
                "None where an equation has no such term"
            )
        shapes = (batch, len(points), self.space.dim), (batch, len(points))
        residuals = [
            self._tested(_checked("flux", flux, shapes[0]), _checked("source", source, shapes[1]))
            for flux, source in zip(fluxes, sources, strict=True)
        ]
        return torch.stack([each.expand(batch, -1) for each in residuals], 1)

    def _tested(self, flux: Tensor | None, source: Tensor | None) -> Tensor:
        if flux is None or source is None or len(flux) == len(source):
            return self.space.test(flux, source)
        # What is the same for every case is tested once.
        return self.space.test(flux, None) + self.space.test(None, source)

    def square(self, fields: Fields, coefficient: Any = None) -> Tensor:
        """Square of the dual norm of the residual ``(B,)``, summed over the equations."""
        residual = self.residual(fields, coefficient)
        return self.space.dual_square(residual.flatten(0, 1)).reshape(residual.shape[:2]).sum(1)


def _listed(terms: Terms) -> list[Tensor | None]:
    return [terms] if isinstance(terms, Tensor) else list(terms)


def _checked(name: str, term: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
    """A term with its batch: that of the fields, or 1."""
    if term is None:
        return None
    if term.ndim < len(shape) - 1 or tuple(term.shape) not in {shape, (1, *shape[1:]), shape[1:]}:
        raise DataError(f"{name} returns a tensor of shape {tuple(term.shape)}; expected {shape}")
    return term.unsqueeze(0) if term.ndim < len(shape) else term
