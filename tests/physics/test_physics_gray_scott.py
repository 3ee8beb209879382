"""The Gray-Scott operators: reaction, diffusion, budgets of the means, residual."""

import math

import pytest
import torch

from sciml.errors import DataError
from sciml.physics import gray_scott_residual, gray_scott_rhs

LENGTH = torch.tensor([1.0, 2.0], dtype=torch.float64)
FEED = torch.tensor([0.03, 0.05], dtype=torch.float64)
KILL = torch.tensor([0.06, 0.02], dtype=torch.float64)
DIFFUSIVITY_A = torch.tensor([2e-3, 1e-3], dtype=torch.float64)
DIFFUSIVITY_B = torch.tensor([1e-3, 3e-3], dtype=torch.float64)
PARAMETERS = (LENGTH, FEED, KILL, DIFFUSIVITY_A, DIFFUSIVITY_B)


def smooth(dim, n=16):
    """A few modes that the 2/3 rule keeps, also after the cubic reaction (n >= 10)."""
    x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    field = torch.ones(2, 2, *(n,) * dim, dtype=torch.float64) * torch.tensor([0.6, 0.3]).reshape(1, 2, *(1,) * dim)
    for axis in range(dim):
        wave = torch.cos(2 * math.pi * x + axis + 0.5).reshape(*(n if i == axis else 1 for i in range(dim)))
        field = field + 0.1 * wave * torch.tensor([[1.0, -0.5], [0.7, 0.4]]).reshape(2, 2, *(1,) * dim)
    return field


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_right_hand_side_is_the_equation_term_by_term(dim):
    species = smooth(dim)
    a, b = species.unbind(1)
    column = (-1, *(1,) * dim)
    f, k = FEED.reshape(column), KILL.reshape(column)
    waves = (2 * math.pi / LENGTH).reshape(column) ** 2  # every varying part of the field is a sum of first modes
    expected_a = -DIFFUSIVITY_A.reshape(column) * waves * (a - 0.6) - a * b**2 + f * (1 - a)
    expected_b = -DIFFUSIVITY_B.reshape(column) * waves * (b - 0.3) + a * b**2 - (f + k) * b
    rates = gray_scott_rhs(species, *PARAMETERS)
    torch.testing.assert_close(rates, torch.stack([expected_a, expected_b], 1), rtol=0, atol=1e-8)


def test_means_obey_their_budgets():
    """d<A>/dt = f (1 - <A>) - <A B^2>, and d<A + B>/dt = f (1 - <A>) - (f + k) <B>: diffusion moves, reaction swaps."""
    species = torch.rand(2, 2, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rates = gray_scott_rhs(species, *PARAMETERS).mean((2, 3))
    mean_a, mean_b = species.mean((2, 3)).unbind(1)
    torch.testing.assert_close(rates.sum(1), FEED * (1 - mean_a) - (FEED + KILL) * mean_b, rtol=0, atol=1e-14)
    smooth_rates = gray_scott_rhs(smooth(2), *PARAMETERS).mean((2, 3))
    a, b = smooth(2).unbind(1)
    expected = FEED * (1 - a.mean((1, 2))) - (a * b**2).mean((1, 2))
    torch.testing.assert_close(smooth_rates[:, 0], expected, rtol=0, atol=1e-12)


def test_state_without_b_is_steady():
    species = torch.stack([torch.ones(2, 8, 8), torch.zeros(2, 8, 8)], 1).double()
    assert float(gray_scott_rhs(species, *PARAMETERS).abs().max()) < 1e-14


def test_residual_of_a_decaying_mode_falls_as_the_square_of_the_interval():
    """Without B, A - 1 decays exactly as exp(-(f + d_A k^2) t)."""
    x = (torch.arange(16, dtype=torch.float64) + 0.5) / 16
    rate = FEED + DIFFUSIVITY_A * (2 * math.pi / LENGTH) ** 2

    def exact(t):
        a = 1 - torch.exp(-rate * t)[:, None] * 0.5 * torch.cos(2 * math.pi * x)
        return torch.stack([a, torch.zeros_like(a)], 1)

    def size(dt):
        residual = gray_scott_residual(exact(0.0), exact(dt), torch.tensor([dt, dt]), *PARAMETERS)
        return float(residual.abs().max())

    sizes = [size(dt) for dt in (4.0, 2.0, 1.0)]
    assert 3.5 < sizes[0] / sizes[1] < 4.1 and 3.7 < sizes[1] / sizes[2] < 4.1


def test_residual_has_the_gradients_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    before, after = (torch.rand(2, 2, 8, generator=generator, dtype=torch.float64, requires_grad=True) for _ in "ab")
    rates = [value.clone().requires_grad_() for value in PARAMETERS[1:]]
    dt = torch.tensor([0.5, 1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda b, a, *r: gray_scott_residual(b, a, dt, LENGTH, *r), (before, after, *rates))


def test_wrong_shape_is_refused():
    with pytest.raises(DataError, match=r"\(1, 3, 8\).*\(cases, 2, \*grid\)"):
        gray_scott_rhs(torch.zeros(1, 3, 8), *(value[:1] for value in PARAMETERS))
