"""Batched Levenberg-Marquardt: agreement with SciPy, independence of the items of a batch, failures that say so."""

import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares as scipy_least_squares

from sciml.constraints.least_squares import (
    GenericProblem,
    LeastSquaresWarning,
    Options,
    PointwiseProblem,
    Status,
    least_squares,
    loop,
)
from sciml.constraints.least_squares.linear import BlockBanded
from sciml.constraints.least_squares.loop import damped_step
from sciml.constraints.least_squares.problem import columns
from sciml.errors import ConfigError, DataError, SolverError

D = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Functions (P, n) -> (P, M) of the literature: More, Garbow, Hillstrom, ACM TOMS 7 (1981) 17, unless said otherwise.


def rosenbrock(w):
    return torch.stack([10 * (w[:, 1] - w[:, 0] ** 2), 1 - w[:, 0]], 1)


def powell_singular(w):
    a, b, c, d = w.unbind(1)
    return torch.stack([a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2], 1)


def brown_badly_scaled(w):
    return torch.stack([w[:, 0] - 1e6, w[:, 1] - 2e-6, w[:, 0] * w[:, 1] - 2], 1)


def box_3d(w):
    t = 0.1 * torch.arange(1, 11, dtype=w.dtype)
    model = torch.exp(-t * w[:, :1]) - torch.exp(-t * w[:, 1:2]) - w[:, 2:] * (torch.exp(-t) - torch.exp(-10 * t))
    return model


def exponential_fit(w):
    """Noisy data: the residual does not vanish."""
    t = torch.linspace(0, 4, 25, dtype=w.dtype)
    data = 3 * torch.exp(-0.7 * t) + 0.5 + 0.3 * torch.sin(9 * t)
    return w[:, :1] * torch.exp(-w[:, 1:2] * t) + w[:, 2:] - data


def kowalik_osborne(w):
    y = torch.tensor([0.1957, 0.1947, 0.1735, 0.16, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246], dtype=D)
    u = torch.tensor([4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625], dtype=D)
    a, b, c, d = (w[:, k : k + 1] for k in range(4))
    return y - a * (u**2 + u * b) / (u**2 + u * c + d)


def linear(w):
    rng = np.random.default_rng(3)
    matrix, right = rng.standard_normal((9, 5)) * 10.0 ** np.arange(-2, 3), rng.standard_normal(9)
    return w @ torch.from_numpy(matrix).T - torch.from_numpy(right)


TABLE = {  # function -> starts
    rosenbrock: [[-1.2, 1.0], [12.0, 10.0], [0.0, 0.0], [-5.0, -3.0]],
    powell_singular: [[3.0, -1, 0, 1], [30.0, -10, 0, 10], [1.0, 1, 1, 1], [-2.0, 3, 1, -4]],
    brown_badly_scaled: [[1.0, 1.0], [10.0, 0.1], [0.0, 0.0], [1e5, 1e-4]],
    box_3d: [[0.0, 10, 20], [1.5, 9, 2], [2.0, 12, 3], [0.5, 5, 0.5]],
    exponential_fit: [[1.0, 1, 0], [5.0, 0.1, 1], [2.0, 2, 2], [10.0, 0.5, -1]],
    kowalik_osborne: [[0.25, 0.39, 0.415, 0.39], [0.2, 0.2, 0.1, 0.1], [0.19, 0.1, 0.1, 0.1], [0.3, 0.5, 0.4, 0.5]],
    linear: [[0.0] * 5, [1.0] * 5, [100.0] * 5, [-1.0, 2, -3, 4, -5]],
}
TIGHT = dict.fromkeys(("ftol", "xtol", "gtol"), 1e-15)


def scipy_solution(residual, start, method):
    """SciPy's result for a torch function of one problem, ``residual(w (n,)) -> (M,)``."""

    def value(w):
        return residual(torch.from_numpy(w)).numpy()

    def jacobian(w):
        return torch.autograd.functional.jacobian(residual, torch.from_numpy(w)).numpy()

    first = torch.as_tensor(start, dtype=D).numpy()
    return scipy_least_squares(value, first, jacobian, method=method, x_scale="jac", max_nfev=5000, **TIGHT)


@pytest.mark.parametrize("function", TABLE, ids=lambda f: f.__name__)
def test_agrees_with_scipy(function):
    start = torch.tensor(TABLE[function], dtype=D)
    problem = GenericProblem(function, (), start.shape[1])
    solution = least_squares(problem, start, options=Options(max_iterations=300))
    assert solution.report.n_failed == 0
    rounding = 1e-15 if function is brown_badly_scaled else 1e-22  # the rows cancel 1e6
    for k, first in enumerate(TABLE[function]):
        reference = scipy_solution(lambda w: function(w[None])[0], first, "lm")
        ours = float(solution.report.cost[k])
        assert ours <= reference.cost * (1 + 1e-9) + rounding
        assert ours >= reference.cost * (1 - 1e-9) - rounding
        if function is powell_singular:  # the Jacobian is singular at 0: either method creeps there
            assert solution.weights[k].abs().max() < 1e-3
        else:
            np.testing.assert_allclose(solution.weights[k], reference.x, rtol=1e-6, atol=1e-12)


# A reaction-diffusion residual u - 0.02 u'' + u^3 = f on (0, 1) with cosine features on each tile.


def pde(p=2, k=3, m=12, n=6, seed=0, coupled=True):
    """Terms (u, 0.02 u''), forcing f, and rows of boundary values and of continuity of value and slope."""
    rng = generator(seed)
    x = torch.linspace(0, 1, m, dtype=D)
    frequency = torch.arange(n, dtype=D) + 0.3 * torch.rand(p, k, 1, n, generator=rng, dtype=D)
    phase = torch.rand(p, k, 1, n, generator=rng, dtype=D)

    def feature(x, order):
        return frequency**order * torch.cos(frequency * x[:, None] + phase + order * torch.pi / 2)

    position = torch.linspace(0, 1, k * m, dtype=D).reshape(1, k, m)
    amplitude = 1 + torch.arange(p, dtype=D).reshape(p, 1, 1)
    exact = amplitude * torch.sin(torch.pi * position)
    forcing = (1 + 0.02 * torch.pi**2) * exact + exact**3
    terms = (feature(x, 0), 0.02 * (k**2 if coupled else 1) * feature(x, 2))
    rows = None
    if coupled:
        ends = [[feature(torch.tensor([end], dtype=D), order)[:, :, 0] for end in (0.0, 1.0)] for order in (0, 1)]
        matrix = torch.zeros(p, 2 * (k - 1) + 2, k, n, dtype=D)
        for tile in range(k - 1):
            for order in (0, 1):
                matrix[:, 2 * tile + order, tile] = ends[order][1][:, tile]
                matrix[:, 2 * tile + order, tile + 1] = -ends[order][0][:, tile + 1]
        matrix[:, -2, 0], matrix[:, -1, -1] = ends[0][0][:, 0], ends[0][1][:, -1]
        rows = (10 * matrix.flatten(2), torch.zeros(p, matrix.shape[1], dtype=D))
    return terms, forcing, rows


def reaction(values, forcing):
    return values[0] - values[1] + values[0] ** 3 - forcing


def dense_residual(terms, forcing, rows, ridge, item):
    """All rows of one coupled problem as a plain function, written out without the package."""

    def residual(w):
        tiles = w.reshape(terms[0].shape[1], -1)
        u = torch.einsum("kmn,kn->km", terms[0][item], tiles)
        curvature = torch.einsum("kmn,kn->km", terms[1][item], tiles)
        parts = [(u - curvature + u**3 - forcing[item]).flatten(), ridge**0.5 * w]
        if rows is not None:
            parts.append(rows[0][item] @ w - rows[1][item])
        return torch.cat(parts)

    return residual


def starts(n):
    rng = generator()
    fixed = [torch.zeros(2, n, dtype=D), torch.ones(2, n, dtype=D), torch.linspace(-1, 1, n, dtype=D).repeat(2, 1)]
    return [*fixed, torch.randn(2, n, generator=rng, dtype=D)]


@pytest.mark.parametrize("k", [1, 3, 8])
def test_coupled_pde_agrees_with_scipy(k):
    terms, forcing, rows = pde(k=k)
    problem = PointwiseProblem(terms, reaction, (forcing,), rows, ridge=1e-6)
    for start in starts(6 * k):
        solution = least_squares(problem, start)
        assert solution.report.status.shape == (2,)
        assert solution.report.n_failed == 0 and float(solution.report.newton_step.max()) < 1e-9
        for item in range(2):
            residual = dense_residual(terms, forcing, rows, 1e-6, item)
            cost = float(solution.report.cost[item])
            assert cost == pytest.approx(scipy_solution(residual, start[item], "trf").cost, rel=1e-8)
            assert cost == pytest.approx(0.5 * float(residual(solution.weights[item]).square().sum()), rel=1e-10)


def test_independent_tiles_agree_with_scipy():
    terms, forcing, _ = pde(k=3, coupled=False)
    problem = PointwiseProblem(terms, reaction, (forcing,), ridge=1e-6)
    for start in starts(18):
        solution = least_squares(problem, start)
        assert solution.report.status.shape == (2, 3)
        assert solution.report.n_failed == 0 and float(solution.report.newton_step.max()) < 1e-9
        for tile in range(3):
            one = slice(tile, tile + 1)
            for item in range(2):
                residual = dense_residual([t[:, one] for t in terms], forcing[:, one], None, 1e-6, item)
                reference = scipy_solution(residual, start[item, 6 * tile : 6 * tile + 6], "trf")
                assert float(solution.report.cost[item, tile]) == pytest.approx(reference.cost, rel=1e-8)


def banded(k, n, b, seed=0):
    """A random positive definite block-banded matrix (2 items), dense and as ``BlockBanded``."""
    lower = torch.randn(2, k * n, k * n, generator=generator(seed), dtype=D)
    tile = torch.arange(k * n) // n
    lower[:, (tile[:, None] - tile[None] > b) | (tile[:, None] < tile[None])] = 0
    full = lower @ lower.mT + 0.1 * torch.eye(k * n, dtype=D)
    blocks = torch.zeros(2, k, b + 1, n, n, dtype=D)
    tiles = full.reshape(2, k, n, k, n)
    for column in range(k):
        for j in range(min(b + 1, k - column)):
            blocks[:, column, j] = tiles[:, column + j, :, column]
    return full, BlockBanded(blocks)


@pytest.mark.parametrize(("k", "n", "b"), [(1, 4, 0), (5, 3, 0), (5, 3, 1), (6, 2, 3), (4, 3, 3)])
def test_block_banded_is_the_dense_matrix(k, n, b):
    full, matrix = banded(k, n, b)
    x = torch.randn(2, k * n, generator=generator(1), dtype=D)
    torch.testing.assert_close(matrix.dense(), full)
    torch.testing.assert_close(matrix.diagonal(), full.diagonal(dim1=1, dim2=2))
    torch.testing.assert_close(matrix.matmul(x), (full @ x[..., None])[..., 0])
    scale, shift = x.abs() + 1, x.square()
    torch.testing.assert_close(
        matrix.scaled(scale, shift).dense(), scale[:, :, None] * full * scale[:, None] + torch.diag_embed(shift)
    )
    factor = matrix.cholesky()
    assert factor.ok.all()
    torch.testing.assert_close(factor.solve(x), torch.linalg.solve(full, x))
    broken = BlockBanded(matrix.blocks.clone())
    broken.blocks[1, k - 1, 0] -= 1e3 * torch.eye(n, dtype=D)
    assert broken.cholesky().ok.tolist() == [True, False]


def tile_graph(k, neighbours):
    """Rows that couple pairs of tiles, and boundary rows of the first tile."""
    matrix = torch.zeros(1, 3 * len(neighbours) + 2, k, 4, dtype=D)
    for row, (i, j) in enumerate(neighbours):
        matrix[:, 3 * row : 3 * row + 3, i] = torch.randn(1, 3, 4, generator=generator(row), dtype=D)
        matrix[:, 3 * row : 3 * row + 3, j] = torch.randn(1, 3, 4, generator=generator(row + 99), dtype=D)
    matrix[:, -2:, 0] = torch.randn(1, 2, 4, generator=generator(7), dtype=D)
    return matrix.flatten(2), torch.randn(1, matrix.shape[1], generator=generator(8), dtype=D)


@pytest.mark.parametrize(
    ("k", "neighbours", "bandwidth"),
    [
        (8, [(i, i + 1) for i in range(7)], 1),
        (12, [(i, (i + 1) % 12) for i in range(12)], 2),  # a ring: needs another order of the tiles
        (9, [(0, 5), (5, 2), (2, 7), (7, 1), (1, 8), (8, 3), (3, 6), (6, 4)], 1),  # a line in disorder
        (3, [(0, 1), (1, 2), (0, 2)], None),
        (4, [], 0),
    ],
)
def test_coupled_linear_problem_is_solved_whatever_the_order_of_the_tiles(k, neighbours, bandwidth):
    matrix, target = tile_graph(k, neighbours)
    terms = (torch.randn(1, k, 6, 4, generator=generator(), dtype=D),)
    right = torch.randn(1, k, 6, generator=generator(1), dtype=D)
    problem = PointwiseProblem(terms, lambda values, f: values[0] - f, (right,), (matrix, target), ridge=1e-6)
    assert problem.coupling.bandwidth == bandwidth
    solution = least_squares(problem, torch.zeros(1, 4 * k, dtype=D))
    rows = torch.cat([torch.block_diag(*terms[0][0]), matrix[0], 1e-3 * torch.eye(4 * k, dtype=D)])
    rhs = torch.cat([right.flatten(), target[0], torch.zeros(4 * k, dtype=D)])
    reference = torch.linalg.lstsq(rows, rhs[:, None]).solution[:, 0]
    torch.testing.assert_close(solution.weights[0], reference, rtol=1e-9, atol=1e-11)


def test_structured_jacobian_is_the_forward_mode_one():
    terms, forcing, rows = pde(k=3)
    problem = PointwiseProblem(terms, reaction, (forcing,), rows)
    w = problem.pack(torch.randn(2, 18, generator=generator(), dtype=D))
    data = problem.prepare(*problem.parameters)
    prepared = problem.prepare_solve(data)
    local = problem.linearise(w, prepared)
    jacobian = columns(lambda x: problem.rows(x, data), w, 1)
    r = problem.rows(w, data)
    torch.testing.assert_close(problem.rows(w, prepared), r)
    torch.testing.assert_close(local.cost, 0.5 * r.square().sum(1))
    torch.testing.assert_close(local.gradient, (jacobian.mT @ r[..., None])[..., 0])
    torch.testing.assert_close(local.matrix.dense(), jacobian.mT @ jacobian)
    dense, values = local.jacobian(torch.tensor([1]))
    torch.testing.assert_close(dense[0], jacobian[1])
    torch.testing.assert_close(values[0], r[1])
    hessian = torch.stack(
        [
            torch.autograd.functional.hessian(lambda x, i=i: problem.cost(torch.stack([x, x]), data)[i], w[i])
            for i in (0, 1)
        ]
    )
    full = (local.matrix + problem.curvature(w, prepared)).dense()
    torch.testing.assert_close(full, hessian)


def test_generic_curvature_is_the_hessian():
    problem = GenericProblem(lambda w: torch.cat([torch.sin(w) * w[:, :1], w**3], 1), (), 3, ridge=0.1)
    w = torch.randn(2, 3, generator=generator(), dtype=D)
    full = (problem.linearise(w, ()).matrix + problem.curvature(w, ())).dense()
    for i in (0, 1):
        reference = torch.autograd.functional.hessian(lambda x, i=i: problem.cost(torch.stack([x, x]), ())[i], w[i])
        torch.testing.assert_close(full[i], reference)


def test_qr_step_where_cholesky_breaks_down():
    """Columns that agree to 1e-9: J'J is singular in float64, J is not. The other item keeps its Cholesky step."""
    rng = generator()
    jacobian = torch.randn(2, 20, 3, generator=rng, dtype=D)
    jacobian[1, :, 2] = jacobian[1, :, 1] + 1e-9 * jacobian[1, :, 2]
    expected = torch.tensor([1.0, 2.0, 3.0], dtype=D)
    data = jacobian @ expected
    problem = GenericProblem(lambda w, a, b: (a @ w[..., None])[..., 0] - b, (jacobian, data), 3)
    w = torch.zeros(2, 3, dtype=D)
    local = problem.linearise(w, problem.parameters)
    scale = local.matrix.diagonal()
    tiny = torch.full((2,), 1e-22, dtype=D)
    assert local.matrix.scaled(scale.rsqrt(), tiny[:, None]).cholesky().ok.tolist()[0]
    step = damped_step(local, scale, tiny, torch.tensor([True, True]))
    torch.testing.assert_close(step[0], expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(step[1], expected, rtol=1e-4, atol=0)


def test_large_problems_raise_the_damping_instead_of_qr(monkeypatch):
    """Two weights that only occur as a sum, no ridge: steps are refused until Cholesky succeeds."""
    monkeypatch.setattr(loop, "QR_UNKNOWNS", 2)
    monkeypatch.setattr(loop, "_qr_step", None)  # not to be called
    steps = []
    plain = loop.damped_step

    def watched(*arguments):
        steps.append(plain(*arguments))
        return steps[-1]

    monkeypatch.setattr(loop, "damped_step", watched)

    def function(w):  # depends on the sum of the last two weights only
        total = w[:, 1] + w[:, 2]
        return torch.stack([10 * (total - w[:, 0] ** 2), 1 - w[:, 0], total - 1, w[:, 0] * total - 1], 1)

    solution = least_squares(
        GenericProblem(function, (), 3),
        torch.tensor([[-1.2, 3.0, 5.0]], dtype=D),
        options=Options(damping=1e-18),
        gradient="none",
    )
    assert torch.isnan(torch.cat(steps)).any()
    assert solution.report.n_failed == 0 and solution.report.n_deficient == 1
    assert float(solution.report.residual_norm) < 1e-8


def mixed_batch():
    """Starts of Rosenbrock's valley that need from 0 to more than 10 steps."""
    return torch.tensor(
        [[1.0, 1.0], [-1.2, 1.0], [1.0, 1.1], [12.0, 10.0], [0.9, 0.8], [-5.0, -3.0], [1.0, 1.0]], dtype=D
    )


@pytest.mark.parametrize("check_every", [1, 4])
def test_batch_is_one_by_one(check_every):
    options = Options(check_every=check_every)
    problem = GenericProblem(rosenbrock, (), 2)
    together = least_squares(problem, mixed_batch(), options=options, gradient="none")
    steps = together.report.iterations
    assert steps[0] == 0 and steps.max() > 10 and len(set(steps.tolist())) > 3
    for k, start in enumerate(mixed_batch()):
        alone = least_squares(problem, start[None], options=options, gradient="none")
        torch.testing.assert_close(together.weights[k], alone.weights[0], rtol=1e-12, atol=1e-14)
        assert together.report.iterations[k] == alone.report.iterations[0]
        assert together.report.status[k] == alone.report.status[0]


def test_tiles_in_a_batch_are_one_by_one():
    terms, forcing, _ = pde(p=3, k=4, coupled=False)
    scale = torch.tensor([1.0, 0.5, 2.0], dtype=D).reshape(3, 1, 1)

    def function(values, f, s):
        return reaction(values, f) * s

    together = least_squares(
        PointwiseProblem(terms, function, (forcing, scale), ridge=1e-6), torch.zeros(3, 24, dtype=D)
    )
    for p in range(3):
        for k in range(4):
            alone = PointwiseProblem(
                tuple(t[p : p + 1, k : k + 1] for t in terms),
                function,
                (forcing[p : p + 1, k : k + 1], scale[p]),
                ridge=1e-6,
            )
            solution = least_squares(alone, torch.zeros(1, 6, dtype=D))
            torch.testing.assert_close(
                together.weights[p, 6 * k : 6 * k + 6], solution.weights[0], rtol=1e-7, atol=1e-9
            )
            assert together.report.status[p, k] == solution.report.status[0, 0]


def test_converged_items_stand_still_and_leave():
    """What has converged does not move by a bit when others go on, and is no longer evaluated."""
    sizes = []

    def function(w):
        sizes.append(w.shape[0])
        return rosenbrock(w)

    def solve(limit):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LeastSquaresWarning)
            options = Options(max_iterations=limit)
            return least_squares(GenericProblem(function, (), 2), mixed_batch(), options=options, gradient="none")

    short, long = solve(8), solve(100)
    done = ~short.report.failed
    assert 2 <= int(done.sum()) < 7 and long.report.n_failed == 0
    assert torch.equal(short.weights[done], long.weights[done])
    assert not torch.equal(short.weights[~done], long.weights[~done])
    assert min(sizes) < 4


def test_units_of_the_weights_do_not_matter():
    """Marquardt's scaling: columns of very different size give the same iterates."""
    factor = torch.tensor([[1e-4, 1e3]], dtype=D)
    plain = least_squares(GenericProblem(rosenbrock, (), 2), mixed_batch())
    scaled = least_squares(GenericProblem(lambda w: rosenbrock(w * factor), (), 2), mixed_batch() / factor)
    torch.testing.assert_close(scaled.weights * factor, plain.weights, rtol=1e-9, atol=1e-12)
    assert (scaled.report.iterations - plain.report.iterations).abs().max() <= 1


def test_float32_is_solved_in_float64():
    terms, forcing, rows = pde(k=3)
    single = tuple(t.float() for t in terms), forcing.float(), tuple(r.float() for r in rows)
    a = PointwiseProblem(single[0], reaction, (single[1],), single[2])
    b = PointwiseProblem(
        tuple(t.double() for t in single[0]),
        reaction,
        (single[1].double(),),
        tuple(r.double() for r in single[2]),
    )
    x, y = least_squares(a, torch.zeros(2, 18)), least_squares(b, torch.zeros(2, 18, dtype=D))
    assert x.weights.dtype == torch.float32 and x.report.cost.dtype == D
    assert torch.equal(x.weights, y.weights.float())
    assert torch.equal(x.report.cost, y.report.cost)


def test_coefficients_broadcast():
    terms, forcing, _ = pde(k=3, coupled=False)

    def function(values, f, a, b, c, d):
        return reaction(values, f) * a * b + c * values[0] + d

    tensors = (torch.rand(12, dtype=D), torch.rand(3, 1, dtype=D) + 1, torch.rand(2, 1, 1, dtype=D), 0.25)
    full = tuple(torch.as_tensor(t, dtype=D).expand(2, 3, 12).contiguous() for t in tensors)
    start = torch.zeros(2, 18, dtype=D)
    short = least_squares(PointwiseProblem(terms, function, (forcing, *tensors)), start)
    long = least_squares(PointwiseProblem(terms, function, (forcing, *full)), start)
    torch.testing.assert_close(short.weights, long.weights, rtol=1e-9, atol=1e-9)


# Failures


def test_nonfinite_start_is_named_and_leaves_the_others_alone():
    terms, forcing, _ = pde(k=3, coupled=False)
    forcing[1, 2, 5] = torch.nan
    problem = PointwiseProblem(terms, reaction, (forcing,))
    start = torch.zeros(2, 18, dtype=D)
    with pytest.warns(LeastSquaresWarning, match="1 residual or Jacobian not finite .first: problem 1, tile 2."):
        solution = least_squares(problem, start)
    assert solution.report.status[1, 2] == Status.NONFINITE and solution.report.n_failed == 1
    assert torch.equal(solution.weights[1, 12:], start[1, 12:])
    clean = least_squares(PointwiseProblem(terms, reaction, (forcing.nan_to_num(),)), start)
    torch.testing.assert_close(solution.weights[0], clean.weights[0], rtol=1e-8, atol=1e-10)
    with pytest.raises(SolverError, match="problem 1, tile 2"):
        least_squares(problem, start, on_failure="raise")
    assert least_squares(problem, start, on_failure="mask").report.n_failed == 1  # no warning, which would be an error


def test_nonfinite_region_is_stepped_around():
    """log w is not finite for w <= 0: such trial steps are refused."""
    problem = GenericProblem(lambda w: torch.log(w) + 3, (), 1)
    solution = least_squares(problem, torch.tensor([[50.0]], dtype=D))
    torch.testing.assert_close(solution.weights, torch.full((1, 1), -3.0, dtype=D).exp())


def test_iteration_limit_is_reported():
    with pytest.warns(
        LeastSquaresWarning, match="Of 7 least-squares problems: 3 not converged in the iterations allowed"
    ):
        solution = least_squares(
            GenericProblem(rosenbrock, (), 2), mixed_batch(), options=Options(max_iterations=8, polish=0)
        )
    assert (solution.report.status == Status.MAX_ITERATIONS).sum() == solution.report.n_failed == 3


def test_stall_is_reported():
    """A forward function whose derivative points the wrong way: no step can lower the cost."""

    class Wrong(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return x.clone()

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, g):
            return -g

    terms = (torch.ones(1, 1, 3, 1, dtype=D),)
    problem = PointwiseProblem(terms, lambda values: Wrong.apply(values[0]) - 1.0)
    with pytest.warns(LeastSquaresWarning, match="1 stalled"):
        solution = least_squares(problem, torch.zeros(1, 1, dtype=D), gradient="none")
    assert solution.report.status[0, 0] == Status.STALLED


def test_rank_deficient_basis_is_solved_and_reported():
    """Two equal basis functions: the ridge shares the weight between them, the residual is that of one."""
    terms, forcing, _ = pde(k=1, coupled=False)
    twice = tuple(torch.cat([t, t[..., :1]], -1) for t in terms)
    one = least_squares(PointwiseProblem(terms, reaction, (forcing,)), torch.zeros(2, 6, dtype=D))
    two = least_squares(PointwiseProblem(twice, reaction, (forcing,)), torch.zeros(2, 7, dtype=D))
    assert one.report.n_deficient == 0 and two.report.n_deficient == 2
    assert two.report.n_failed == 0 and (two.report.condition > 10 * one.report.condition).all()
    torch.testing.assert_close(two.report.residual_norm, one.report.residual_norm, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(two.weights[:, 0], two.weights[:, 6], rtol=1e-3, atol=1e-6)


def test_condition_estimate():
    matrix = torch.randn(3, 30, 6, generator=generator(), dtype=D)
    matrix[:, :, 1] = matrix[:, :, 0] + torch.tensor([1e-1, 1e-3, 1e-6], dtype=D)[:, None] * matrix[:, :, 1]
    problem = GenericProblem(lambda w, a: (a @ w[..., None])[..., 0] - 1, (matrix,), 6)
    estimate = least_squares(problem, torch.zeros(3, 6, dtype=D)).report.condition
    exact = torch.linalg.cond(matrix / matrix.norm(dim=1, keepdim=True))
    assert ((estimate / exact > 0.8) & (estimate / exact < 1.01)).all()


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda t, f: PointwiseProblem((), f), DataError, "terms is empty"),
        (lambda t, f: PointwiseProblem((t, t[:, :, 1:]), f), DataError, r"terms\[1\] has the shape \(2, 3, 4, 2\)"),
        (lambda t, f: PointwiseProblem((t.int(),), f), DataError, "floating-point"),
        (lambda t, f: PointwiseProblem((t,), f, (torch.ones(4),)), DataError, r"coefficients\[0\]"),
        (lambda t, f: PointwiseProblem((t,), f, rows=(torch.ones(2, 1, 5), torch.ones(2, 1))), DataError, "rows have"),
        (lambda t, f: PointwiseProblem((t,), f, ridge=-1.0), ConfigError, "ridge is -1.0"),
        (lambda t, f: PointwiseProblem((t,), f, ridge=float("nan")), ConfigError, "ridge is nan"),
        (lambda t, f: PointwiseProblem((t[:, :, :1],), f, ridge=0.0), ConfigError, "1 rows cannot determine 2 weights"),
        (lambda t, f: GenericProblem(f, (), 0), ConfigError, "size is 0"),
        (lambda t, f: Options(damping=0.0), ConfigError, "damping is 0.0"),
        (lambda t, f: Options(max_iterations=0), ConfigError, "max_iterations is 0"),
    ],
)
def test_bad_problems_are_refused(make, error, text):
    with pytest.raises(error, match=text):
        make(torch.ones(2, 3, 5, 2), lambda values: values[0])


def test_bad_calls_are_refused():
    terms = (torch.randn(2, 3, 5, 2, dtype=D),)
    problem = PointwiseProblem(terms, lambda values: values[0] - 1)
    start = torch.zeros(2, 6, dtype=D)
    with pytest.raises(DataError, match=r"start has the shape \(2, 5\); expected \(2, 6\)"):
        least_squares(problem, start[:, 1:])
    with pytest.raises(ConfigError, match=r"gradient is 'ful'; did you mean 'full'"):
        least_squares(problem, start, gradient="ful")
    with pytest.raises(ConfigError, match="on_failure is 'ignore'"):
        least_squares(problem, start, on_failure="ignore")
    with pytest.raises(DataError, match="expected one row a point"):
        least_squares(PointwiseProblem(terms, lambda values: values[0].sum(-1)), start)
    with pytest.raises(
        DataError, match=r"theta\[0\] has the shape \(4,\); its first dimension must be that of start, 2"
    ):
        least_squares(GenericProblem(lambda w, a: w, (torch.ones(4),), 3), torch.zeros(2, 3))
    with pytest.raises(DataError, match=r"expected \(P, M\)"):
        least_squares(GenericProblem(lambda w: w.sum(), (), 3), torch.zeros(2, 3))
