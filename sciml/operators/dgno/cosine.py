"""A decoder on a fixed basis: products of cosines on the box, whose coefficients a perceptron gives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sciml.errors import ConfigError, DataError
from sciml.operators.dgno.encoder import perceptron_encoder
from sciml.operators.multionet.core import Basis
from sciml.operators.stored import check_positive


class CosineDecoder(nn.Module):
    """``u_c(x) = sum_m b_cm(features) w_m prod_i cos(pi m_i (x_i + 1) / 2)``, x in (-1, 1)^dim, ``0 <= m_i < modes``.

    A DeepONet whose trunk is known, with the interface of ``BranchTrunk``. The cosines are complete on the box,
    whatever the values on its sides, and all of a field's detail is there from the first step, which a trunk has to
    learn first.
    ``w_m = (1 + |m|)^-decay`` makes the coefficients of smooth fields alike in size.

    Args:
        features: length F of the vector that the branch reads.
        dim: coordinates of a point.
        out_channels: fields C.
        modes: cosines of each axis, one number or one an axis.
        decay: 0 for fields that jump, 1 for smooth ones.
        hidden_channels, n_layers: width and number of the branch's hidden layers.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(
        self,
        features: int,
        dim: int,
        out_channels: int,
        *,
        modes: int | Sequence[int] = 12,
        decay: float = 1.0,
        hidden_channels: int = 256,
        n_layers: int = 2,
    ) -> None:
        super().__init__()
        self.modes = (modes,) * dim if isinstance(modes, int) else tuple(modes)
        if len(self.modes) != dim:
            raise ConfigError(f"dgno: modes is {modes}; expected a number, or one for each of {dim} axes")
        check_positive(
            "dgno",
            features=features,
            dim=dim,
            out_channels=out_channels,
            **{f"modes[{axis}]": n for axis, n in enumerate(self.modes)},
            hidden_channels=hidden_channels,
            n_layers=n_layers,
        )
        self.features, self.dim, self.out_channels = features, dim, out_channels
        self.branch = perceptron_encoder(features, [hidden_channels] * n_layers, out_channels * math.prod(self.modes))
        numbers = torch.tensor(list(itertools.product(*map(range, self.modes))), dtype=torch.float32)
        self.register_buffer("weight", (1 + numbers.norm(dim=1)) ** -decay, persistent=False)

    weight: Tensor

    def forward(self, features: Tensor, points: Tensor) -> Tensor:
        """``features (B, F)``, ``points (Q, dim)`` to the fields ``(B, C, Q)``."""
        return self.combine(self.trunk(points), features)

    def trunk(self, points: Tensor, gradient: bool = False) -> Basis:
        """The weighted cosines at ``points (Q, dim)``, ``(1, Q, M)``, with their derivatives if ``gradient``.

        Raises:
            DataError: the points have another shape.
        """
        if points.ndim != 2 or points.shape[1] != self.dim:
            raise DataError(f"dgno: points have shape {tuple(points.shape)}; expected (Q, {self.dim})")
        waves, slopes = [], []
        for place, modes in zip(points.unbind(1), self.modes, strict=True):
            rate = (math.pi / 2) * torch.arange(modes, dtype=points.dtype, device=points.device)
            angle = (place.unsqueeze(1) + 1) * rate
            waves.append(angle.cos())
            slopes.append(-rate * angle.sin())
        values = _products(waves) * self.weight
        if not gradient:
            return Basis(values.unsqueeze(0))
        gradients = [_products([*waves[:axis], slopes[axis], *waves[axis + 1 :]]) for axis in range(self.dim)]
        return Basis(values.unsqueeze(0), (torch.stack(gradients) * self.weight).unsqueeze(0))

    def combine(self, basis: Basis, features: Tensor) -> Tensor:
        """The fields ``(B, C, Q)`` of ``features (B, F)`` at the points of the basis."""
        return self._coefficients(features) @ basis.values[0].T

    def combine_with_gradient(self, basis: Basis, features: Tensor) -> tuple[Tensor, Tensor]:
        """The fields ``(B, C, Q)`` and their derivatives by the coordinates ``(B, C, Q, dim)``.

        Raises:
            DataError: the basis has no gradients.
        """
        if basis.gradients is None:
            raise DataError("dgno: the basis has no gradients; make it with trunk(points, gradient=True)")
        coefficients = self._coefficients(features)
        slopes = [coefficients @ gradient.T for gradient in basis.gradients[0]]
        return coefficients @ basis.values[0].T, torch.stack(slopes, -1)

    def _coefficients(self, features: Tensor) -> Tensor:
        return self.branch(features).unflatten(1, (self.out_channels, -1))


def _products(factors: list[Tensor]) -> Tensor:
    """Tensor product ``(Q, M)`` of ``(Q, modes)`` of each axis."""
    whole = factors[0]
    for factor in factors[1:]:
        whole = (whole.unsqueeze(-1) * factor.unsqueeze(1)).flatten(1)
    return whole
