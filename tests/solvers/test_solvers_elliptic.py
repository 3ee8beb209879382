"""Darcy solutions: analytic, against scipy's sparse LU, gradients, independence of the batch, refusals."""

import math

import pytest
import torch
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu

from sciml.errors import ConfigError, SolverError
from sciml.physics.darcy import darcy_operator, darcy_residual, face_fluxes
from sciml.solvers.elliptic import conjugate_gradients, solve_darcy

ZERO = {"x_low": 0.0, "x_high": 0.0, "y_low": 0.0, "y_high": 0.0}
UNIT = torch.ones(1, 2, dtype=torch.float64)
PI = math.pi


def centres(*shape):
    return torch.meshgrid(*((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in shape), indexing="ij")


def rough(batch, *shape, seed=0, contrast=4.0):
    generator = torch.Generator().manual_seed(seed)
    return 1 + (contrast - 1) * torch.randint(2, (batch, *shape), generator=generator).double()


def test_manufactured_solution_at_second_order():
    """truth/darcy_manufactured.json, "smooth"."""
    errors = []
    for n in (16, 32, 64):
        x, y = centres(n, n)
        a, u = 1 + x**2 + 0.5 * y, torch.sin(PI * x) * torch.sin(2 * PI * y)
        f = 5 * PI**2 * a * u - 2 * x * PI * torch.cos(PI * x) * torch.sin(2 * PI * y)
        f = f - 0.5 * 2 * PI * torch.sin(PI * x) * torch.cos(2 * PI * y)
        errors.append(float((solve_darcy(a[None], f[None], UNIT, ZERO)[0] - u).abs().max()))
    assert errors[-1] < 1e-3
    assert 3.9 < errors[0] / errors[1] < 4.1 and 3.9 < errors[1] / errors[2] < 4.1


def test_discontinuous_coefficient_is_exact():
    """truth/darcy_manufactured.json, "discontinuous": u = 0.2 at the jump, q = 4.8 through every section."""
    q = 4.800000000000001
    x, _ = centres(12, 8)
    a = torch.where(x < 0.5, 3.0, 12.0).double()
    sides = {"x_low": 1.0, "x_high": 0.0, "y_low": None, "y_high": None}
    u = solve_darcy(a[None], 0.0, UNIT, sides, tolerance=1e-13)
    exact = torch.where(x < 0.5, 1 - q / 3 * x, q / 12 * (1 - x))
    assert (u[0] - exact).abs().max() < 1e-12
    flux = face_fluxes(u, a[None], UNIT, sides)[0]
    torch.testing.assert_close(flux, torch.full_like(flux, q), rtol=1e-11, atol=0)


def test_constant_coefficient_centre_value():
    """truth/darcy_manufactured.json, "constant": 0.07367134521983928, from below and above at second order."""
    errors = []
    for n in (17, 51):
        u = solve_darcy(torch.ones(1, n, n, dtype=torch.float64), 1.0, UNIT, ZERO)
        errors.append(abs(float(u[0, n // 2, n // 2]) - 0.07367134521983928))
    assert errors[1] < 3e-5 and 8 < errors[0] / errors[1] < 10


@pytest.mark.parametrize("shape", [(11,), (8, 9), (4, 5, 6)])
def test_agrees_with_a_sparse_direct_solver(shape):
    """The matrix is built here entry by entry from the definition of the scheme."""
    dim, count = len(shape), math.prod(shape)
    a = rough(1, *shape, contrast=10.0)
    lengths = torch.linspace(0.7, 1.3, dim, dtype=torch.float64)[None]
    names = [f"{axis}_{end}" for axis in "xyz"[:dim] for end in ("low", "high")]
    sides = {name: 0.1 * k for k, name in enumerate(names)}
    sides["x_high"] = None
    f = torch.randn(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    index = torch.arange(count).reshape(shape)
    rows, columns, entries, right = [], [], [], f.flatten().clone()
    for axis in range(dim):
        h = float(lengths[0, axis]) / shape[axis]
        for cell in torch.cartesian_prod(*(torch.arange(n) for n in shape)).reshape(count, dim).tolist():
            i, k = int(index[tuple(cell)]), float(a[0][tuple(cell)])
            for shift, name in ((-1, names[2 * axis]), (1, names[2 * axis + 1])):
                other = list(cell)
                other[axis] += shift
                if 0 <= other[axis] < shape[axis]:
                    kk = float(a[0][tuple(other)])
                    t = 2 * k * kk / (k + kk) / h**2
                    rows += [i, i]
                    columns += [i, int(index[tuple(other)])]
                    entries += [t, -t]
                elif sides[name] is not None:
                    rows, columns, entries = [*rows, i], [*columns, i], [*entries, 2 * k / h**2]
                    right[i] += 2 * k / h**2 * sides[name]
    expected = torch.from_numpy(splu(csc_matrix((entries, (rows, columns)))).solve(right.numpy())).reshape(shape)
    torch.testing.assert_close(solve_darcy(a, f, lengths, sides, tolerance=1e-13)[0], expected, rtol=1e-9, atol=1e-10)


def test_residual_of_a_solution_is_at_the_tolerance_and_fluxes_balance():
    a = rough(3, 24, 20)
    lengths = torch.tensor([[1.0, 1.0], [2.0, 1.0], [0.5, 3.0]], dtype=torch.float64)
    f = torch.tensor([1.0, -2.0, 10.0], dtype=torch.float64)
    u = solve_darcy(a, f, lengths, ZERO)
    residual = darcy_residual(u, a, f, lengths, ZERO)
    assert (residual.flatten(1).norm(dim=1) < 2e-10 * f.abs() * (24 * 20) ** 0.5).all()
    flux = face_fluxes(u, a, lengths, ZERO)
    cell = lengths / torch.tensor([24, 20])
    out = (flux[0][:, -1] - flux[0][:, 0]).sum(1) * cell[:, 1] + (flux[1][..., -1] - flux[1][..., 0]).sum(1) * cell[
        :, 0
    ]
    torch.testing.assert_close(out, f * lengths.prod(1), rtol=1e-9, atol=0)


def test_transposed_problem_has_the_transposed_solution():
    a, lengths = rough(2, 12, 9), torch.tensor([[1.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    sides = {"x_low": 1.0, "x_high": None, "y_low": 0.0, "y_high": 0.0}
    swapped = {"y_low": 1.0, "y_high": None, "x_low": 0.0, "x_high": 0.0}
    one, other = solve_darcy(a, 1.0, lengths, sides), solve_darcy(a.mT, 1.0, lengths.flip(1), swapped)
    torch.testing.assert_close(one, other.mT, rtol=1e-8, atol=1e-10)


def test_a_case_does_not_depend_on_its_batch():
    a = torch.cat([rough(2, 12, 12), rough(1, 12, 12, contrast=100.0), torch.ones(1, 12, 12)])
    lengths = torch.ones(4, 2)
    together = solve_darcy(a, 1.0, lengths, ZERO)
    for case in range(4):
        alone = solve_darcy(a[case : case + 1], 1.0, lengths[:1], ZERO)
        torch.testing.assert_close(together[case : case + 1], alone, rtol=1e-12, atol=1e-14)


def test_float32_agrees_with_float64():
    a = rough(2, 16, 16)
    single, double = solve_darcy(a.float(), 1.0, torch.ones(2, 2), ZERO), solve_darcy(a, 1.0, torch.ones(2, 2), ZERO)
    assert single.dtype == torch.float32
    assert float((single - double).norm() / double.norm()) < 1e-6


def test_iterations_do_not_grow_with_the_grid():
    for n in (16, 64):
        solve_darcy(rough(4, n, n), 1.0, torch.ones(4, 2), ZERO, max_iterations=32)


def test_a_smooth_coefficient_needs_few_iterations_whatever_its_contrast():
    x, y = centres(64, 64)
    a = torch.stack([torch.exp(3 * torch.sin(3 * x) * torch.cos(4 * y)), torch.exp(0.1 * x)])
    u = solve_darcy(a, 1.0, torch.ones(2, 2), ZERO, max_iterations=20)
    torch.testing.assert_close(darcy_operator(u, a, torch.ones(2, 2), ZERO), torch.ones_like(u), rtol=0, atol=1e-7)


def test_gradients_agree_with_finite_differences():
    a, lengths = rough(2, 4, 5), torch.tensor([[1.0, 1.5], [0.8, 1.0]], dtype=torch.float64)
    f, g = torch.rand(2, 4, 5, dtype=torch.float64), torch.rand(2, 5, dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (a, f, g, lengths)]

    def solution(a, f, g, lengths):
        return solve_darcy(a, f, lengths, {**ZERO, "x_low": g, "y_high": None}, tolerance=1e-13)

    assert torch.autograd.gradcheck(solution, inputs, rtol=1e-5)


def test_solutions_without_a_gradient_build_no_graph():
    assert not solve_darcy(rough(1, 8, 8), 1.0, UNIT, ZERO).requires_grad
    a = rough(1, 8, 8).requires_grad_()
    with torch.no_grad():
        assert not solve_darcy(a, 1.0, UNIT, ZERO).requires_grad


def test_no_source_gives_zero():
    assert not solve_darcy(rough(2, 8, 8), 0.0, torch.ones(2, 2), ZERO).any()


def test_failure_to_converge_names_the_case():
    a = torch.cat([torch.ones(1, 16, 16, dtype=torch.float64), rough(1, 16, 16, contrast=50.0)])
    with pytest.raises(SolverError, match=r"case 1 at a relative residual of .* after 2 iterations; 1.0e-10 was asked"):
        solve_darcy(a, 1.0, torch.ones(2, 2), ZERO, max_iterations=2)
    with pytest.raises(SolverError, match="case 0"):
        conjugate_gradients(lambda u: u * torch.nan, torch.ones(1, 4), lambda r: r, 1e-6, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coefficient": -torch.ones(2, 8, 8)}, "coefficient of case 0 is -1; it must be positive"),
        ({"coefficient": torch.ones(2, 8, 8).index_fill(0, torch.tensor(1), math.nan)}, "coefficient of case 1"),
        ({"coefficient": torch.ones(8)}, "expected"),
        ({"coefficient": torch.ones(2, 8, 8, 8, 8)}, "expected"),
        ({"source": torch.ones(3)}, r"source has shape \(3,\)"),
        ({"source": torch.ones(2, 8, 7)}, r"source has shape \(2, 8, 7\)"),
        ({"source": torch.tensor([1.0, math.inf])}, "source of case 1 is not finite"),
        ({"lengths": torch.ones(2, 3)}, r"lengths have shape \(2, 3\); expected \(2, 2\)"),
        ({"lengths": torch.tensor([[1.0, 1.0], [1.0, -1.0]])}, "length of case 1"),
        ({"boundaries": dict.fromkeys(ZERO)}, "prescribe one side"),
        ({"tolerance": -1.0}, "positive"),
    ],
)
def test_bad_input_is_refused(changes, message):
    arguments = {"coefficient": torch.ones(2, 8, 8), "source": 1.0, "lengths": torch.ones(2, 2), "boundaries": ZERO}
    with pytest.raises(ConfigError, match=message):
        solve_darcy(**{**arguments, **changes})


def test_operator_of_the_solution_is_the_source():
    a = rough(1, 10, 10)
    u = solve_darcy(a, 1.0, UNIT, ZERO)
    torch.testing.assert_close(darcy_operator(u, a, UNIT, ZERO), torch.ones_like(u), rtol=0, atol=1e-8)
