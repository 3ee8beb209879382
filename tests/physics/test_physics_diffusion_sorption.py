"""The diffusion-sorption right-hand side: retardation, boundaries, consistency, balance, gradients."""

import math

import torch

from sciml.physics.diffusion_sorption import (
    GUARD,
    Soil,
    retardation,
    solute_flux,
    sorption_rate,
    sorption_residual,
    sorption_spectral_radius,
)


def soil(batch=1, exponent=0.874, freundlich=3.5e-4):
    values = (5e-4, 0.29, 2880.0, freundlich, exponent)
    return Soil(*(torch.full((batch,), value, dtype=torch.float64) for value in values))


def ones(batch=1):
    return torch.ones(batch, dtype=torch.float64)


def test_retardation_has_the_published_constants():
    """R(1) = 1 + 0.71 / 0.29 * 2880 * 3.5e-4 * 0.874 = 3.156954 (PDEBench's constants)."""
    r = retardation(torch.tensor([[1.0, 0.1]], dtype=torch.float64), soil())
    assert math.isclose(float(r[0, 0]), 1 + 0.71 / 0.29 * 2880 * 3.5e-4 * 0.874, rel_tol=1e-6)
    assert math.isclose(float(r[0, 1]) - 1, (float(r[0, 0]) - 1) * 0.1 ** (0.874 - 1), rel_tol=1e-5)


def test_guard_is_continuous_and_constant_below_zero():
    u = torch.tensor([[-1.0, -1e-12, 0.0, 1e-12]], dtype=torch.float64)
    for exponent in (0.7, 1.0, 1.3):
        r = retardation(u, soil(exponent=exponent))
        assert torch.isfinite(r).all() and (r >= 1).all()
        torch.testing.assert_close(r, r[:, :1].expand_as(r), rtol=1e-6, atol=0)
    assert GUARD == 1e-6


def test_rate_vanishes_for_the_linear_steady_state():
    """-D u_x = u / 1 at the exit: u = 1 - q x / D with q = 1 / (1 / v + L / D)."""
    n, length = 20, 1.0
    x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    for velocity in (1.0, 1e-3, 1e9):
        q = 1 / (1 / velocity + length / 5e-4)
        u = (1 - q * x / 5e-4)[None]
        assert sorption_rate(u, soil(), ones(), ones(), velocity).abs().max() < 1e-12
        flux = solute_flux(u, soil(), ones(), ones(), velocity)
        torch.testing.assert_close(flux, torch.full_like(flux, q), rtol=1e-9, atol=0)


def test_rate_converges_at_second_order_inside():
    errors = []
    for n in (50, 100, 200):
        x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        u = (0.6 + 0.4 * torch.cos(3 * x))[None]
        exact = -5e-4 * 9 * 0.4 * torch.cos(3 * x) / retardation(u, soil())[0]
        errors.append(float((sorption_rate(u, soil(), ones(), ones())[0] - exact)[2:-2].abs().max()))
    assert 3.8 < errors[0] / errors[1] < 4.2 and 3.8 < errors[1] / errors[2] < 4.2


def test_solute_is_conserved():
    """d/dt of the integral of R(u) u_t = inflow - outflow."""
    u = torch.rand(2, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    length = torch.tensor([1.0, 2.0], dtype=torch.float64)
    rate, flux = sorption_rate(u, soil(2), length, ones(2)), solute_flux(u, soil(2), length, ones(2))
    stored = (retardation(u, soil(2)) * rate).sum(1) * length / 30
    torch.testing.assert_close(stored, flux[:, 0] - flux[:, -1])


def test_spectral_radius_bounds_the_decay_rates():
    generator = torch.Generator().manual_seed(1)
    for exponent in (0.8, 0.9, 1.0):
        u = 0.5 + 0.5 * torch.rand(1, 16, dtype=torch.float64, generator=generator)
        frozen = retardation(u, soil(exponent=exponent))

        def linear(v, frozen=frozen):
            return sorption_rate(v, soil(), ones(), 0 * ones()) * retardation(v, soil()) / frozen

        matrix = torch.autograd.functional.jacobian(linear, u)[0, :, 0]
        fastest = -torch.linalg.eigvals(matrix).real.min()
        bound = sorption_spectral_radius(u, soil(exponent=exponent), ones(), ones())
        assert 0.7 * float(bound) < float(fastest) <= float(bound)


def test_residual_of_an_exact_mode_falls_as_the_square_of_the_spacing():
    """A mode that decays as exp(-rate t), constant R, u = 0 at both ends (an exit that is infinitely fast)."""
    n = 24
    x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    mode = torch.sin(math.pi * x)[None]
    linear, inlet = soil(exponent=1.0), 0 * ones()
    decay = -float(sorption_rate(mode, linear, ones(), inlet, 1e30)[0, 5] / mode[0, 5])
    sizes = []
    for dt in (40.0, 20.0):
        after = mode * math.exp(-decay * dt)
        residual = sorption_residual(mode, after, torch.tensor([dt]), linear, ones(), inlet, 1e30)
        expected = (math.exp(-decay * dt) - 1) / dt + 0.5 * decay * (1 + math.exp(-decay * dt))
        torch.testing.assert_close(residual, expected * mode, rtol=1e-6, atol=1e-15)
        sizes.append(float(residual.abs().max()))
    assert 3.7 < sizes[0] / sizes[1] < 4.3


def test_gradients():
    generator = torch.Generator().manual_seed(2)
    before, after = (0.1 + torch.rand(2, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    length, inlet = ones(2).requires_grad_(), ones(2).requires_grad_()
    properties = [getattr(soil(2), name).requires_grad_() for name in Soil.__dataclass_fields__]
    properties[0] = torch.full((2,), 0.05, dtype=torch.float64, requires_grad=True)
    properties[3] = torch.full((2,), 3.5e-4, dtype=torch.float64, requires_grad=True)

    def residual(before, after, length, inlet, *properties):
        return sorption_residual(before, after, torch.ones(2), Soil(*properties), length, inlet)

    inputs = (before.requires_grad_(), after.requires_grad_(), length, inlet, *properties)
    assert torch.autograd.gradcheck(residual, inputs, eps=1e-7, atol=1e-5, rtol=1e-3)
