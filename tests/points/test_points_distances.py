"""Chamfer and Sinkhorn distances against independent formulas."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from sciml.errors import ConfigError, DataError, SolverError
from sciml.points import chamfer, distances, sinkhorn


def cloud(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wasserstein(a: torch.Tensor, b: torch.Tensor) -> float:
    """The squared 2-Wasserstein distance of as many points: the cheapest matching."""
    cost = (a[:, None] - b).square().sum(2)
    i, j = linear_sum_assignment(cost)
    return float(cost[i, j].mean())


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_chamfer_is_the_mean_distance_to_the_nearest(dim):
    a, b = cloud(70, dim), cloud(40, dim, 1) * 1.3
    there, back = cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]
    assert float(chamfer(a, b)) == pytest.approx(there.mean() + back.mean(), rel=1e-12)
    assert float(chamfer(a, b, squared=True)) == pytest.approx((there**2).mean() + (back**2).mean(), rel=1e-12)


@pytest.mark.parametrize("distance", [chamfer, sinkhorn])
def test_symmetric_and_blind_to_order(distance):
    a, b = cloud(60, 2), cloud(45, 2, 1)
    shuffled = a[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    assert float(distance(b, a)) == pytest.approx(float(distance(a, b)), rel=1e-4)
    assert float(distance(shuffled, b)) == pytest.approx(float(distance(a, b)), rel=1e-9)
    assert float(distance(shuffled, a)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("distance", [chamfer, sinkhorn])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_result_keeps_the_dtype_and_moving_both_changes_nothing(distance, dtype):
    a, b = cloud(60, 3).to(dtype), cloud(45, 3, 1).to(dtype)
    found = distance(a, b)
    assert found.dtype == dtype and found.shape == ()
    assert float(distance(a + 1, b + 1)) == pytest.approx(float(found), rel=1e-4)


def test_chamfer_of_a_small_shift_is_the_shift():
    x = torch.cartesian_prod(torch.arange(8), torch.arange(8)).double()
    assert float(chamfer(x, x + torch.tensor([0.1, 0.0]))) == pytest.approx(0.2)
    assert float(chamfer(x, x)) == 0


@pytest.mark.parametrize("blur", [0.02, 0.1, 0.5, 5.0])
def test_sinkhorn_of_a_shift_is_its_square_at_any_blur(blur):
    """The plan of the shift is the plan of the set with itself, shifted: the blur drops out."""
    x, shift = cloud(80, 2), torch.tensor([0.3, -0.4], dtype=torch.float64)
    found = sinkhorn(x, x + shift, blur=blur, max_iterations=20_000)
    assert float(found) == pytest.approx(0.25, rel=2e-5)


def test_sinkhorn_tends_to_the_cheapest_matching():
    a, b = cloud(60, 2), cloud(60, 2, 1) * 0.8
    exact = wasserstein(a, b)
    errors = [abs(float(sinkhorn(a, b, blur=blur, max_iterations=50_000)) / exact - 1) for blur in (0.2, 0.05, 0.0125)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.02


def test_sinkhorn_on_a_line_is_the_sorted_difference():
    a, b = cloud(50, 1), cloud(50, 1, 1) + 0.5
    exact = (a.sort(0).values - b.sort(0).values).square().mean()
    assert float(sinkhorn(a, b, blur=0.02)) == pytest.approx(float(exact), rel=0.01)


def test_sinkhorn_with_much_blur_is_the_distance_of_the_centres():
    a, b = cloud(60, 3), cloud(30, 3, 1) + 1
    centres = (a.mean(0) - b.mean(0)).square().sum()
    assert float(sinkhorn(a, b, blur=100.0, tolerance=1e-9)) == pytest.approx(float(centres), rel=1e-4)


def test_sinkhorn_of_two_points_each():
    """All by hand: the plan between two pairs is one number, from a fixed-point of the kernel."""
    a, b = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[0.2], [1.5]]).double()
    blur = 0.7

    def transport(x, y):
        kernel = (-(x - y.T).square() / blur**2).exp()
        u = torch.ones(2, 1, dtype=torch.float64)
        for _ in range(2000):
            v = 0.5 / (kernel.T @ u)
            u = 0.5 / (kernel @ v)
        plan = u * kernel * v.T
        return (plan * (x - y.T).square()).sum() + blur**2 * (plan * (plan / 0.25).log()).sum()

    expected = transport(a, b) - transport(a, a) / 2 - transport(b, b) / 2
    assert float(sinkhorn(a, b, blur=blur, tolerance=1e-10)) == pytest.approx(float(expected), rel=1e-9)


def test_sinkhorn_of_equal_sets_is_nothing():
    x = cloud(100, 3)
    assert abs(float(sinkhorn(x, x))) < 1e-6
    assert float(sinkhorn(torch.ones(3, 2), torch.ones(5, 2))) == pytest.approx(0, abs=1e-12)
    assert float(sinkhorn(x, cloud(100, 3, 1))) > 1e-4


def test_sinkhorn_scales_with_the_square_of_the_unit():
    a, b = cloud(40, 2), cloud(50, 2, 1)
    found, scaled = sinkhorn(a, b, blur=0.1), sinkhorn(a * 1e3, b * 1e3, blur=100.0)
    assert float(scaled) == pytest.approx(1e6 * float(found), rel=1e-6)


def test_gradients():
    a, b = cloud(12, 2).requires_grad_(), cloud(9, 2, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: 3 * sinkhorn(x, y, blur=0.2, tolerance=1e-11), (a, b))
    assert torch.autograd.gradcheck(chamfer, (a, b))
    assert torch.autograd.gradcheck(lambda x, y: chamfer(x, y, squared=True), (a, b))
    same = a.detach().clone().requires_grad_()
    chamfer(same, a.detach()).backward()
    assert torch.isfinite(same.grad).all()


def test_descending_the_gradient_brings_the_sets_together():
    a, b = cloud(80, 2).float(), cloud(80, 2, 1).float() * 0.5 + 2
    before = float(sinkhorn(a, b))
    for _ in range(20):
        a = a.detach().requires_grad_()
        sinkhorn(a, b).backward()
        a = a - 0.3 * len(a) * a.grad
    assert float(sinkhorn(a.detach(), b)) < 1e-3 * before


def test_relaxation_keeps_the_iterations_few(monkeypatch):
    """Some 100 soft minima in all; without relaxation 400."""
    count = 0
    soft_minimum = distances._soft_minimum

    def counted(*arguments):
        nonlocal count
        count += 1
        return soft_minimum(*arguments)

    monkeypatch.setattr(distances, "_soft_minimum", counted)
    sinkhorn(cloud(200, 2), cloud(150, 2, 1))
    assert count < 150


def test_memory_is_bounded(monkeypatch):
    """In blocks of whole rows the numbers are the same, and no block is larger than asked for."""
    a, b = cloud(300, 2), cloud(200, 2, 1)
    expected = sinkhorn(a, b)
    largest = []
    exponents = distances._exponents

    def watched(*arguments):
        for block in exponents(*arguments):
            largest.append(block.numel())
            yield block

    monkeypatch.setattr(distances, "BLOCK", 1000)
    monkeypatch.setattr(distances, "_exponents", watched)
    assert float(sinkhorn(a, b)) == pytest.approx(float(expected), rel=1e-12)
    assert max(largest) <= 1000


@pytest.mark.parametrize("distance", [chamfer, sinkhorn])
def test_bad_sets(distance):
    x, none = torch.rand(5, 2), torch.empty(0, 2)
    with pytest.raises(DataError, match=r"The set b is empty"):
        distance(x, none)
    with pytest.raises(DataError, match=r"The set a is empty"):
        distance(none, x)
    with pytest.raises(DataError, match=r"a: 1 of 5 points"):
        distance(torch.where(torch.arange(5)[:, None] == 3, torch.nan, x), x)
    with pytest.raises(ConfigError, match=r"a have 2 coordinates and b 3"):
        distance(x, torch.rand(5, 3))


def test_wrong_options_and_no_convergence():
    a, b = cloud(40, 2), cloud(40, 2, 1)
    for options in ({"blur": 0.0}, {"blur": -1.0}, {"tolerance": 0.0}, {"max_iterations": 0}):
        with pytest.raises(ConfigError, match=r"must be positive"):
            sinkhorn(a, b, **options)
    with pytest.raises(SolverError, match=r"After 5 Sinkhorn iterations"):
        sinkhorn(a, b, blur=1e-3, max_iterations=5)
