"""Branch and trunk of equal depth, summed over several layers: the network of MultiONet and of DGNO's decoders."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sciml.errors import ConfigError, DataError
from sciml.operators.layers.linear import Linear, linear
from sciml.operators.multionet.activations import find_activation
from sciml.operators.stored import check_positive

SPREAD = 0.1
"""Deviation of the initial weights of the products around 1, where there are several output channels."""


@dataclass(frozen=True)
class Basis:
    """What the trunk is at some points: it does not depend on the features, so one serves a whole batch.

    Attributes:
        values: ``(l, Q, H)``, the outputs of the last l layers at Q points.
        gradients: ``(l, dim, Q, H)``, their derivatives by each coordinate, or None where they were not asked for.

    With points of its own for every sample both have the batch behind the layers: ``(l, B, Q, H)``,
    ``(l, B, dim, Q, H)``.
    """

    values: Tensor
    gradients: Tensor | None = None


class BranchTrunk(nn.Module):
    """``u_c(x) = bias_c + 1 / (l sqrt(H)) sum_layers sum_k w_lck branch_lk(features) trunk_lk(x)``.

    The sum runs over the last l layers of two perceptrons of equal depth and width H, every layer of them activated:
    the network of MultiONet as its authors coded it [Zang et al. 2025, arXiv:2502.06250]. One layer
    (l = 1) is a DeepONet. The weights w start at 1, not at the authors' 0, from where the perceptrons get no gradient
    in the first step; several channels start a little apart.

    The trunk does not see the features. ``trunk`` evaluates it once for a whole batch (or for all steps of an
    inversion), with its derivatives by the coordinates carried through the layers (forward mode), and ``combine`` adds
    the features at the cost of one matrix product.

    Args:
        features: length F of the vector that the branch reads.
        dim: coordinates of a point.
        out_channels: fields C.
        hidden_channels: width H of every layer.
        n_layers: layers of the branch, and of the trunk.
        averaged_layers: how many of the last layers are summed, 1 to ``n_layers``.
        activation: a name in ``ACTIVATIONS``.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(
        self,
        features: int,
        dim: int,
        out_channels: int,
        *,
        hidden_channels: int = 100,
        n_layers: int = 6,
        averaged_layers: int = 5,
        activation: str = "tanh_sin",
    ) -> None:
        super().__init__()
        check_positive(
            "multionet",
            features=features,
            dim=dim,
            out_channels=out_channels,
            hidden_channels=hidden_channels,
            n_layers=n_layers,
            averaged_layers=averaged_layers,
        )
        if averaged_layers > n_layers:
            raise ConfigError(
                f"multionet: averaged_layers is {averaged_layers}, and there are {n_layers} layers; "
                f"expected 1 to {n_layers}"
            )
        self.features, self.dim, self.out_channels = features, dim, out_channels
        self.averaged_layers = averaged_layers
        self.activation = find_activation(activation)
        widths = [hidden_channels] * n_layers
        self.branch_layers = nn.ModuleList(map(Linear, [features, *widths[1:]], widths))
        self.trunk_layers = nn.ModuleList(map(Linear, [dim, *widths[1:]], widths))
        spread = SPREAD if out_channels > 1 else 0.0
        self.weight = nn.Parameter(1 + spread * torch.randn(averaged_layers, out_channels, hidden_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, features: Tensor, points: Tensor) -> Tensor:
        """``features (B, F)``, ``points (Q, dim)`` or ``(B, Q, dim)`` to the fields ``(B, C, Q)``.

        Raises:
            DataError: an argument has another shape.
        """
        return self.combine(self.trunk(points), features)

    def trunk(self, points: Tensor, gradient: bool = False) -> Basis:
        """The trunk at ``points`` ``(Q, dim)`` or ``(B, Q, dim)``, with its derivatives if ``gradient``.

        Both are differentiable with respect to the weights of the trunk (and to the points).

        Raises:
            DataError: the points have another shape.
        """
        if points.ndim not in (2, 3) or points.shape[-1] != self.dim:
            raise DataError(
                f"multionet: points have shape {tuple(points.shape)}; expected (Q, {self.dim}) or (B, Q, {self.dim})"
            )
        skipped = len(self.trunk_layers) - self.averaged_layers
        values, tangents, slopes = points, None, None
        kept, kept_slopes = [], []
        for i, layer in enumerate(self.trunk_layers):
            z = layer(values)
            if gradient:
                # The derivatives of the points by themselves are the unit vectors: the first layer's are its weights.
                slopes = layer.weight.t().unsqueeze(1) if tangents is None else linear(tangents, layer.weight)
                values, slope = self.activation.with_derivative(z)
                tangents = slopes * slope.unsqueeze(-3)
            else:
                values = self.activation.value(z)
            if i >= skipped:
                kept.append(values)
                kept_slopes.append(tangents)
        return Basis(_layers_first(kept), _layers_first(kept_slopes) if gradient else None)

    def combine(self, basis: Basis, features: Tensor) -> Tensor:
        """The fields ``(B, C, Q)`` of ``features (B, F)`` at the points of the basis.

        Raises:
            DataError: the features have another shape, or the basis another batch.
        """
        branch = self._branch(features)
        return _product(branch, basis.values) + self.bias.unsqueeze(1)

    def combine_with_gradient(self, basis: Basis, features: Tensor) -> tuple[Tensor, Tensor]:
        """The fields ``(B, C, Q)`` and their derivatives by the coordinates ``(B, C, Q, dim)``.

        Raises:
            DataError: the features have another shape, or the basis has another batch or no gradients.
        """
        if basis.gradients is None:
            raise DataError("multionet: the basis has no gradients; make it with trunk(points, gradient=True)")
        branch = self._branch(features)
        values = _product(branch, basis.values) + self.bias.unsqueeze(1)
        gradients = _product(branch, basis.gradients.flatten(-3, -2))
        return values, gradients.unflatten(-1, (self.dim, -1)).mT

    def _branch(self, features: Tensor) -> Tensor:
        """Weighted outputs of the branch's last layers ``(B, C, l, H)``, all constant factors included."""
        if features.ndim != 2 or features.shape[1] != self.features:
            raise DataError(f"multionet: features have shape {tuple(features.shape)}; expected (B, {self.features})")
        kept = []
        values = features
        for layer in self.branch_layers:
            values = self.activation.value(layer(values))
            kept.append(values)
        layers = torch.stack(kept[-self.averaged_layers :], 1)
        # 1/sqrt(H): a sum of H independent products of order one stays of order one.
        scale = layers.shape[-1] ** -0.5 / self.averaged_layers
        return layers.unsqueeze(1) * (scale * self.weight.transpose(0, 1))


def _layers_first(layers: list[Tensor]) -> Tensor:
    """``(*, H)`` of each layer to ``(l, *, H)``, stored with the layers beside H, as ``_product`` wants them."""
    return torch.stack(layers, -2).movedim(-2, 0)


def _product(branch: Tensor, trunk: Tensor) -> Tensor:
    """``branch (B, C, l, H)`` times ``trunk (l, Q, H)`` or ``(l, B, Q, H)``, summed over l and H: ``(B, C, Q)``."""
    joined = trunk.movedim(0, -2).flatten(-2)
    if joined.ndim == 2:
        return linear(branch.flatten(0, 1).flatten(1), joined).unflatten(0, branch.shape[:2])
    if len(joined) != len(branch):
        raise DataError(
            f"multionet: there are points for {len(joined)} samples and features for {len(branch)}; expected as many, "
            "or points (Q, dim) for all of them"
        )
    return branch.flatten(2) @ joined.mT
