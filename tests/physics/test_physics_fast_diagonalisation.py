"""The direct solver against dense and sparse solves, the cosine transform, and its own definition."""

import itertools
import math

import numpy as np
import pytest
import scipy.fft
import scipy.sparse
import scipy.sparse.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.errors import ConfigError
from sciml.physics import (
    FastDiagonalisation,
    eigenbasis,
    second_difference_matrix,
    stretched_axis,
    uniform_axis,
)

ENDS = [
    ("dirichlet", "dirichlet"),
    ("dirichlet", "neumann"),
    ("neumann", "dirichlet"),
    ("neumann", "neumann"),
]
KINDS = [(location, *ends) for location in ("cell", "face") for ends in [*ENDS, ("periodic", "periodic")]]


def loop_matrix(axis, location, low, high):
    """The same operator from its ghost values, entry by entry (independent of the flux form)."""
    x = np.asarray(axis.centres if location == "cell" else axis.faces[:-1] if axis.periodic else axis.faces[1:-1])
    edge = np.asarray(axis.faces if location == "cell" else axis.centres)
    n = len(x)
    matrix = np.zeros((n, n))
    for k in range(n):
        if axis.periodic:
            below, above = (x[k] - x[k - 1]) % 1, (x[(k + 1) % n] - x[k]) % 1
            volume = edge[k + 1] - edge[k] if location == "cell" else (edge[k] - edge[k - 1]) % 1
        else:
            volume = edge[k + 1] - edge[k]
            first = 2 * x[0] if location == "cell" else x[0]
            last = 2 * (1 - x[-1]) if location == "cell" else 1 - x[-1]
            below = x[k] - x[k - 1] if k > 0 else first
            above = x[k + 1] - x[k] if k < n - 1 else last
        for neighbour, distance, end in ((k - 1, below, low), (k + 1, above, high)):
            outside = not 0 <= neighbour < n
            if outside and end == "neumann":
                continue  # ghost = the point itself
            matrix[k, k] -= 1 / distance / volume
            if outside and end == "dirichlet":
                # ghost = -point half a cell outside; at faces the value 0 lies on the boundary face
                matrix[k, k] -= 1 / distance / volume if location == "cell" else 0
            else:
                matrix[k, neighbour % n] += 1 / distance / volume
    return matrix


def axis_of(n, stretched, periodic):
    if periodic:
        if not stretched:
            return uniform_axis(n, periodic=True)
        faces = torch.linspace(0, 1, n + 1).double()
        return type(uniform_axis(2))(faces + 0.1 * torch.sin(2 * math.pi * faces) / (2 * math.pi), True)
    return stretched_axis(n, 1.5, ends="low") if stretched else uniform_axis(n)


@pytest.mark.parametrize("stretched", [False, True], ids=["uniform", "stretched"])
@pytest.mark.parametrize(("location", "low", "high"), KINDS)
def test_basis_diagonalises_the_operator(location, low, high, stretched):
    axis = axis_of(7, stretched, low == "periodic")
    expected = torch.as_tensor(loop_matrix(axis, location, low, high))
    torch.testing.assert_close(second_difference_matrix(axis, location, low, high), expected, atol=1e-9, rtol=0)
    basis = eigenbasis(axis, location, low, high)
    rebuilt = basis.inverse * basis.eigenvalues @ basis.forward
    torch.testing.assert_close(rebuilt, expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(basis.inverse @ basis.forward, torch.eye(len(expected)).double())
    assert basis.singular == (int((basis.eigenvalues == 0).sum()) == 1)
    assert (basis.eigenvalues <= 0).all()


@pytest.mark.parametrize("stretched", [False, True], ids=["uniform", "stretched"])
@pytest.mark.parametrize("kinds", list(itertools.product(KINDS[::2], KINDS[1::3])))
def test_solves_agree_with_scipy_sparse(kinds, stretched):
    axes = [axis_of(n, stretched, kind[1] == "periodic") for n, kind in zip((6, 9), kinds, strict=True)]
    lengths = torch.tensor([[1.0, 1.0], [0.3, 2.0]], dtype=torch.float64)
    coefficient = torch.tensor([0.01, 2.0], dtype=torch.float64)
    matrices = [loop_matrix(axis, *kind) for axis, kind in zip(axes, kinds, strict=True)]
    bases = tuple(eigenbasis(axis, *kind) for axis, kind in zip(axes, kinds, strict=True))
    solver = FastDiagonalisation(bases, lengths, dtype=torch.float64)
    m, n = (len(matrix) for matrix in matrices)
    f = torch.randn(2, m, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = solver.solve_helmholtz(f, coefficient)
    potential = solver.solve_poisson(f)
    for b in range(2):
        lap = scipy.sparse.kron(matrices[0] / float(lengths[b, 0]) ** 2, scipy.sparse.eye(n)) + scipy.sparse.kron(
            scipy.sparse.eye(m), matrices[1] / float(lengths[b, 1]) ** 2
        )
        helmholtz = scipy.sparse.eye(m * n) - float(coefficient[b]) * lap
        expected = scipy.sparse.linalg.spsolve(helmholtz.tocsc(), f[b].numpy().ravel()).reshape(m, n)
        np.testing.assert_allclose(found[b], expected, rtol=1e-9, atol=1e-11)
        if not solver.singular:
            expected = scipy.sparse.linalg.spsolve(lap.tocsc(), f[b].numpy().ravel()).reshape(m, n)
            np.testing.assert_allclose(potential[b], expected, rtol=1e-8, atol=1e-10)


def test_neumann_solve_agrees_with_the_cosine_transform():
    n = 16
    basis = eigenbasis(uniform_axis(n), "cell", "neumann", "neumann")
    solver = FastDiagonalisation((basis, basis), torch.ones(1, 2), dtype=torch.float64)
    f = torch.randn(1, n, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    eigenvalues = -((2 * n * np.sin(np.pi * np.arange(n) / (2 * n))) ** 2)
    total = eigenvalues[:, None] + eigenvalues[None]
    total[0, 0] = np.inf
    expected = scipy.fft.idctn(scipy.fft.dctn(f[0].numpy(), norm="ortho") / total, norm="ortho")
    np.testing.assert_allclose(solver.solve_poisson(f)[0], expected, atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(3, 7), st.booleans()), min_size=1, max_size=3),
    seed=st.integers(0, 2**16),
)
def test_poisson_property(kinds, seed):
    """lap(solve(f)) = f, minus the mean where constants are in the null space, in 1, 2 and 3 dimensions."""
    generator = torch.Generator().manual_seed(seed)
    axes = [axis_of(n, stretched, kind[1] == "periodic") for kind, n, stretched in kinds]
    bases = tuple(eigenbasis(axis, *kind) for axis, (kind, _, _) in zip(axes, kinds, strict=True))
    lengths = 0.5 + torch.rand(2, len(axes), generator=generator, dtype=torch.float64)
    solver = FastDiagonalisation(bases, lengths, dtype=torch.float64)
    f = torch.randn(2, *(len(b.eigenvalues) for b in bases), generator=generator, dtype=torch.float64)
    u = solver.solve_poisson(f)
    back = torch.zeros_like(f)
    for j, (axis, (kind, _, _)) in enumerate(zip(axes, kinds, strict=True)):
        matrix = torch.as_tensor(loop_matrix(axis, *kind))
        column = lengths[:, j].reshape(-1, *(1,) * len(axes))
        back = back + torch.movedim(torch.movedim(u, j + 1, -1) @ matrix.T, -1, j + 1) / column**2
    missing = f - back
    if solver.singular:
        mean = missing.flatten(1).mean(1).reshape(-1, *(1,) * len(axes))
        missing = missing - mean
    assert missing.abs().max() < 1e-9


def test_poisson_is_second_order_with_a_wall_half_a_cell_away():
    def error(n):
        axes = stretched_axis(n, 1.2), uniform_axis(n)
        bases = tuple(eigenbasis(axis, "cell", "dirichlet", "dirichlet") for axis in axes)
        solver = FastDiagonalisation(bases, torch.tensor([[1.0, 1.0]]), dtype=torch.float64)
        x, y = axes[0].centres[:, None], axes[1].centres[None]
        u = torch.sin(math.pi * x) * torch.sin(2 * math.pi * y)
        return (solver.solve_poisson((-5 * math.pi**2 * u)[None])[0] - u).abs().max().item()

    assert math.log2(error(16) / error(32)) > 1.9 and math.log2(error(32) / error(64)) > 1.9


def test_float32_and_gradients():
    basis = eigenbasis(stretched_axis(6, 1.0), "cell", "neumann", "neumann")
    mixed = eigenbasis(uniform_axis(6), "face", "dirichlet", "dirichlet")
    lengths = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    f = torch.randn(1, 6, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    c = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)

    def solve(f, c, lengths):
        solver = FastDiagonalisation((basis, mixed), lengths, dtype=torch.float64)
        return solver.solve_helmholtz(f, c) + solver.solve_poisson(f)

    assert torch.autograd.gradcheck(solve, (f, c, lengths))
    single = FastDiagonalisation((basis, mixed), lengths.detach(), dtype=torch.float32)
    torch.testing.assert_close(
        single.solve_helmholtz(f.detach().float(), c.detach()),
        FastDiagonalisation((basis, mixed), lengths, dtype=torch.float64).solve_helmholtz(f, c).float().detach(),
        atol=1e-5,
        rtol=1e-5,
    )


def test_ends_must_fit_the_axis():
    with pytest.raises(ConfigError, match="periodic"):
        eigenbasis(uniform_axis(4), "cell", "periodic", "periodic")
    with pytest.raises(ConfigError, match="periodic"):
        eigenbasis(uniform_axis(4, periodic=True), "cell", "neumann", "neumann")
