"""The Gray-Scott reaction-diffusion equations on a periodic box, pseudo-spectral: right-hand side and residual.

    A_t = d_A lap A - A B^2 + f (1 - A)
    B_t = d_B lap B + A B^2 - (f + k) B

A is fed at the rate f, B is removed at the rate f + k, and the autocatalysis A + 2 B -> 3 B has the rate constant 1/s
(J. E. Pearson, Science 261 (1993) 189). One to three dimensions, batched over cases, differentiable in every tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.errors import DataError
from sciml.physics.spectral import PeriodicBox


def gray_scott_symbol(
    box: PeriodicBox, feed: Tensor, kill: Tensor, diffusivity_a: Tensor, diffusivity_b: Tensor
) -> Tensor:
    """Symbol ``(B, 2, *k)`` of the linear part: -d_A k^2 - f and -d_B k^2 - (f + k). The parameters are ``(B,)``."""
    diffusivity = torch.stack([diffusivity_a, diffusivity_b], 1)
    decay = torch.stack([feed, feed + kill], 1)
    columns = (-1, 2, *(1,) * box.dim)
    return diffusivity.to(box.laplacian).reshape(columns) * box.laplacian - decay.to(box.laplacian).reshape(columns)


def gray_scott_reaction(box: PeriodicBox, spectrum: Tensor, feed: Tensor) -> Tensor:
    """Spectrum ``(B, 2, *k)`` of (f - A B^2, A B^2), cut off by the 2/3 rule.

    The rule removes the aliasing errors of quadratic terms; of this cubic one it leaves those of the highest sixth of
    the modes, which a resolved solution does not fill.
    """
    a, b = box.inverse(spectrum * box.dealias).unbind(1)
    growth = a * b * b
    source = feed.to(growth).reshape(-1, *(1,) * box.dim) - growth
    return box.forward(torch.stack([source, growth], 1)) * box.dealias


def gray_scott_rhs(
    species: Tensor, length: Tensor, feed: Tensor, kill: Tensor, diffusivity_a: Tensor, diffusivity_b: Tensor
) -> Tensor:
    """Rates of change ``(B, 2, *grid)`` in 1/s of the species A and B, ``(B, 2, *grid)``.

    ``length (B,)`` is the side of the cubic box, the other parameters are ``(B,)``. Raises ``DataError`` for species of
    another shape.
    """
    if species.ndim < 3 or species.shape[1] != 2:
        raise DataError(f"species has shape {tuple(species.shape)}; expected (cases, 2, *grid)")
    dim = species.ndim - 2
    box = PeriodicBox(
        species.shape[2:], length.reshape(-1, 1).expand(-1, dim), dtype=species.dtype, device=species.device
    )
    spectrum = box.forward(species)
    linear = gray_scott_symbol(box, feed, kill, diffusivity_a, diffusivity_b) * spectrum
    return box.inverse(linear + gray_scott_reaction(box, spectrum, feed))


def gray_scott_residual(
    before: Tensor,
    after: Tensor,
    dt: Tensor,
    length: Tensor,
    feed: Tensor,
    kill: Tensor,
    diffusivity_a: Tensor,
    diffusivity_b: Tensor,
) -> Tensor:
    """Residual between two states ``(B, 2, *grid)``, trapezoidal in time:

        (s_1 - s_0) / dt - (R(s_0) + R(s_1)) / 2,    R = ``gray_scott_rhs``

    ``dt (B,)``. Returns ``(B, 2, *grid)`` in 1/s: O(dt^2) for a resolved solution. Raises as ``gray_scott_rhs``.
    """
    step = dt.to(before).reshape(-1, *(1,) * (before.ndim - 1))
    parameters = (length, feed, kill, diffusivity_a, diffusivity_b)
    mean = 0.5 * sum(gray_scott_rhs(state, *parameters) for state in (before, after))
    return (after - before) / step - mean
