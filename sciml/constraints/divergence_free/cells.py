"""Projection of a cell-centred velocity onto those that come from divergence-free faces.

The affine space is V = {M f : D f = 0, f = g on the boundary}: M the mean of the two faces of each cell
(``physics.faces_to_centres``), D the divergence of the solver (``physics.divergence``), f the face velocities, g the
prescribed ones; the faces of an outlet are unknowns. Cell-centred data of the solver lie in V exactly, so the
orthogonal projection onto V (in the norm of L2, weighted by the cells) never moves a field away from them.

In the modes of ``axis_modes`` and with g_i = M f_i the constraint is t . g = s at each wavenumber, t_i the symbol of
axis i over its length and s = -D(lift), so the projection is g = u - t (t . u - s) / |t|^2: Leray's projection with
another symbol. What does not depend on u is the lift: faces with the prescribed values, zero inside.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.constraints.divergence_free.axis_modes import AxisModes, axis_modes
from sciml.constraints.divergence_free.prescribed import Faces, Prescribed
from sciml.physics import divergence, faces_to_centres


class CellProjection:
    """Onto V for one grid and its boundary values, in float64 whatever the type of the fields: the mean of two faces
    hides errors of the faces (up to the number of cells times round-off), which float32 would show as divergence.

    ``lifted``: the mean of the lift, ``(B, dim, *grid)``; None without inlets.
    """

    def __init__(self, prescribed: Prescribed) -> None:
        self.prescribed = prescribed
        grid, device = prescribed.grid, prescribed.device
        self.dim = grid.dim
        self.modes: tuple[AxisModes, ...] = tuple(
            axis_modes(axis, ends, device) for axis, ends in zip(grid.axes, prescribed.open_ends, strict=True)
        )
        lengths = grid.lengths.to(device=device, dtype=torch.float64).reshape(-1, grid.dim, *(1,) * grid.dim)
        self._symbol = [self._spread(mode.symbol, k) / lengths[:, k] for k, mode in self._numbered()]
        self._hidden = {
            k: self._spread(mode.hidden_symbol, k) / lengths[:, k]
            for k, mode in self._numbered()
            if mode.hidden is not None
        }
        square = sum(t.square() for t in self._symbol)
        bound = square > 0  # nothing is asked of the constant
        for hidden in self._hidden.values():  # nor where hidden faces take any divergence
            bound = bound & (hidden == 0)
        self._inverse_square = torch.where(bound, 1 / torch.where(bound, square, 1.0), 0.0)
        self.lifted: Tensor | None = None
        self._source: Tensor | None = None
        if prescribed.values.has_inlet:
            self.lifted = faces_to_centres(prescribed.lift, prescribed.metrics)
            self._source = -self._product(
                divergence(prescribed.lift, prescribed.metrics), [m.scalar_forward for m in self.modes]
            )

    def project(self, u: Tensor) -> Tensor:
        """The nearest velocity of V, ``(B, dim, *grid)``; with ``u (B, dim, *grid)`` in float64."""
        return self.plus_lift(self._cells(self._coefficients(self.less_lift(u), self._source)))

    def project_change(self, u: Tensor) -> Tensor:
        """The orthogonal projection onto the directions of V: D f = 0, f = 0 on the boundary."""
        return self._cells(self._coefficients(u, None))

    def less_lift(self, u: Tensor) -> Tensor:
        """A velocity whose faces have the prescribed values becomes one whose faces are zero there."""
        return u if self.lifted is None else u - self.lifted

    def plus_lift(self, u: Tensor) -> Tensor:
        """The inverse of ``less_lift``."""
        return u if self.lifted is None else u + self.lifted

    def faces(self, u: Tensor) -> Faces:
        """The faces f of the velocity of V nearest to u."""
        parts = self._coefficients(self.less_lift(u), self._source)
        result = []
        hidden = self._hidden_amplitudes(parts) if self._hidden else {}
        for i, (mode, g) in enumerate(zip(self.modes, parts, strict=True)):
            f = self._product(g, [m.faces if k == i else m.scalar_inverse for k, m in self._numbered()])
            if mode.hidden is not None:
                matrices = [mode.hidden[:, None] if k == i else m.scalar_inverse for k, m in self._numbered()]
                f = f + self._product(hidden[i], matrices)
            result.append(f)
        return self.prescribed.impose(tuple(result))

    def _hidden_amplitudes(self, parts: list[Tensor]) -> dict[int, Tensor]:
        """Of the hidden faces of each axis, with extent 1 along it: the least that make the divergence vanish."""
        rest = self._excess(parts, self._source)
        square = sum(h.square() for h in self._hidden.values())
        rest = rest / torch.where(square == 0, 1.0, square)
        return {i: (-h * rest).narrow(i + 1, rest.shape[i + 1] - 1, 1) for i, h in self._hidden.items()}

    def _coefficients(self, u: Tensor, source: Tensor | None) -> list[Tensor]:
        """Coefficients of the projection of u, with D f = source."""
        parts = [
            self._product(u[:, i], [m.normal_forward if k == i else m.scalar_forward for k, m in self._numbered()])
            for i in range(self.dim)
        ]
        potential = self._excess(parts, source) * self._inverse_square
        return [torch.addcmul(part, t, potential, value=-1) for t, part in zip(self._symbol, parts, strict=True)]

    def _excess(self, parts: list[Tensor], source: Tensor | None) -> Tensor:
        """t . g - s."""
        excess = sum(t * g for t, g in zip(self._symbol, parts, strict=True))
        return excess if source is None else excess - source

    def _cells(self, parts: list[Tensor]) -> Tensor:
        return torch.stack(
            [
                self._product(g, [m.normal_inverse if k == i else m.scalar_inverse for k, m in self._numbered()])
                for i, g in enumerate(parts)
            ],
            1,
        )

    def _numbered(self) -> list[tuple[int, AxisModes]]:
        return list(enumerate(self.modes))

    def _spread(self, values: Tensor, axis: int) -> Tensor:
        return values.reshape(1, *(-1 if k == axis else 1 for k in range(self.dim)))

    @staticmethod
    def _product(values: Tensor, matrices: list[Tensor]) -> Tensor:
        """Multiply every axis of ``values (B, *n)`` by its matrix ``(m, n)``."""
        values = values @ matrices[-1].T
        for k, matrix in enumerate(matrices[:-1]):
            shape = values.shape
            flat = values.reshape(-1, shape[k + 1], shape[k + 2 :].numel())
            flat = torch.bmm(matrix.expand(flat.shape[0], *matrix.shape), flat)
            values = flat.reshape(*shape[: k + 1], matrix.shape[0], *shape[k + 2 :])
        return values
