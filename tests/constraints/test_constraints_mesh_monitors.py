"""Monitor functions: exponents, smoothing, invariances, and what is refused."""

import math

import pytest
import torch

from sciml.constraints.mesh_mover import (
    MONITORS,
    Box,
    RoughFieldWarning,
    check_monitor,
    curvature_monitor,
    gradient_monitor,
    roughness,
    smooth,
)
from sciml.errors import ConfigError, DataError

F64 = torch.float64
SQUARE, CUBE = Box((1.0, 1.0)), Box((1.0, 1.0, 1.0))


def bump(box: Box, cells: tuple[int, ...], centre: float = 0.4) -> torch.Tensor:
    x = box.centres(cells, dtype=F64)
    return torch.exp(-((x - centre) ** 2).sum(-1) / 0.03)[None, None]


@pytest.mark.parametrize(("box", "exponent"), [(SQUARE, 2 / 3), (CUBE, 6 / 7)])
def test_curvature_against_the_formula(box: Box, exponent: float) -> None:
    """The Hessian of a Gaussian is known; second order in the spacing, walls included."""
    errors = []
    for n in (24, 48):
        x = box.centres((n,) * box.dim, dtype=F64)
        r, u = x - 0.4, bump(box, (n,) * box.dim)[0, 0]
        a = 2 / 0.03
        hessian = u[..., None, None] * (a**2 * r[..., None] * r[..., None, :] - a * torch.eye(box.dim, dtype=F64))
        density = hessian.flatten(-2).norm(dim=-1) ** exponent
        density = density / density.mean()
        m = curvature_monitor(u[None, None], box, share=0.6, smoothing=1e-9)[0]
        errors.append(float((m - 0.4 - 0.6 * density).square().mean().sqrt()))
    assert errors[1] < 0.03 and errors[0] / errors[1] > 3


def test_gradient_against_the_formula() -> None:
    x = SQUARE.centres((96, 96), dtype=F64)
    density = (x - 0.4).norm(dim=-1) * bump(SQUARE, (96, 96))[0, 0]
    m = gradient_monitor(bump(SQUARE, (96, 96)), SQUARE, share=0.5, smoothing=1e-9)[0]
    assert float((m - 0.5 - 0.5 * density / density.mean()).abs().max()) < 0.02


@pytest.mark.parametrize("name", MONITORS)
@pytest.mark.parametrize("box", [SQUARE, CUBE, Box((1.0, 2.0), (True, False))])
def test_mean_floor_scale_and_offset(name: str, box: Box) -> None:
    u = bump(box, (16,) * box.dim)
    m = MONITORS[name](u, box, share=0.7)
    assert m.shape == (1, *(16,) * box.dim)
    torch.testing.assert_close(m.mean(), torch.tensor(1.0, dtype=F64))
    assert float(m.min()) >= 0.3
    torch.testing.assert_close(MONITORS[name](-40 * u + 7, box, share=0.7), m)  # any units
    long = Box(tuple(3 * length for length in box.lengths), box.periodic)
    torch.testing.assert_close(MONITORS[name](u, long, share=0.7), m)


def test_several_channels_count_alike_whatever_their_units() -> None:
    left, right = bump(SQUARE, (32, 32), 0.3), bump(SQUARE, (32, 32), 0.7)
    m = curvature_monitor(torch.cat((left, 1e5 * right), 1), SQUARE)[0]
    torch.testing.assert_close(m, m.flip(0, 1), rtol=1e-9, atol=0)
    alone = curvature_monitor(torch.cat((left, torch.full_like(left, 3.0)), 1), SQUARE)
    torch.testing.assert_close(alone, curvature_monitor(left, SQUARE))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("box", [SQUARE, CUBE])
def test_a_field_without_features_has_the_monitor_one(box: Box, dtype: torch.dtype) -> None:
    x = box.centres((40,) * box.dim, dtype=dtype)
    fields = [
        torch.full_like(x[..., 0], 0.1),
        torch.zeros_like(x[..., 0]),
        7 + x @ x.new_tensor([1.0, -2.0, 0.3])[: box.dim],
    ]
    u = torch.stack(fields)[:, None]
    assert torch.equal(curvature_monitor(u, box), torch.ones_like(u[:, 0]))
    assert torch.equal(gradient_monitor(u[:2], box), torch.ones_like(u[:2, 0]))
    assert torch.equal(
        curvature_monitor(bump(box, (40,) * box.dim), box, share=0.0), torch.ones(1, *x.shape[:-1], dtype=F64)
    )


@pytest.mark.parametrize("name", MONITORS)
def test_transposed_shifted_and_batched(name: str) -> None:
    box = Box((1.0, 1.0), (True, True))
    u = torch.cat((bump(SQUARE, (24, 24)), bump(SQUARE, (24, 24), 0.6) ** 2))
    u[1, 0] = u[1, 0] * torch.linspace(0.5, 1, 24, dtype=F64)  # not symmetric
    m = MONITORS[name](u, box)
    torch.testing.assert_close(MONITORS[name](u.mT, box), m.mT)
    torch.testing.assert_close(MONITORS[name](u.roll(5, 2), box), m.roll(5, 1))
    assert torch.equal(MONITORS[name](u[1:], box), m[1:])


def test_smoothing_is_a_gaussian_up_to_the_walls() -> None:
    """Variance grows by the square of the width; even keeps the mean and the sign, odd keeps linear fields."""
    x = SQUARE.centres((64, 64), dtype=F64)
    u = torch.exp(-((x - 0.5) ** 2).sum(-1) / (2 * 0.08**2))[None, None]
    wide = torch.exp(-((x - 0.5) ** 2).sum(-1) / (2 * (0.08**2 + 0.06**2)))[None, None]
    torch.testing.assert_close(smooth(u, SQUARE, 0.06), wide * 0.08**2 / (0.08**2 + 0.06**2), rtol=0, atol=5e-6)
    rough = torch.rand(1, 1, 64, 64, dtype=F64, generator=torch.Generator().manual_seed(0))
    for width in (0.001, 0.05, 3.0):
        even = smooth(rough, SQUARE, width, "even")
        torch.testing.assert_close(even.mean(), rough.mean())
        assert float(even.min()) >= float(rough.min())
        linear = (2 + x[..., 0] - 3 * x[..., 1])[None, None]
        torch.testing.assert_close(smooth(linear, SQUARE, width), linear)
    periodic = Box((1.0, 1.0), (True, True))
    torch.testing.assert_close(smooth(u.roll(32, 2), periodic, 0.06), smooth(u, periodic, 0.06).roll(32, 2))
    assert smooth(u, SQUARE, 0.0) is u


def test_odd_smoothing_makes_no_kink_at_a_wall() -> None:
    """sin(pi x), odd about both walls, is an eigenfunction of the Gaussian: exp(-(pi width)^2 / 2)."""
    x = SQUARE.centres((64, 64), dtype=F64)[..., 0]
    wave = torch.sin(math.pi * x)[None, None]
    expected = math.exp(-((0.1 * math.pi) ** 2) / 2) * wave
    torch.testing.assert_close(smooth(wave, SQUARE, 0.1), expected, rtol=0, atol=1e-3)


def test_default_smoothing_is_one_cell_of_48_or_of_the_grid() -> None:
    for n, width in ((24, 1 / 24), (48, 1 / 48), (96, 1 / 48)):
        u = bump(SQUARE, (n, n))
        torch.testing.assert_close(curvature_monitor(u, SQUARE), curvature_monitor(u, SQUARE, smoothing=width))


def test_gradients_are_finite_also_where_there_is_no_curvature() -> None:
    u = bump(SQUARE, (16, 16))
    u[..., :8] = 0.0
    u.requires_grad_()
    (gradient,) = torch.autograd.grad(curvature_monitor(u, SQUARE, rough="ignore")[0, 4, 8], u)
    assert gradient.isfinite().all() and gradient.abs().max() > 0


def test_roughness_of_known_fields() -> None:
    x = SQUARE.centres((96, 96), dtype=F64)[..., 0]
    generator = torch.Generator().manual_seed(0)
    fields = [torch.sin(3 * x), (x > 0.5).double(), torch.randn(96, 96, generator=generator, dtype=F64), 0 * x, x]
    values = roughness(torch.stack(fields)[None], SQUARE)[0]
    torch.testing.assert_close(values, torch.tensor([0.25, 0.714, 1.0, 0, 0], dtype=F64), atol=0.02, rtol=0)
    wave = torch.sin(2 * math.pi * x)[None, None]
    exact = (math.sin(math.pi / 96) / math.sin(2 * math.pi / 96)) ** 2
    assert roughness(wave, Box((1.0, 1.0), (True, True))).item() == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("box", [SQUARE, CUBE])
def test_a_field_too_rough_says_which_smoothing_is_enough(box: Box) -> None:
    noise = torch.randn(2, 1, *(16,) * box.dim, generator=torch.Generator().manual_seed(0))
    noise[0] = bump(box, (16,) * box.dim)[0].float()
    with pytest.raises(DataError, match=r"sample 1 is too rough .* smooth\(u, box, 0.0625\)"):
        curvature_monitor(noise, box)
    with pytest.warns(RoughFieldWarning, match=r"0\.0625 m"):
        gradient_monitor(noise, box, rough="warn")
    curvature_monitor(noise, box, rough="ignore")
    curvature_monitor(smooth(noise, box, 0.0625), box)  # what was proposed is accepted
    jump = (box.centres((16,) * box.dim)[..., 0] > 0.5).float()[None, None]
    curvature_monitor(jump, box)  # a shock is not noise


def test_bad_monitors_are_refused() -> None:
    good = 1 + bump(SQUARE, (16, 16))[0]
    check_monitor(good, SQUARE)
    for value, text in ((torch.nan, "1 NaN or infinite values of 256"), (0.0, "0 somewhere"), (-2.0, "-2 somewhere")):
        bad = good.clone()
        bad[0, 3, 4] = value
        with pytest.raises(DataError, match=text):
            check_monitor(bad, SQUARE)
    with pytest.raises(DataError, match="sample 1 is zero everywhere"):
        check_monitor(torch.cat((good, 0 * good)), SQUARE)
    with pytest.raises(DataError, match=r"not torch.float64 \(1, 1, 16, 16\)"):
        check_monitor(good[None], SQUARE)
    noise = 0.1 + torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    with pytest.raises(DataError, match=r"too rough .* smooth\(m, box, 0.0625, 'even'\)"):
        check_monitor(noise, SQUARE)
    check_monitor(smooth(noise[None], SQUARE, 0.0625, "even")[0], SQUARE)
    check_monitor(1 + 0.01 * noise, SQUARE)  # as rough, but nearly even: harmless


def test_wrong_options_and_fields_are_refused() -> None:
    u = bump(SQUARE, (16, 16))
    for share in (-0.1, 0.96, math.nan):
        with pytest.raises(ConfigError, match="share="):
            curvature_monitor(u, SQUARE, share=share)
    with pytest.raises(ConfigError, match="not negative"):
        curvature_monitor(u, SQUARE, smoothing=-1.0)
    with pytest.raises(ConfigError, match="rough='no'"):
        curvature_monitor(u, SQUARE, rough="no")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="3D box"):
        curvature_monitor(u, CUBE)
    with pytest.raises(DataError, match=r"torch.int64"):
        curvature_monitor(u.long(), SQUARE)
    with pytest.raises(DataError, match="at least 3 cells"):
        curvature_monitor(u[..., :2], SQUARE)
    u[0, 0, 3, 4] = torch.inf
    with pytest.raises(DataError, match="field of sample 0 has 1 NaN or infinite"):
        curvature_monitor(u, SQUARE)
    with pytest.raises(DataError, match="3D box"):
        smooth(u, CUBE, 0.1)
