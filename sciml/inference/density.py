"""The problem that every method of the room is given: a log likelihood of a vector z with the prior N(0, I).

Another prior is reached by a transport map z -> beta that the caller puts inside the log likelihood (``flow.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sciml.errors import ConfigError

LogDensity = Callable[[Tensor], Tensor]
"""``(n, L) -> (n,)``: row i of the result depends on row i alone. -inf says impossible; NaN counts as such."""


def log_prior(z: Tensor) -> Tensor:
    """log N(z; 0, I) = -|z|^2 / 2 - L / 2 log(2 pi), of ``z (n, L)``: ``(n,)``."""
    return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))


def log_posterior(log_likelihood: LogDensity) -> LogDensity:
    """log likelihood + log prior, i.e. the log posterior but for the log evidence."""

    def log_density(z: Tensor) -> Tensor:
        return evaluate(log_likelihood, z) + log_prior(z)

    return log_density


def evaluate(log_density: LogDensity, z: Tensor) -> Tensor:
    """The values ``(n,)`` at ``z (n, L)``, NaN and +inf turned into -inf.

    Raises ``ConfigError`` when the function does not give one number per row.
    """
    value = log_density(z)
    if not isinstance(value, Tensor) or value.shape != z.shape[:1]:
        given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ConfigError(
            f"The log density gave {given} for vectors {tuple(z.shape)}; expected one number per row, ({len(z)},)."
        )
    return torch.where(value < torch.inf, value, -torch.inf).to(z.dtype)


def value_and_gradient(log_density: LogDensity, z: Tensor) -> tuple[Tensor, Tensor]:
    """Value ``(n,)`` and gradient ``(n, L)`` at ``z (n, L)``, both detached; where the value is -inf the gradient may
    be anything, NaN included.

    Raises ``ConfigError`` when the function does not give one number per row or cannot be differentiated.
    """
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        value = evaluate(log_density, z)
        if not value.requires_grad:
            raise ConfigError(
                "The log density does not depend on its vectors in a way that torch can differentiate; compute it "
                "with torch operations (no .detach(), no torch.no_grad(), no numpy), or sample with sample_pcn."
            )
        (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient


def standard_normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Draws of N(0, 1) of the type and device of ``like``, drawn where the generator lives: one seed gives the same
    numbers for a CPU and a CUDA problem."""
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=generator.device).to(like.device)


def check_vectors(name: str, z: Tensor) -> Tensor:
    """``z`` detached, after refusing anything but at least one finite floating-point vector ``(n, L)``."""
    if not isinstance(z, Tensor) or not z.is_floating_point() or z.ndim != 2 or not z.numel():
        given = f"{z.dtype} {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        raise ConfigError(f"{name} are {given}; expected floating-point vectors (n, L), n and L at least 1.")
    z = z.detach()
    bad = (~torch.isfinite(z).all(1)).nonzero().flatten()
    if len(bad):
        raise ConfigError(
            f"{name}: {len(bad)} of {len(z)} vectors are not finite, the first is number {int(bad[0])}; give finite "
            "ones, e.g. draws of the prior, torch.randn(n, L)."
        )
    return z
