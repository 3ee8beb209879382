"""The Burgers operators: derivatives, wall extension, residual, against exact solutions."""

import math

import pytest
import torch

from sciml.errors import ConfigError, DataError
from sciml.physics import burgers_box, burgers_residual, burgers_rhs, odd_extension


def centres(n, length=1.0):
    return length * (torch.arange(n, dtype=torch.float64) + 0.5) / n


def test_right_hand_side_of_a_sine_is_exact():
    """u = sin(k x): -u u_x + nu u_xx = -k sin(2 k x) / 2 - nu k^2 sin(k x), each case with its own box."""
    lengths, viscosity = torch.tensor([[1.0], [3.0]], dtype=torch.float64), torch.tensor([0.1, 0.02])
    x = torch.stack([centres(32, 1.0), centres(32, 3.0)])
    k = 2 * math.pi / lengths
    expected = -k * torch.sin(2 * k * x) / 2 - viscosity[:, None] * k**2 * torch.sin(k * x)
    rhs = burgers_rhs(torch.sin(k * x).unsqueeze(1), lengths, viscosity)
    torch.testing.assert_close(rhs[:, 0], expected, rtol=0, atol=1e-6)


def test_two_dimensional_transport_follows_the_velocity_vector():
    """u = (sin y, cos x) on the 2 pi box: (u . grad) u = (cos x cos y, -sin y sin x)."""
    x = centres(16, 2 * math.pi)
    x, y = torch.meshgrid(x, x, indexing="ij")
    velocity = torch.stack([torch.sin(y), torch.cos(x)]).unsqueeze(0)
    lengths = torch.full((1, 2), 2 * math.pi, dtype=torch.float64)
    rhs = burgers_rhs(velocity, lengths, torch.tensor([0.3]))
    expected = -0.3 * velocity - torch.stack([torch.cos(x) * torch.cos(y), -torch.sin(y) * torch.sin(x)]).unsqueeze(0)
    torch.testing.assert_close(rhs, expected, rtol=0, atol=1e-7)


def test_extension_is_odd_about_both_walls():
    field = torch.arange(1.0, 6.0)
    doubled = odd_extension(field)
    assert doubled.tolist() == [1, 2, 3, 4, 5, -5, -4, -3, -2, -1]
    assert torch.equal(doubled, -doubled.flip(0))


def test_walls_equal_the_periodic_box_of_an_odd_field():
    n = 32
    x = centres(n)
    velocity = (torch.sin(math.pi * x) + 0.4 * torch.sin(3 * math.pi * x)).reshape(1, 1, n)
    lengths, viscosity = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.05])
    walled = burgers_rhs(velocity, lengths, viscosity, walls=True)
    periodic = burgers_rhs(odd_extension(velocity), 2 * lengths, viscosity)
    torch.testing.assert_close(walled, periodic[..., :n], rtol=0, atol=1e-13)
    assert walled.abs().max() > 1


def test_residual_of_an_exact_solution_falls_as_the_square_of_the_interval():
    """u = 2 nu k a e^-s sin / (1 + a e^-s cos), s = nu k^2 t, is the Cole-Hopf transform of 1 + a e^-s cos(k x)."""
    nu, k, a, n = 0.05, 2 * math.pi, 0.5, 64
    x = centres(n)

    def exact(t):
        wave = a * math.exp(-nu * k**2 * t)
        return (2 * nu * k * wave * torch.sin(k * x) / (1 + wave * torch.cos(k * x))).reshape(1, 1, n)

    def size(dt):
        before, after = exact(0.1 - dt / 2), exact(0.1 + dt / 2)
        lengths = torch.ones(1, 1, dtype=torch.float64)
        residual = burgers_residual(before, after, torch.tensor([dt]), lengths, torch.tensor([nu]))
        return float(residual.abs().max())

    sizes = [size(dt) for dt in (0.02, 0.01, 0.005)]
    assert 3.8 < sizes[0] / sizes[1] < 4.2 and 3.8 < sizes[1] / sizes[2] < 4.2
    assert size(1e-4) < 1e-5


def test_residual_has_the_gradients_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    before, after = (torch.randn(2, 1, 10, generator=generator, dtype=torch.float64) for _ in range(2))
    viscosity = torch.tensor([0.1, 0.2], dtype=torch.float64, requires_grad=True)
    dt, lengths = torch.tensor([0.1, 0.2], dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    for walls in (False, True):
        assert torch.autograd.gradcheck(
            lambda b, a, nu, walls=walls: burgers_residual(b, a, dt, lengths, nu, walls=walls),
            (before.requires_grad_(), after.requires_grad_(), viscosity),
        )


def test_wrong_arguments_are_refused():
    with pytest.raises(ConfigError, match="walls exist in one dimension only"):
        burgers_box((8, 8), torch.ones(1, 2), walls=True)
    with pytest.raises(DataError, match=r"\(2, 1, 8, 8\)"):
        burgers_rhs(torch.zeros(2, 1, 8, 8), torch.ones(2, 2), torch.ones(2))
    with pytest.raises(ConfigError, match="positive"):
        burgers_rhs(torch.zeros(1, 1, 8), torch.zeros(1, 1), torch.ones(1))
