"""Wendland test functions: the function itself, its quadrature, where supports lie, the dual norm, and errors."""

import math
from fractions import Fraction

import pytest
import scipy.integrate
import torch

from sciml.errors import ConfigError, DataError, SolverError
from sciml.physics.weak import WendlandSpace, grid_centres, random_centres, wendland
from sciml.physics.weak.quadrature import ball_rule


def exact_integral(dim):
    """int v over the ball of radius 1, from the powers of r one by one."""
    level = dim // 2 + 3
    factor = {2: level**2 + 4 * level + 3, 1: 3 * level + 6, 0: 3}
    total = Fraction(0)
    for k in range(level + 3):
        for power, share in factor.items():
            total += Fraction((-1) ** k * math.comb(level + 2, k) * share, 3 * (k + power + dim))
    return float(total) * {1: 2, 2: 2 * math.pi, 3: 4 * math.pi}[dim]


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_gradient_is_the_slope_of_the_value_and_both_vanish_outside(dim):
    offset = torch.randn(200, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, gradient = wendland(offset, 1.3)
    step = 1e-6
    for axis in range(dim):
        shift = step * torch.eye(dim, dtype=torch.float64)[axis]
        slope = (wendland(offset + shift, 1.3)[0] - wendland(offset - shift, 1.3)[0]) / (2 * step)
        torch.testing.assert_close(gradient[:, axis], slope, rtol=0, atol=1e-8)
    outside = offset.norm(dim=1) >= 1.3
    assert outside.any() and (~outside).any()
    value, gradient = wendland(offset[outside], 1.3)
    assert (value == 0).all() and (gradient == 0).all()
    centre, flat = wendland(torch.zeros(1, dim, dtype=torch.float64), 1.3)
    assert centre.item() == 1 and (flat == 0).all()


def test_formula_of_two_dimensions():
    """phi_{2,2} of Wendland: (1 - r)^6 (35 r^2 + 18 r + 3) / 3."""
    r = torch.linspace(0, 1, 11, dtype=torch.float64)
    value, _ = wendland(torch.stack([r, 0 * r], 1), 1.0)
    torch.testing.assert_close(value, (1 - r) ** 6 * (35 * r**2 + 18 * r + 3) / 3)


@pytest.mark.parametrize("dim, order", [(2, 6), (2, 8), (3, 7), (3, 8)])
def test_ball_rule_is_exact_for_radial_times_coordinates(dim, order):
    """int r^p x^2i y^2k over the unit ball in closed form (Gamma functions of the sphere)."""
    points, weights = ball_rule(dim, order)
    assert len(weights) == order**dim and bool((points.norm(dim=1) < 1).all())
    r = points.norm(dim=1)
    for powers in [(0, 0), (2, 0), (0, 2), (2, 2), (4, 0)]:
        exponents = [*powers, *(0,) * (dim - 2)]
        sphere = 2 * math.prod(math.gamma((k + 1) / 2) for k in exponents) / math.gamma((sum(powers) + dim) / 2)
        for radial in (0, 1, 3):
            if sum(powers) > order - 1 or radial + sum(powers) + dim - 1 > 2 * order - 1:
                continue
            exact = sphere / (radial + sum(powers) + dim)
            found = (weights * r**radial * points[:, 0] ** powers[0] * points[:, 1] ** powers[1]).sum()
            assert abs(float(found) / exact - 1) < 1e-12
    odd = (weights * r * points[:, 0] * points[:, 1] ** 2).sum()
    assert abs(float(odd)) < 1e-14


@pytest.mark.parametrize("dim, tolerance", [(1, 1e-13), (2, 1e-13), (3, 1e-13)])
def test_integral_of_whole_supports_is_exact(dim, tolerance):
    radius, lengths = 0.3, (1.0,) * dim
    space = WendlandSpace(
        random_centres(4, lengths, radius, seed=0), radius, lengths, dtype=torch.float64, dirichlet=None
    )
    r = space.test(None, torch.ones(1, len(space.points), dtype=torch.float64))
    assert (r / (exact_integral(dim) * radius**dim) - 1).abs().max() < tolerance


@pytest.mark.parametrize("order, degree", [(6, 2), (8, 6)])
def test_test_functions_times_polynomials_are_exact(order, degree):
    """By parts, for a polynomial q: int q dv/dx = -int dq/dx v; and a far finer rule agrees."""
    centres = random_centres(5, (1.0, 1.0), 0.2, seed=1)
    space, fine = (WendlandSpace(centres, 0.2, (1.0, 1.0), order=n, dtype=torch.float64) for n in (order, 30))

    def residuals(space):
        x, y = space.points.T
        q = (x - 0.3) ** (degree - 2) * (y + 0.5) ** 2
        slope = (degree - 2) * (x - 0.3) ** (degree - 3) * (y + 0.5) ** 2 if degree > 2 else 0 * q
        return (
            space.test(torch.stack([q, 0 * q], -1)[None], None),
            space.test(None, slope[None]),
            space.test(None, q[None]),
        )

    flux, source, value = residuals(space)
    torch.testing.assert_close(flux, -source, rtol=1e-11, atol=1e-15)
    torch.testing.assert_close(value, residuals(fine)[2], rtol=1e-11, atol=0)


@pytest.mark.parametrize("dim, order, tolerance", [(1, 8, 1e-12), (2, 8, 1e-5), (2, 6, 1e-3), (3, 8, 1e-5)])
def test_supports_cut_by_natural_sides(dim, order, tolerance):
    """Integrals over the part of the support in the box: adaptive quadrature (1D, 2D) or a finer rule (3D)."""
    lengths, radius = (1.0,) * dim, 0.4
    centres = torch.tensor([[0.75, 0.5, 0.5], [1.0, 0.1, 0.3], [0.63, 0.97, 1.0]], dtype=torch.float64)[:, :dim]
    options = dict(dirichlet=("x_low",), dtype=torch.float64)
    space = WendlandSpace(centres, radius, lengths, order=order, **options)
    assert bool(((space.points > 0) & (space.points < 1)).all())

    def f(points):
        return 1 + points[:, 0] - points[:, -1] ** 2

    found = space.test(None, f(space.points)[None])[0]
    if dim == 3:
        fine = WendlandSpace(centres, radius, lengths, order=16, **options)
        exact = fine.test(None, f(fine.points)[None])[0]
    else:

        def integral(centre):
            def integrand(*x):
                point = torch.tensor([x], dtype=torch.float64)
                return float(wendland(point - centre, radius)[0] * f(point))

            # split at the centre, where v has a kink in its fifth derivative
            options = [{"epsabs": 1e-8 if dim == 2 else 1e-14, "points": [float(c)]} for c in centre]
            ranges = [(max(0, float(c) - radius), min(1, float(c) + radius)) for c in centre]
            return scipy.integrate.nquad(integrand, ranges, opts=options)[0]

        exact = torch.tensor([integral(centre) for centre in centres], dtype=torch.float64)
    size = exact_integral(dim) * radius**dim
    assert ((found - exact) / size).abs().max() < tolerance


def test_weights_are_those_of_integrals_over_the_union_of_the_supports():
    """With natural sides the supports cover the box, and the shares v_j / sum v_k partition it."""
    lengths = (1.0, 2.0)
    centres = grid_centres((8, 14), lengths, 0.25, dirichlet=())
    space = WendlandSpace(centres, 0.25, lengths, dirichlet=(), mass=1.0, dtype=torch.float64)
    x, y = space.points.T
    for function, exact in (
        (torch.ones_like(x), 2.0),
        (x * y**2, 4 / 3),
        (torch.sin(3 * x), 2 * (1 - math.cos(3)) / 3),
    ):
        assert abs(float(function @ space.weights) - exact) < 2e-3 * exact


def brute_force_energy(centres, radius, lengths, n, mass=0.0):
    """K by the midpoint rule on n cells an axis."""
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) * length / n for length in lengths]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(lengths))
    value, gradient = wendland(points[:, None] - centres, radius)
    return (torch.einsum("qid,qjd->ij", gradient, gradient) + mass * value.T @ value) * math.prod(lengths) / len(points)


@pytest.mark.parametrize(
    "dim, n, dirichlet, mass",
    [(1, 4000, None, 0.0), (2, 400, None, 0.0), (2, 400, ("y_low",), 2.0), (3, 60, None, 0.0)],
)
def test_dual_norm_is_that_of_the_energy(dim, n, dirichlet, mass):
    lengths, radius = (1.0, 0.8, 0.9)[:dim], 0.25
    centres = grid_centres((4, 3, 3)[:dim], lengths, radius, dirichlet=dirichlet)
    space = WendlandSpace(centres, radius, lengths, dirichlet=dirichlet, mass=mass, dtype=torch.float64)
    energy = brute_force_energy(centres, radius, lengths, n, mass)
    r = torch.randn(3, space.n_tests, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    solved = torch.linalg.solve(energy, r.T).T
    torch.testing.assert_close(space.dual_square(r), (r * solved).sum(1), rtol=2e-3, atol=0)
    torch.testing.assert_close((space.dual(r) * r).sum(1), space.dual_square(r), rtol=1e-10, atol=0)


def test_residual_of_a_function_of_the_space_has_its_energy_as_dual_norm():
    lengths, radius = (1.0, 1.0), 0.2
    centres = grid_centres((6, 6), lengths, radius, dirichlet=("x_low", "y_low", "y_high"))
    space = WendlandSpace(
        centres, radius, lengths, order=16, dirichlet=("x_low", "y_low", "y_high"), dtype=torch.float64
    )
    c = torch.randn(2, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    _, gradient = space.evaluate(c, space.points)
    r = space.test(gradient, None)
    torch.testing.assert_close(space.dual(r), c, rtol=0, atol=0.02)
    energy = brute_force_energy(centres, radius, lengths, 300)
    torch.testing.assert_close(space.dual_square(r), torch.einsum("bi,ij,bj->b", c, energy, c), rtol=1e-3, atol=0)


def test_residual_of_a_solution_vanishes_and_falls_with_its_error():
    """u = sin(pi x) sin(pi y): r = 0 to the error of the quadrature; of (1 + e) u its norm is e |grad u|, nearly."""
    lengths, radius = (1.0, 1.0), 0.12
    space = WendlandSpace(grid_centres((14, 14), lengths, radius), radius, lengths, dtype=torch.float64)
    s, c = torch.sin(math.pi * space.points), torch.cos(math.pi * space.points)
    gradient = math.pi * torch.stack([c[:, 0] * s[:, 1], s[:, 0] * c[:, 1]], -1)[None]
    f = 2 * math.pi**2 * s.prod(1)[None]
    norm = math.pi / math.sqrt(2)  # |grad u| in L2

    def dual(e):
        return float(space.dual_square(space.test((1 + e) * gradient, -f)).sqrt())

    assert dual(0) < 1e-6 * norm
    assert 0.8 * norm < dual(0.1) / 0.1 <= norm
    assert dual(0.01) / dual(0.1) == pytest.approx(0.1, rel=1e-4)


def test_natural_condition_on_sides_that_are_not_dirichlet():
    lengths, radius, fixed = (1.0, 1.0), 0.2, ("x_low",)
    centres = grid_centres((6, 7), lengths, radius, dirichlet=fixed)
    space = WendlandSpace(centres, radius, lengths, dirichlet=fixed, dtype=torch.float64)
    x = space.points[:, 0]

    def residual(slope):
        return space.test(torch.stack([slope, 0 * slope], -1)[None], -torch.ones_like(slope)[None])[0]

    size = exact_integral(2) * radius**2
    assert residual(1 - x).abs().max() < 1e-4 * size
    wrong = residual(0.5 - x).abs()
    at_side = centres[:, 0] == 1
    assert wrong[at_side].min() > 0.1 * size
    assert wrong[centres[:, 0] < 1 - radius].max() < 1e-4 * size


def test_residuals_come_in_the_order_of_the_centres():
    lengths, radius = (1.0, 1.0), 0.3
    centres = random_centres(9, lengths, radius, seed=5, dirichlet=("x_low",))
    options = dict(dirichlet=("x_low",), dtype=torch.float64)
    space = WendlandSpace(centres, radius, lengths, **options)
    assert (
        len({len(points) for points in (WendlandSpace(c[None], radius, lengths, **options).points for c in centres)})
        > 2
    )
    r = space.test(None, space.points[:, 0][None])[0]
    for j, centre in enumerate(centres):
        alone = WendlandSpace(centre[None], radius, lengths, **options)
        torch.testing.assert_close(alone.test(None, alone.points[:, 0][None])[0, 0], r[j])


def test_gradcheck_and_linearity():
    lengths, radius = (1.0, 1.0), 0.3
    centres = random_centres(3, lengths, radius, seed=6, dirichlet=("x_low",))
    space = WendlandSpace(centres, radius, lengths, dirichlet=("x_low",), order=3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(7)
    flux = torch.randn(2, len(space.points), 2, dtype=torch.float64, generator=generator, requires_grad=True)
    source = torch.randn(2, len(space.points), dtype=torch.float64, generator=generator, requires_grad=True)
    torch.testing.assert_close(
        space.test(2 * flux, -3 * source), 2 * space.test(flux, None) - 3 * space.test(None, source)
    )
    assert torch.autograd.gradcheck(lambda f, s: space.dual_square(space.test(f, s)), (flux, source))


def test_single_precision_is_the_double_precision_rounded():
    lengths, radius = (1.0, 1.0), 0.12
    centres = grid_centres((14, 14), lengths, radius)
    double, single = (WendlandSpace(centres, radius, lengths, dtype=dtype) for dtype in (torch.float64, torch.float32))
    flux = torch.randn(3, len(double.points), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    found = single.dual_square(single.test(flux.float(), None)).double()
    torch.testing.assert_close(found, double.dual_square(double.test(flux, None)), rtol=1e-4, atol=0)


def test_centres_keep_the_radius_from_dirichlet_sides_only():
    options = dict(origin=(1.0, 0.0), dirichlet=("x_low", "y_high"))
    grid = grid_centres((3, 4), (1.0, 2.0), 0.2, **options)
    assert grid.shape == (12, 2)
    torch.testing.assert_close(grid.amin(0), torch.tensor([1.2, 0.0]).double())
    torch.testing.assert_close(grid.amax(0), torch.tensor([2.0, 1.8]).double())
    assert grid_centres((1,), (1.0,), 0.2).item() == 0.5

    some = random_centres(50, (1.0, 2.0), 0.2, seed=0, **options)
    assert torch.equal(some, random_centres(50, (1.0, 2.0), 0.2, seed=0, **options))
    assert not torch.equal(some, random_centres(50, (1.0, 2.0), 0.2, seed=1, **options))
    parts = ((some - torch.tensor([1.2, 0.0])) / torch.tensor([0.8, 1.8]) * 50).floor()
    assert (parts.sort(0).values == torch.arange(50.0)[:, None]).all()


def test_centres_and_radii_that_make_no_space():
    box = (1.0, 1.0)
    with pytest.raises(ConfigError, match=r"1 of 2 centres, e.g. \(0.1, 0.5\),.*nearer than the radius 0.2"):
        WendlandSpace(torch.tensor([[0.5, 0.5], [0.1, 0.5]]), 0.2, box)
    WendlandSpace(torch.tensor([[0.5, 0.5], [0.1, 0.5]]), 0.2, box, dirichlet=("x_high",))
    with pytest.raises(ConfigError, match="outside the box"):
        WendlandSpace(torch.tensor([[1.1, 0.5]]), 0.2, box, dirichlet=())
    with pytest.raises(ConfigError, match=r"expected \(J, 2\)"):
        WendlandSpace(torch.ones(3), 0.2, box)
    with pytest.raises(ConfigError, match="NaN"):
        WendlandSpace(torch.tensor([[float("nan"), 0.5]]), 0.2, box)
    with pytest.raises(ConfigError, match="radius of the test functions is 0"):
        WendlandSpace(torch.tensor([[0.5, 0.5]]), 0, box)
    with pytest.raises(ConfigError, match=r"do not fit between the Dirichlet sides of axis 0.*0.5 at most"):
        grid_centres((2, 2), box, 0.6)
    with pytest.raises(ConfigError, match="counts are"):
        grid_centres((2,), box, 0.1)
    with pytest.raises(ConfigError, match="0 centres"):
        random_centres(0, box, 0.1, seed=0)


def test_dependent_test_functions_are_named():
    twice = torch.tensor([[0.5, 0.5], [0.4, 0.6], [0.5, 0.5]])
    with pytest.raises(SolverError, match=r"around \(0.5, 0.5\) is nearly a combination of others"):
        WendlandSpace(twice, 0.2, (1.0, 1.0))
    with pytest.raises(SolverError, match="take fewer or a smaller radius"):
        WendlandSpace(grid_centres((60,), (1.0,), 0.4), 0.4, (1.0,))


def test_tensors_of_a_wrong_shape():
    space = WendlandSpace(torch.tensor([[0.5, 0.5]]), 0.2, (1.0, 1.0))
    with pytest.raises(DataError, match=r"flux has shape \(1, 64\); expected \(B, 64, 2\)"):
        space.test(torch.ones(1, 64), None)
    with pytest.raises(DataError, match=r"expected \(B, 64\)"):
        space.test(None, torch.ones(64))
    with pytest.raises(ConfigError, match="neither flux nor source"):
        space.test(None, None)
    with pytest.raises(DataError, match=r"expected \(B, 1\)"):
        space.dual(torch.ones(1, 2))
