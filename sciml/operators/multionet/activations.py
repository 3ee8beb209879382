"""Pointwise activations with their derivatives in closed form, for derivatives that are carried forward."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sciml.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Activation:
    """``value(z)`` is f(z); ``with_derivative(z)`` is (f(z), f'(z)), which share what they have in common."""

    value: Callable[[Tensor], Tensor]
    with_derivative: Callable[[Tensor], tuple[Tensor, Tensor]]


def tanh_sin(z: Tensor) -> Tensor:
    """tanh(sin(pi (z + 1))) + z, written as z - tanh(sin(pi z))."""
    return z - torch.tanh(torch.sin(math.pi * z))


def tanh_sin_with_derivative(z: Tensor) -> tuple[Tensor, Tensor]:
    """f' = 1 - pi cos(pi z) (1 - tanh^2(sin(pi z)))."""
    phase = math.pi * z
    t = torch.tanh(torch.sin(phase))
    return z - t, 1 + math.pi * torch.cos(phase) * (t.square() - 1)


def silu_sin(z: Tensor) -> Tensor:
    """SiLU(sin(pi (z + 1))) + z, where sin(pi (z + 1)) = -sin(pi z)."""
    return F.silu(-torch.sin(math.pi * z)) + z


def silu_sin_with_derivative(z: Tensor) -> tuple[Tensor, Tensor]:
    """f' = 1 - pi cos(pi z) SiLU'(-sin(pi z))."""
    phase = math.pi * z
    value, slope = silu_with_derivative(-torch.sin(phase))
    return value + z, 1 - math.pi * torch.cos(phase) * slope


def silu_id(z: Tensor) -> Tensor:
    """SiLU(z) + z."""
    return F.silu(z) + z


def silu_id_with_derivative(z: Tensor) -> tuple[Tensor, Tensor]:
    """f' = SiLU'(z) + 1."""
    value, slope = silu_with_derivative(z)
    return value + z, slope + 1


def silu_with_derivative(z: Tensor) -> tuple[Tensor, Tensor]:
    """f = z s(z), f' = s + f (1 - s), with s the logistic function."""
    s = torch.sigmoid(z)
    value = z * s
    return value, s + value * (1 - s)


def gelu_with_derivative(z: Tensor) -> tuple[Tensor, Tensor]:
    """f = z Phi(z), f' = Phi(z) + z phi(z), with Phi and phi the normal distribution and its density."""
    below = 0.5 * (1 + torch.erf(z * 0.5**0.5))
    density = torch.exp(-0.5 * z.square()) * (2 * math.pi) ** -0.5
    return z * below, below + z * density


def tanh_with_derivative(z: Tensor) -> tuple[Tensor, Tensor]:
    """f' = 1 - f^2."""
    value = torch.tanh(z)
    return value, 1 - value.square()


ACTIVATIONS = {
    "tanh_sin": Activation(tanh_sin, tanh_sin_with_derivative),
    "silu_sin": Activation(silu_sin, silu_sin_with_derivative),
    "silu_id": Activation(silu_id, silu_id_with_derivative),
    "gelu": Activation(F.gelu, gelu_with_derivative),
    "silu": Activation(F.silu, silu_with_derivative),
    "tanh": Activation(torch.tanh, tanh_with_derivative),
}


def find_activation(name: str) -> Activation:
    """The activation of that name.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ConfigError(f"unknown activation {name!r}{did_you_mean(str(name), ACTIVATIONS)}; expected one of {known}")
    return ACTIVATIONS[name]
