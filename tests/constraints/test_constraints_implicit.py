"""Gradients through least-squares solutions: first and second order, large residuals, items without a gradient."""

import warnings

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from sciml.constraints.least_squares import (
    GaussNewtonWarning,
    GenericProblem,
    LeastSquaresWarning,
    Options,
    PointwiseProblem,
    Status,
    least_squares,
)
from sciml.errors import ConfigError, SolverError

D = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def leaf(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=D).requires_grad_()


def curved(values, f, c):
    """Far from linear, and its residual does not vanish."""
    return values[0] + 0.3 * torch.sin(values[0]) * values[1] * c - f


def pointwise(k, coupled, m=3, n=2, p=1):
    """Tensors and the solution as a function of them."""
    tensors = [leaf(p, k, m, n), leaf(p, k, m, n, seed=1), leaf(p, k, m, seed=2), leaf(p, 1, 1, seed=3)]
    if coupled:
        tensors += [leaf(p, 2, k * n, seed=4), leaf(p, 2, seed=5)]

    def solve(a, b, f, c, *rows, gradient="full"):
        problem = PointwiseProblem((a, b), curved, (f, c), rows or None, ridge=0.05)
        return least_squares(problem, torch.zeros(p, k * n, dtype=D), gradient=gradient).weights

    return tensors, solve


@pytest.mark.parametrize(("k", "coupled"), [(1, False), (2, False), (2, True)])
def test_gradients_of_pointwise_problems(k, coupled):
    tensors, solve = pointwise(k, coupled)
    assert gradcheck(solve, tensors)
    assert gradgradcheck(solve, tensors)


def test_gradients_through_a_block_banded_matrix():
    """Eight tiles in a ring: reordered and banded. Entries of C that are zero have a gradient too."""
    k, n = 10, 1
    matrix = torch.zeros(1, k, k, n, dtype=D)
    for row in range(k):
        matrix[0, row, row], matrix[0, row, (row + 1) % k] = 1.0, -0.8
    c, d = matrix.flatten(2).requires_grad_(), leaf(1, k, seed=1)
    terms, f = leaf(1, k, 2, n, seed=2), leaf(1, k, 2, seed=3)
    seen = []

    def solve(terms, f, c, d):
        problem = PointwiseProblem((terms,), lambda v, f: torch.sinh(v[0]) - f, (f,), (c, d), ridge=0.01)
        seen.append(problem.coupling.bandwidth)
        return least_squares(problem, torch.zeros(1, k * n, dtype=D)).weights

    solve(terms, f, c, d)
    assert seen == [2]
    # The structure is found from where C is zero, so C itself is checked without perturbing the others' structure.
    assert gradcheck(lambda terms, f, d: solve(terms, f, c.detach(), d), (terms, f, d), fast_mode=True)
    v = torch.randn(1, k, generator=generator(7), dtype=D)
    (ours,) = torch.autograd.grad((solve(terms, f, c, d) * v).sum(), c)
    direction = torch.randn(c.shape, generator=generator(8), dtype=D)  # fills all zeros: solved with a dense matrix
    with torch.no_grad():
        high, low = (float((solve(terms, f, c + e * direction, d) * v).sum()) for e in (1e-6, -1e-6))
    assert float((ours * direction).sum()) == pytest.approx((high - low) / 2e-6, rel=1e-6)


def fit(w, t, y):
    """Fit of w0 exp(-w1 t) to data."""
    return w[:, :1] * torch.exp(-w[:, 1:] * t) - y


def test_gradients_of_generic_problems():
    t = torch.linspace(0, 2, 5, dtype=D)[None].requires_grad_()  # shared by both problems
    y = (2 * torch.exp(-t.detach()) + 0.4 * torch.randn(2, 5, generator=generator(), dtype=D)).requires_grad_()

    def solve(t, y):
        return least_squares(GenericProblem(fit, (t, y), 2), torch.ones(2, 2, dtype=D)).weights

    assert gradcheck(solve, (t, y), fast_mode=True)
    assert gradgradcheck(solve, (t, y), fast_mode=True)


def finite_difference(value, tensor, direction, step):
    with torch.no_grad():
        high, low = value(tensor + step * direction), value(tensor - step * direction)
    return float(high - low) / (2 * step)


def test_full_gradient_is_right_where_gauss_newton_is_not():
    """A residual of the size of the data: to 1e-6 against central differences; Gauss-Newton is off by more than 4 %,
    and says so."""
    tensors, solve = pointwise(2, True, m=8, n=3)
    v = torch.randn(1, 6, generator=generator(9), dtype=D)
    exact, wrong = [], []
    for gradient, store in (("full", exact), ("gauss-newton", wrong)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GaussNewtonWarning)
            loss = (solve(*tensors, gradient=gradient) * v).sum()
        store.extend(torch.autograd.grad(loss, tensors))
    errors = []
    for position, tensor in enumerate(tensors):
        direction = torch.randn(tensor.shape, generator=generator(20 + position), dtype=D)

        def value(changed, position=position):
            return (solve(*tensors[:position], changed, *tensors[position + 1 :]) * v).sum()

        reference = finite_difference(value, tensor, direction, 1e-5)
        assert float((exact[position] * direction).sum()) == pytest.approx(reference, rel=1e-6)
        errors.append(abs(float((wrong[position] * direction).sum()) / reference - 1))
    assert max(errors) > 0.04
    with pytest.warns(
        GaussNewtonWarning, match=r'gradient of 1 of 1 least-squares problems is wrong.*Use gradient="full"'
    ):
        solve(*tensors, gradient="gauss-newton")


def test_gauss_newton_is_right_where_the_residual_vanishes():
    """As many points as weights: r = 0, no warning, and both orders agree with differences of the solution."""
    a, f = leaf(1, 1, 3, 3), leaf(1, 1, 3, seed=2)

    def solve(a, f, gradient="gauss-newton"):
        problem = PointwiseProblem((a,), lambda v, f: torch.sinh(v[0]) - f, (f,), ridge=0.0)
        return least_squares(problem, torch.zeros(1, 3, dtype=D), gradient=gradient).weights

    assert gradcheck(solve, (a, f))
    full = torch.autograd.grad(solve(a, f, "full").sum(), (a, f))
    ours = torch.autograd.grad(solve(a, f).sum(), (a, f))
    for x, y in zip(ours, full, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("generic", [False, True])
def test_gauss_newton_can_be_differentiated_twice(generic):
    """The second derivatives are those of its own first derivative, of a linear problem: exact."""
    a, f = leaf(2, 1, 4, 2), leaf(2, 1, 4, seed=2)

    def solve(a, f):
        if generic:
            problem = GenericProblem(lambda w, a, f: (a[:, 0] @ w[..., None])[..., 0] - f[:, 0], (a, f), 2, ridge=0.1)
        else:
            problem = PointwiseProblem((a,), lambda v, f: v[0] - f, (f,), ridge=0.1)
        return least_squares(problem, torch.zeros(2, 2, dtype=D), gradient="gauss-newton").weights

    assert gradcheck(solve, (a, f), fast_mode=True)
    assert gradgradcheck(solve, (a, f), fast_mode=True)


def test_gradient_of_a_batch_is_that_of_its_items():
    tensors, solve = pointwise(2, True, p=3)
    together = torch.autograd.grad(solve(*tensors).square().sum(), tensors)
    _, alone = pointwise(2, True, p=1)
    for p in range(3):
        one = [t[p : p + 1].detach().requires_grad_() for t in tensors]
        for x, y in zip(torch.autograd.grad(alone(*one).square().sum(), one), together, strict=True):
            torch.testing.assert_close(x[0], y[p], rtol=1e-8, atol=1e-10)


def test_polish_reaches_round_off():
    """The usual cost tolerance leaves an error in the gradient; three Newton steps take it away."""
    tensors, _ = pointwise(1, False, m=8, n=3)
    problem = PointwiseProblem(tensors[:2], curved, tensors[2:], ridge=0.05)
    start = torch.zeros(1, 3, dtype=D)
    loose = {"cost_tolerance": 1e-4, "step_tolerance": 1e-4, "gradient_tolerance": 1e-4}
    raw = least_squares(problem, start, options=Options(polish=0, stationarity=1.0, **loose)).report
    polished = least_squares(problem, start, options=Options(**loose)).report
    assert float(raw.newton_step) > 1e-6
    assert float(polished.newton_step) < 1e-13 and float(polished.gradient_norm) < 1e-13


def test_float32_tensors_get_float32_gradients():
    tensors, solve = pointwise(2, True)
    single = [t.detach().float().requires_grad_() for t in tensors]
    weights = solve(*single)
    assert weights.dtype == torch.float32
    ours = torch.autograd.grad(weights.square().sum(), single)
    for x, y in zip(ours, torch.autograd.grad(solve(*tensors).square().sum(), tensors), strict=True):
        assert x.dtype == torch.float32
        torch.testing.assert_close(x, y.float(), rtol=1e-4, atol=1e-5)


def test_gradient_to_some_tensors_only():
    tensors, solve = pointwise(2, True)
    full = torch.autograd.grad(solve(*tensors).sum(), tensors)
    for position, tensor in enumerate(tensors):
        others = [t if k == position else t.detach() for k, t in enumerate(tensors)]
        (one,) = torch.autograd.grad(solve(*others).sum(), tensor)
        torch.testing.assert_close(one, full[position])
    assert not solve(*(t.detach() for t in tensors)).requires_grad
    with torch.no_grad():
        assert not solve(*tensors).requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(solve(*(t.detach().clone() for t in tensors)), solve(*tensors))
    assert not solve(*tensors, gradient="none").requires_grad


def test_weights_are_the_same_with_and_without_gradient():
    tensors, solve = pointwise(2, True)
    with torch.no_grad():
        plain = solve(*tensors)
    assert torch.equal(plain, solve(*tensors).detach())


# Items without a gradient


def with_nan():
    tensors, _ = pointwise(2, False, p=2)
    with torch.no_grad():
        tensors[2][1, 0, 0] = torch.nan
    shared = leaf(1, 1, 1, seed=3)
    return [*tensors[:3], shared]


def test_failed_item_has_zero_gradient_and_is_counted():
    """One tile has no solution: its tensors get zero, what it shares with others gets theirs, and nobody gets NaN."""
    tensors = with_nan()
    problem = PointwiseProblem(tensors[:2], curved, tensors[2:], ridge=0.05)
    start = torch.zeros(2, 4, dtype=D)
    with pytest.warns(LeastSquaresWarning, match=r"first: problem 1, tile 0.; 1 get a zero gradient"):
        solution = least_squares(problem, start)
    assert solution.report.zero_gradient.tolist() == [[False, False], [True, False]]
    assert solution.report.n_zero_gradient == 1
    gradients = torch.autograd.grad(solution.weights.square().sum(), tensors)
    for gradient in gradients:
        assert torch.isfinite(gradient).all()
    for gradient in gradients[:3]:
        assert not gradient[1, 0].any() and gradient[1, 1].any() and gradient[0].any()
    # The shared coefficient: the sum over the three tiles that have a solution.
    total = torch.zeros(1, 1, 1, dtype=D)
    for p, k in ((0, 0), (0, 1), (1, 1)):
        one = [t[p : p + 1, k : k + 1].detach() for t in tensors[:3]]
        shared = tensors[3].detach().requires_grad_()
        alone = least_squares(PointwiseProblem(one[:2], curved, (one[2], shared), ridge=0.05), start[:1, :2])
        total += torch.autograd.grad(alone.weights.square().sum(), shared)[0]
    torch.testing.assert_close(gradients[3], total)
    with pytest.raises(SolverError, match="problem 1, tile 0"):
        least_squares(problem, start, on_failure="raise")
    masked = least_squares(problem, start, on_failure="mask")  # a warning would be an error
    assert masked.report.n_zero_gradient == 1


def test_all_items_failed():
    tensors = with_nan()
    with torch.no_grad():
        tensors[2].fill_(torch.nan)
    problem = PointwiseProblem(tensors[:2], curved, tensors[2:], ridge=0.05)
    solution = least_squares(problem, torch.zeros(2, 4, dtype=D), on_failure="mask")
    assert solution.report.n_zero_gradient == solution.report.n_failed == 4
    for gradient in torch.autograd.grad(solution.weights.sum(), tensors):
        assert not gradient.any()


def test_failed_item_of_a_generic_problem():
    t = torch.linspace(0, 2, 5, dtype=D)[None].requires_grad_()
    y = 2 * torch.exp(-t.detach()) + 0.1 * torch.randn(3, 5, generator=generator(), dtype=D)
    y[1, 2] = torch.inf
    y.requires_grad_()
    start = torch.ones(3, 2, dtype=D)
    with pytest.warns(LeastSquaresWarning, match="1 residual or Jacobian not finite .first: problem 1."):
        solution = least_squares(GenericProblem(fit, (t, y), 2), start)
    gradients = torch.autograd.grad(solution.weights.sum(), (t, y))
    assert all(torch.isfinite(g).all() for g in gradients)
    assert not gradients[1][1].any() and gradients[1][0].any() and gradients[1][2].any()


def test_second_derivative_with_a_failed_item():
    tensors = with_nan()
    solution = least_squares(
        PointwiseProblem(tensors[:2], curved, tensors[2:], ridge=0.05), torch.zeros(2, 4, dtype=D), on_failure="mask"
    )
    first = torch.autograd.grad(solution.weights.square().sum(), tensors, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), tensors)
    assert all(torch.isfinite(g).all() for g in second)
    assert not second[0][1, 0].any() and second[0][1, 1].any()


def test_unfinished_item_has_zero_gradient():
    tensors, _ = pointwise(1, False, m=8, n=3)
    problem = PointwiseProblem(tensors[:2], curved, tensors[2:], ridge=0.05)
    with pytest.warns(LeastSquaresWarning, match="1 get a zero gradient"):
        solution = least_squares(problem, torch.ones(1, 3, dtype=D), options=Options(max_iterations=1, polish=0))
    assert solution.report.status[0, 0] == Status.MAX_ITERATIONS
    assert not any(g.any() for g in torch.autograd.grad(solution.weights.sum(), tensors))


def test_singular_hessian_has_no_gradient():
    """Powell's singular function at its minimum, and a direction that no row knows of."""
    a = torch.tensor([[1.0]], dtype=D, requires_grad=True)

    def blind(w, a):
        return torch.cat([w[:, :1] - a, (w[:, :1] * a) ** 2], 1)  # w[:, 1] does not enter

    with pytest.warns(LeastSquaresWarning, match="1 converged to where the Hessian is singular"):
        solution = least_squares(GenericProblem(blind, (a,), 2), torch.ones(1, 2, dtype=D))
    assert solution.report.n_failed == 0 and solution.report.n_zero_gradient == solution.report.n_deficient == 1
    assert not torch.autograd.grad(solution.weights.sum(), a)[0].any()
    with pytest.raises(SolverError, match="singular"):
        least_squares(GenericProblem(blind, (a,), 2), torch.ones(1, 2, dtype=D), on_failure="raise")
    # With a ridge the same problem has a gradient.
    ridged = least_squares(GenericProblem(blind, (a,), 2, ridge=1e-6), torch.ones(1, 2, dtype=D))
    assert torch.autograd.grad(ridged.weights.sum(), a)[0].any()


def test_saddle_point_is_inverted_as_it_is():
    """(w^2 - a)^2 started at its maximum w = 0: a stationary point with an indefinite Hessian, which moves with a and b
    as a minimum does."""
    a, b = (torch.tensor([[x]], dtype=D, requires_grad=True) for x in (2.0, 0.3))

    def rows(w, a, b):
        return torch.cat([w[:, :1] ** 2 - a, w[:, 1:] - b], 1)

    start = torch.tensor([[0.0, 0.0]], dtype=D)
    solution = least_squares(GenericProblem(rows, (a, b), 2), start, on_failure="mask")
    assert float(solution.weights[0, 0].detach()) == 0 and solution.report.n_zero_gradient == 0
    gradient = torch.autograd.grad(solution.weights.sum(), (a, b))
    assert float(gradient[0]) == pytest.approx(0, abs=1e-12) and float(gradient[1]) == pytest.approx(1, rel=1e-9)


def test_hidden_trainable_tensor_is_refused():
    """It would silently get no gradient."""
    hidden = torch.tensor(2.0, dtype=D, requires_grad=True)
    a = leaf(1, 1, 3, 2)
    with pytest.raises(ConfigError, match="not among the problem's"):
        least_squares(PointwiseProblem((a,), lambda v: hidden * v[0] - 1), torch.zeros(1, 2, dtype=D))
    assert least_squares(
        PointwiseProblem((a,), lambda v, h: h * v[0] - 1, (hidden,)), torch.zeros(1, 2, dtype=D)
    ).weights.requires_grad
