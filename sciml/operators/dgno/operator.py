"""Deep generative neural operator: one latent vector generates the input function and the solution."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError, did_you_mean
from sciml.operators.dgno.cosine import CosineDecoder
from sciml.operators.dgno.encoder import convolution_encoder, perceptron_encoder
from sciml.operators.multionet.core import Basis, BranchTrunk
from sciml.operators.stored import Stored, check_positive

LEAST_LOG_STD, MOST_LOG_STD = -8.0, 2.0
"""Of the latent vector given an input function."""


class LatentNormal(NamedTuple):
    """A normal distribution of latent vectors with independent components: ``mean``, ``log_std`` ``(B, L)``."""

    mean: Tensor
    log_std: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One vector of each, ``(B, L)``, differentiable in mean and deviation."""
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)
        return self.mean + self.log_std.exp() * noise.to(self.mean.device)

    def divergence(self) -> Tensor:
        """Kullback-Leibler divergence from the standard normal distribution ``(B,)``, nats."""
        return 0.5 * (self.mean.square() + (2 * self.log_std).exp() - 2 * self.log_std - 1).sum(1)


class DGNO(Stored):
    """Deep generative neural operator (Zang and Koutsourelakis, arXiv:2502.06250, J. Comput. Phys. 538 (2025) 114137).

    An encoder reads the input function a at fixed points and gives the latent vector beta, a normal distribution
    (``variational``) or a vector (then ``log_std`` is at its lower bound); two decoders give a(x; beta) at the input
    function's coordinates and the C fields u(x; beta) at the solution's. The published code has
    point estimates only.

    All numbers are normalised: what is encoded and decoded has mean 0 and deviation 1, points are mapped from the
    box ``low``, ``high`` to (-1, 1).

    Args:
        n_inputs: points P at which the input function is read.
        out_channels: solution fields C.
        low, high: box of the solution's coordinates.
        input_low, input_high: of the input function's; default: the same.
        input_shape: grid of the P points, for ``encoder="convolution"``.
        latent: length L of the latent vector.
        encoder: ``"perceptron"`` or ``"convolution"``.
        encoder_channels: widths of its layers.
        decoder: ``"cosine"`` (``CosineDecoder``) or ``"multionet"`` (``BranchTrunk``, as published), for the solution.
        coefficient_decoder: the same for the input function.
        decoder_options, coefficient_options: arguments of the two (``modes``, ``hidden_channels``, ``n_layers``, ...).

    Shapes: ``encode(x (B, P))``, ``coefficient(beta (B, L), points (Q, d_in)) -> (B, Q)``,
    ``solution(beta, points (Q, d)) -> (B, C, Q)``.

    Raises:
        ConfigError: an argument is out of range.
        DataError: an input has another shape.
    """

    name: ClassVar[str] = "dgno"

    @classmethod
    def family(cls) -> Mapping[str, type[Stored]]:
        from sciml.operators import LATENT_OPERATORS  # the registry imports this module

        return LATENT_OPERATORS

    def __init__(
        self,
        n_inputs: int,
        out_channels: int,
        *,
        low: Sequence[float],
        high: Sequence[float],
        input_low: Sequence[float] | None = None,
        input_high: Sequence[float] | None = None,
        input_shape: Sequence[int] | None = None,
        latent: int = 128,
        variational: bool = True,
        encoder: str = "perceptron",
        encoder_channels: Sequence[int] = (512, 256),
        decoder: str = "cosine",
        coefficient_decoder: str = "cosine",
        decoder_options: Mapping[str, Any] | None = None,
        coefficient_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_positive("dgno", n_inputs=n_inputs, out_channels=out_channels, latent=latent)
        input_low, input_high = input_low or low, input_high or high
        for bottom, top in ((low, high), (input_low, input_high)):
            if len(bottom) != len(top) or not all(a < b for a, b in zip(bottom, top, strict=True)):
                raise ConfigError(f"dgno: the box from {bottom} to {top} is empty; expected low < high on every axis")
        self.n_inputs, self.latent, self.variational, self.out_channels = n_inputs, latent, variational, out_channels
        outputs = (2 if variational else 1) * latent
        if encoder == "perceptron":
            self.encoder = perceptron_encoder(n_inputs, encoder_channels, outputs)
        elif encoder == "convolution":
            self.encoder = convolution_encoder(input_shape or (), encoder_channels, outputs)
        else:
            raise ConfigError(f"dgno: encoder is {encoder!r}; expected 'perceptron' or 'convolution'")
        self.coefficient_decoder = _decoder(coefficient_decoder, latent, len(input_low), 1, coefficient_options)
        self.solution_decoder = _decoder(decoder, latent, len(low), out_channels, decoder_options)
        for name, bottom, top in (("solution", low, high), ("input", input_low, input_high)):
            ends = torch.tensor([list(bottom), list(top)], dtype=torch.float64)
            self.register_buffer(f"{name}_centre", ends.mean(0).float())
            self.register_buffer(f"{name}_half", ((ends[1] - ends[0]) / 2).float())

    solution_centre: Tensor
    solution_half: Tensor
    input_centre: Tensor
    input_half: Tensor

    def encode(self, x: Tensor) -> LatentNormal:
        """The latent vector of normalised input functions ``(B, P)``."""
        if x.ndim != 2 or x.shape[1] != self.n_inputs:
            raise DataError(f"dgno: the input function has shape {tuple(x.shape)}; expected (B, {self.n_inputs})")
        found = self.encoder(x)
        if not self.variational:
            return LatentNormal(found, torch.full_like(found, LEAST_LOG_STD))
        mean, log_std = found.chunk(2, 1)
        return LatentNormal(mean, log_std.clamp(LEAST_LOG_STD, MOST_LOG_STD))

    def coefficient(self, latent: Tensor, points: Tensor) -> Tensor:
        """The normalised input function ``(B, Q)`` at ``points (Q, d_in)``."""
        return self.coefficient_decoder(latent, (points - self.input_centre) / self.input_half)[:, 0]

    def solution(self, latent: Tensor, points: Tensor) -> Tensor:
        """The solution fields ``(B, C, Q)`` at ``points (Q, d)``, before any ansatz."""
        return self.solution_decoder.combine(self.basis(points), latent)

    def solution_with_gradient(self, latent: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """The solution fields ``(B, C, Q)`` and their derivatives by the coordinates ``(B, C, Q, d)``."""
        value, gradient = self.solution_decoder.combine_with_gradient(self.basis(points, gradient=True), latent)
        return value, gradient / self.solution_half

    def basis(self, points: Tensor, gradient: bool = False) -> Basis:
        """The solution decoder's trunk at ``points``: one for any number of latent vectors."""
        return self.solution_decoder.trunk((points - self.solution_centre) / self.solution_half, gradient)

    def coefficient_basis(self, points: Tensor) -> Basis:
        """The coefficient decoder's trunk at ``points``."""
        return self.coefficient_decoder.trunk((points - self.input_centre) / self.input_half)


DECODERS: dict[str, type[BranchTrunk] | type[CosineDecoder]] = {"cosine": CosineDecoder, "multionet": BranchTrunk}


def _decoder(
    name: str, latent: int, dim: int, channels: int, options: Mapping[str, Any] | None
) -> BranchTrunk | CosineDecoder:
    """Raises ``ConfigError`` for an unknown name or option."""
    if name not in DECODERS:
        raise ConfigError(
            f"dgno: unknown decoder {name!r}{did_you_mean(name, DECODERS)}; there are {', '.join(DECODERS)}"
        )
    known = [
        key for key, each in inspect.signature(DECODERS[name]).parameters.items() if each.kind is each.KEYWORD_ONLY
    ]
    for key in options or {}:
        if key not in known:
            raise ConfigError(f"dgno: decoder {name!r} has no option {key!r}{did_you_mean(key, known)}")
    return DECODERS[name](latent, dim, channels, **(options or {}))
