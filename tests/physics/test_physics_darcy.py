"""The discrete Darcy operator: consistency, flux balance, symmetry, gradients, refusals."""

import math

import pytest
import torch

from sciml.errors import ConfigError
from sciml.physics.darcy import check_sides, darcy_operator, darcy_residual, face_fluxes

ZERO = {"x_low": 0.0, "x_high": 0.0, "y_low": 0.0, "y_high": 0.0}
PI = math.pi


def centres(*shape):
    return torch.meshgrid(*((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in shape), indexing="ij")


def random_case(shape, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, *shape, generator=generator, dtype=torch.float64)
    a = 0.5 + torch.rand(batch, *shape, generator=generator, dtype=torch.float64)
    lengths = 1 + torch.rand(batch, len(shape), generator=generator, dtype=torch.float64)
    return u, a, lengths


def test_fluxes_of_a_smooth_field_converge_at_second_order():
    errors = []
    for n in (20, 40, 80):
        x, y = centres(n, n)
        a, u = 1 + x**2 + 0.5 * y, torch.sin(PI * x) * torch.sin(2 * PI * y)
        flux = face_fluxes(u[None], a[None], torch.ones(1, 2), ZERO)[0][0, 1:-1]
        xf, yf = torch.meshgrid(torch.arange(1, n).double() / n, y[0], indexing="ij")
        exact = -(1 + xf**2 + 0.5 * yf) * PI * torch.cos(PI * xf) * torch.sin(2 * PI * yf)
        errors.append(float((flux - exact).abs().max()))
    assert 3.8 < errors[0] / errors[1] < 4.2 and 3.8 < errors[1] / errors[2] < 4.2


def test_residual_vanishes_for_flow_through_a_jump_on_a_face():
    """truth/darcy_manufactured.json, "discontinuous": q = 4.8 through 3 | 12, in any direction and dimension."""
    q = 4.800000000000001
    (x,) = centres(10)
    exact = torch.where(x < 0.5, 1 - q / 3 * x, q / 12 * (1 - x))
    for dim in (1, 2, 3):
        for axis in range(dim):
            shape = [10 if i == axis else 4 for i in range(dim)]
            view = [1, *(10 if i == axis else 1 for i in range(dim))]
            u, a = (v.reshape(view).expand(1, *shape) for v in (exact, torch.where(x < 0.5, 3.0, 12.0).double()))
            sides = {f"{name}_{end}": None for name in "xyz"[:dim] for end in ("low", "high")}
            sides |= {f"{'xyz'[axis]}_low": 1.0, f"{'xyz'[axis]}_high": 0.0}
            lengths = torch.ones(1, dim, dtype=torch.float64)
            assert darcy_residual(u, a, 0.0, lengths, sides).abs().max() < 1e-11
            flux = face_fluxes(u, a, lengths, sides)
            torch.testing.assert_close(flux[axis], torch.full_like(flux[axis], q), rtol=1e-12, atol=0)
            assert all(not flux[other].any() for other in range(dim) if other != axis)


@pytest.mark.parametrize("shape", [(7,), (6, 9), (4, 5, 6)])
def test_sum_over_the_box_is_the_flux_through_its_sides(shape):
    u, a, lengths = random_case(shape)
    names = [f"{axis}_{end}" for axis in "xyz"[: len(shape)] for end in ("low", "high")]
    sides = {name: (None if name == "x_high" else 0.3) for name in names}
    operator = darcy_operator(u, a, lengths, sides)
    volume = lengths.prod(1) / torch.tensor(shape).prod()
    total = operator.flatten(1).sum(1) * volume
    through = torch.zeros(2, dtype=torch.float64)
    for axis, flux in enumerate(face_fluxes(u, a, lengths, sides)):
        area = volume / (lengths[:, axis] / shape[axis])
        ends = flux.select(axis + 1, -1) - flux.select(axis + 1, 0)
        through = through + area * ends.reshape(2, -1).sum(1)
    torch.testing.assert_close(total, through, rtol=1e-11, atol=1e-11)


def test_operator_is_symmetric_and_transposes():
    u, a, lengths = random_case((6, 9))
    sides = {"x_low": 0.0, "x_high": None, "y_low": 0.0, "y_high": 0.0}
    v = torch.randn(2, 6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one = (v * darcy_operator(u, a, lengths, sides)).sum((1, 2))
    torch.testing.assert_close(one, (u * darcy_operator(v, a, lengths, sides)).sum((1, 2)))
    assert ((u * darcy_operator(u, a, lengths, sides)).sum((1, 2)) > 0).all()
    swapped = {name.translate(str.maketrans("xy", "yx")): value for name, value in sides.items()}
    other = darcy_operator(u.mT, a.mT, lengths.flip(1), swapped)
    torch.testing.assert_close(other.mT, darcy_operator(u, a, lengths, sides))


def test_values_per_case_and_along_a_side():
    u, a, lengths = random_case((6, 5))
    profile = torch.linspace(0, 1, 5, dtype=torch.float64).expand(2, 5)
    sides = {**ZERO, "x_low": profile, "x_high": torch.tensor([1.0, 2.0])}
    flux = face_fluxes(u, a, lengths, sides)[0]
    h = (lengths[:, :1] / 6).expand(2, 5)
    torch.testing.assert_close(flux[:, 0], -2 * a[:, 0] * (u[:, 0] - profile) / h)
    torch.testing.assert_close(flux[:, -1], -2 * a[:, -1] * (torch.tensor([[1.0], [2.0]]) - u[:, -1]) / h)


def test_gradient_of_the_residual():
    u, a, lengths = random_case((3, 4))
    f = torch.ones(2, 3, 4, dtype=torch.float64)
    g = torch.rand(2, 4, dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (u, a, f, lengths, g)]
    assert torch.autograd.gradcheck(lambda u, a, f, s, g: darcy_residual(u, a, f, s, {**ZERO, "x_low": g}), inputs)


def test_refusals():
    u, a, lengths = random_case((6, 5))
    with pytest.raises(ConfigError, match=r"x_low has shape \(3,\); expected a number, \(2,\) or \(2, 5\)"):
        face_fluxes(u, a, lengths, {**ZERO, "x_low": torch.ones(3)})
    with pytest.raises(ConfigError, match="prescribe one side"):
        check_sides(dict.fromkeys(ZERO), 2)
    with pytest.raises(ConfigError, match="expected"):
        check_sides({"x_low": 0.0, "x_high": 0.0}, 2)
