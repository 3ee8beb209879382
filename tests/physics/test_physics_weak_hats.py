"""Finite-element hats: against systems assembled cell by cell, exact quadrature, exact energies, and their errors."""

import itertools
import math

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch

from sciml.errors import ConfigError, DataError
from sciml.physics.boundary import sides
from sciml.physics.weak import Fields, HatSpace

MESHES = [((7,), (1.5,)), ((5, 7), (1.0, 2.0)), ((3, 4, 2), (1.0, 0.5, 2.0))]


def assembled(cells, lengths, coefficient=None):
    """Stiffness and mass over all nodes, cell by cell from the matrices of an interval (independent of the module)."""
    dim, shape = len(cells), [n + 1 for n in cells]
    h = [length / n for length, n in zip(lengths, cells, strict=True)]
    stiff = [np.array([[1, -1], [-1, 1]]) / s for s in h]
    mass = [np.array([[2, 1], [1, 2]]) * s / 6 for s in h]

    def product(factors):
        local = np.ones((1, 1))
        for factor in factors:
            local = np.kron(local, factor)
        return local

    local_k = sum(product([stiff[j] if j == i else mass[j] for j in range(dim)]) for i in range(dim))
    local_m = product(mass)
    size = math.prod(shape)
    k, m = scipy.sparse.lil_matrix((size, size)), scipy.sparse.lil_matrix((size, size))
    for cell in itertools.product(*(range(n) for n in cells)):
        corners = [
            np.ravel_multi_index(np.add(cell, corner), shape) for corner in itertools.product((0, 1), repeat=dim)
        ]
        a = 1.0 if coefficient is None else coefficient[cell]
        for p, q in itertools.product(range(len(corners)), repeat=2):
            k[corners[p], corners[q]] += a * local_k[p, q]
            m[corners[p], corners[q]] += local_m[p, q]
    return k.tocsr(), m.tocsr()


def fixed_nodes(cells, dirichlet):
    """Nodes on Dirichlet sides, from the name of the side."""
    index = np.indices([n + 1 for n in cells]).reshape(len(cells), -1)
    fixed = np.zeros(index.shape[1], bool)
    for name in dirichlet:
        axis, end = divmod(sides(len(cells)).index(name), 2)
        fixed |= index[axis] == end * cells[axis]
    return fixed


@pytest.mark.parametrize("cells, lengths", MESHES)
@pytest.mark.parametrize("dirichlet", [None, ("x_low",), ("x_high",)])
def test_residual_of_the_finite_element_solution_is_round_off(cells, lengths, dirichlet):
    names = sides(len(cells)) if dirichlet is None else dirichlet
    generator = np.random.default_rng(0)
    coefficient = generator.uniform(1, 10, cells)
    k, m = assembled(cells, lengths, coefficient)
    f = generator.standard_normal(m.shape[0])
    free = np.flatnonzero(~fixed_nodes(cells, names))
    u = np.zeros(m.shape[0])
    u[free] = scipy.sparse.linalg.spsolve(k[free][:, free].tocsc(), (m @ f)[free])

    space = HatSpace(cells, lengths, dirichlet=dirichlet, dtype=torch.float64)
    assert space.free.tolist() == free.tolist()
    solution, source = (space.interpolate(torch.from_numpy(x)[None, None]) for x in (u, f))
    a = space.at_points(torch.from_numpy(coefficient)[None])
    r = space.test(a[..., None] * solution.gradient[:, 0], -source.value[:, 0])
    scale = abs(m @ f).max()
    assert r.abs().max() < 1e-12 * scale
    # and it is no residual that is always small
    elsewhere = space.test(1.01 * a[..., None] * solution.gradient[:, 0], -source.value[:, 0])
    assert elsewhere.abs().max() > 1e-3 * scale


@pytest.mark.parametrize("cells, lengths", MESHES)
@pytest.mark.parametrize("dirichlet, mass", [(None, 0.0), (("x_low",), 0.0), (("x_high", "x_low"), 2.0), ((), 3.0)])
def test_dual_norm_is_that_of_the_assembled_energy(cells, lengths, dirichlet, mass):
    space = HatSpace(cells, lengths, dirichlet=dirichlet, mass=mass, dtype=torch.float64)
    k, m = assembled(cells, lengths)
    free = space.free.numpy()
    energy = torch.from_numpy((k + mass * m)[free][:, free].toarray())
    r = torch.randn(3, space.n_tests, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    solved = torch.linalg.solve(energy, r.T).T
    torch.testing.assert_close(space.dual(r), solved, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(space.dual_square(r), (r * solved).sum(1), rtol=1e-10, atol=0)


@pytest.mark.parametrize("cells, lengths", MESHES)
def test_dual_norm_of_the_poisson_residual_is_the_energy_error(cells, lengths):
    """r_j = int grad u_h . grad v_j - f v_j with u_h any function of the space: |r|_* = |u_h - u_h*|_H1 exactly."""
    space = HatSpace(cells, lengths, dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    u = space.extend(torch.randn(2, 1, space.n_tests, dtype=torch.float64, generator=generator))
    f = torch.randn(2, len(space.points), dtype=torch.float64, generator=generator)
    best = space.extend(space.dual(space.test(None, f))).unsqueeze(1)
    error = space.interpolate(u - best).gradient.square().sum((1, 3)) @ space.weights
    r = space.test(space.interpolate(u).gradient[:, 0], -f)
    torch.testing.assert_close(space.dual_square(r), error, rtol=1e-11, atol=0)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_quadrature_is_exact_up_to_its_degree_and_not_beyond(dim, order):
    lengths, origin = (1.5, 0.5, 2.0)[:dim], (0.5, -1.0, 0.0)[:dim]
    space = HatSpace((2,) * dim, lengths, origin=origin, order=order, dtype=torch.float64)

    def error(degree):
        exact = math.prod(
            ((o + length) ** (degree + 1) - o ** (degree + 1)) / (degree + 1)
            for o, length in zip(origin, lengths, strict=True)
        )
        return abs(float(space.points.pow(degree).prod(1) @ space.weights) - exact) / abs(exact)

    assert max(error(degree) for degree in range(2 * order)) < 1e-13
    assert error(2 * order) > 1e-6


def test_points_of_a_cell_are_contiguous_and_cells_in_order():
    space = HatSpace((2, 3), (2.0, 3.0), order=2, dtype=torch.float64)
    cell = space.points.reshape(2, 3, 4, 2).floor()
    assert (
        cell == torch.stack(torch.meshgrid(torch.arange(2.0), torch.arange(3.0), indexing="ij"), -1)[:, :, None]
    ).all()
    coefficient = torch.arange(6.0).double().reshape(1, 2, 3)
    assert (space.at_points(coefficient).reshape(2, 3, 4) == coefficient[0, ..., None]).all()


@pytest.mark.parametrize("cells, lengths", MESHES)
def test_interpolation_reproduces_multilinear_functions(cells, lengths):
    space = HatSpace(cells, lengths, origin=[0.3] * len(cells), dtype=torch.float64)

    def function(x):
        return (1 + 2 * x).prod(1)

    fields = space.interpolate(function(space.nodes)[None, None])
    torch.testing.assert_close(fields.value[0, 0], function(space.points))
    points = space.points.requires_grad_()
    (gradient,) = torch.autograd.grad(function(points).sum(), points)
    torch.testing.assert_close(fields.gradient[0, 0], gradient)


def test_residual_of_an_interpolant_falls_at_second_order():
    def square(n):
        space = HatSpace((n, n), (1.0, 1.0), order=3, dtype=torch.float64)
        u = torch.sin(math.pi * space.nodes).prod(1) * torch.exp(space.nodes[:, 0])
        x, y = space.points.T
        s, c, wave, e = torch.sin(math.pi * x), torch.cos(math.pi * x), torch.sin(math.pi * y), torch.exp(x)
        f = -e * wave * (s + 2 * math.pi * c - 2 * math.pi**2 * s)
        return float(space.dual_square(space.test(space.interpolate(u[None, None]).gradient[:, 0], -f[None])).sqrt())

    errors = [square(n) for n in (8, 16, 32)]
    assert errors[2] < 0.02
    assert 3.6 < errors[0] / errors[1] < 4.4
    assert 3.8 < errors[1] / errors[2] < 4.2


def test_natural_condition_on_sides_that_are_not_dirichlet():
    """u = x (2 - x) / 2 solves -u'' = 1, u(0) = 0, u'(1) = 0; x (1 - x) / 2 does not, though its equation holds."""
    space = HatSpace((6, 4), (1.0, 1.0), dirichlet=("x_low",), dtype=torch.float64)
    x = space.points[:, 0]

    def residual(slope):
        return space.test(torch.stack([slope, 0 * slope], -1)[None], -torch.ones_like(slope)[None])

    assert residual(1 - x).abs().max() < 1e-14
    wrong = residual(0.5 - x).reshape(6, 5)
    assert wrong[:-1].abs().max() < 1e-14
    # the flux -1/2 through the side, by the hats there
    torch.testing.assert_close(-wrong[-1].sum(), torch.tensor(0.5).double())


def test_dual_square_is_the_largest_ratio_of_residual_and_energy():
    space = HatSpace((4, 5), (1.0, 1.0), dirichlet=("y_low", "x_high"), dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    r, v = torch.randn(2, 200, space.n_tests, dtype=torch.float64, generator=generator)

    def energy(v):
        return space.interpolate(space.extend(v).unsqueeze(1)).gradient.square().sum((1, 3)) @ space.weights

    assert ((r * v).sum(1) ** 2 / energy(v) <= space.dual_square(r) * (1 + 1e-12)).all()
    best = space.dual(r)
    torch.testing.assert_close((r * best).sum(1) ** 2 / energy(best), space.dual_square(r))


@pytest.mark.parametrize("cells, lengths", MESHES)
def test_gradcheck_and_linearity(cells, lengths):
    space = HatSpace([2] * len(cells), lengths, dirichlet=("x_low",), dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)
    flux = torch.randn(2, len(space.points), space.dim, dtype=torch.float64, generator=generator)
    source = torch.randn(2, len(space.points), dtype=torch.float64, generator=generator)
    torch.testing.assert_close(
        space.test(2 * flux, -3 * source), 2 * space.test(flux, None) - 3 * space.test(None, source)
    )
    assert torch.autograd.gradcheck(
        lambda f, s: space.dual_square(space.test(f, s)), (flux.requires_grad_(), source.requires_grad_())
    )
    nodal = torch.randn(1, 2, len(space.nodes), dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u: (space.interpolate(u).value, space.interpolate(u).gradient), nodal)


def test_single_precision_is_the_double_precision_rounded():
    double, single = (HatSpace((28, 28), (1.0, 1.0), dtype=dtype) for dtype in (torch.float64, torch.float32))
    flux = torch.randn(3, len(double.points), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    r = double.test(flux, None)
    assert single.test(flux.float(), None).dtype == torch.float32
    torch.testing.assert_close(single.dual_square(r.float()).double(), double.dual_square(r), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        (((4, 4), (1.0,)), {}, r"cells are \(4, 4\); expected 1 whole"),
        (((4, 0), (1.0, 1.0)), {}, "1 or more"),
        (((4.0, 4), (1.0, 1.0)), {}, "whole number"),
        (((2, 2, 2, 2), (1.0,) * 4), {}, "1 to 3 axes"),
        (((4, 4), (1.0, -1.0)), {}, "positive numbers"),
        (((4, 4), (1.0, float("nan"))), {}, "positive numbers"),
        (((4, 4), (1.0, 1.0)), {"origin": (0.0,)}, "one entry an axis"),
        (((4, 4), (1.0, 1.0)), {"origin": (0.0, float("inf"))}, "finite"),
        (((4, 4), (1.0, 1.0)), {"dirichlet": ("x_lo",)}, "did you mean 'x_low'"),
        (((4,), (1.0,)), {"dirichlet": ("y_low",)}, "unknown side 'y_low' of a 1D box"),
        (((4, 4), (1.0, 1.0)), {"dirichlet": ()}, "give mass > 0"),
        (((4, 4), (1.0, 1.0)), {"mass": -1.0}, "mass is -1.0"),
        (((1, 4), (1.0, 1.0)), {}, "use two cells or more"),
        (((4, 4), (1.0, 1.0)), {"order": 0}, "order of the quadrature is 0"),
    ],
)
def test_arguments_that_make_no_space(arguments, options, message):
    with pytest.raises(ConfigError, match=message):
        HatSpace(*arguments, **options)


def test_tensors_of_a_wrong_shape():
    space = HatSpace((3, 3), (1.0, 1.0))
    with pytest.raises(DataError, match=r"flux has shape \(1, 36\); expected \(B, 36, 2\)"):
        space.test(torch.ones(1, 36), None)
    with pytest.raises(DataError, match=r"source has shape \(36,\); expected \(B, 36\)"):
        space.test(None, torch.ones(36))
    with pytest.raises(ConfigError, match="neither flux nor source"):
        space.test(None, None)
    with pytest.raises(DataError, match=r"expected \(B, C, 16\)"):
        space.interpolate(torch.ones(1, 16))
    with pytest.raises(DataError, match=r"expected \(B, 3, 3\)"):
        space.at_points(torch.ones(3, 3))
    for method in (space.dual, space.dual_square):
        with pytest.raises(DataError, match=r"expected \(B, 4\)"):
            method(torch.ones(1, 16))
    with pytest.raises(DataError, match=r"expected \(B, C, Q\) and \(B, C, Q, d\)"):
        Fields(torch.ones(1, 1, 36), torch.ones(1, 36, 2))
