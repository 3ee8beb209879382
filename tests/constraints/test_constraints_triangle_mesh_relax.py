"""Huang's functional, its descent, and what the moved triangulations are worth."""

import math

import pytest
import torch

from sciml.constraints.mesh_mover.triangles import (
    Triangulation,
    folded_triangles,
    height_ratios,
    huang_functional,
    mass_spread,
    relax,
    sample_triangles,
    triangle_curvature_monitor,
)
from sciml.constraints.mesh_mover.triangles.descent import descend
from sciml.constraints.mesh_mover.triangles.functional import density_at_centroids
from sciml.errors import ConfigError, DataError
from sciml.physics.weak.channel_mesh import channel_mesh, channel_with_disc

DOUBLE = torch.float64
CENTRE = torch.tensor([0.5, 0.6], dtype=DOUBLE)
FIELDS = {
    "front": lambda x: ((x[..., 0] - 1.1 + 0.15 * (2 * math.pi * x[..., 1]).sin()) / 0.05).tanh(),
    "front at the disc": lambda x: ((x[..., 0] - 0.5 + 0.15 * (2 * math.pi * x[..., 1]).sin()) / 0.05).tanh(),
    "ring around the disc": lambda x: (-(((x - CENTRE.to(x)).norm(dim=-1) - 0.2) / 0.04).square()).exp(),
    "bump": lambda x: (-0.5 * (x - x.new_tensor([1.2, 0.4])).square().sum(-1) / 0.1**2).exp(),
}


@pytest.fixture(scope="module")
def channel() -> Triangulation:
    return Triangulation.of(channel_with_disc(0.05), circles=[(0.5, 0.6, 0.1)])


def coarse() -> Triangulation:
    return Triangulation.of(channel_with_disc(0.12), circles=[(0.5, 0.6, 0.1)])


def equilateral(rows: int = 6) -> Triangulation:
    """A parallelogram of equilateral triangles of side 1."""
    i, j = torch.meshgrid(torch.arange(rows + 1), torch.arange(rows + 1), indexing="ij")
    points = torch.stack([i + 0.5 * j, 0.75**0.5 * j], -1).reshape(-1, 2).double()
    corner = (i[:-1, :-1] * (rows + 1) + j[:-1, :-1]).flatten()
    across, up = corner + rows + 1, corner + 1
    triangles = torch.cat([torch.stack([corner, across, up], 1), torch.stack([across, across + 1, up], 1)])
    return Triangulation(points, triangles)


def gain(field, triangulation: Triangulation, points: torch.Tensor) -> float:
    """Root mean square error of linear interpolation on the fixed mesh over that on the moved one, at 20,000 places."""
    generator = torch.Generator().manual_seed(0)
    probes = torch.rand(20000, 2, dtype=DOUBLE, generator=generator) * torch.tensor([2.0, 1.0])
    probes = probes[(probes - CENTRE).norm(dim=1) > 0.1].unsqueeze(0)
    errors = []
    for nodes in (triangulation.points.unsqueeze(0), points):
        found = sample_triangles(field(nodes).unsqueeze(1), triangulation, nodes, probes)[:, 0]
        errors.append(float((found - field(probes)).square().mean().sqrt()))
    return errors[0] / errors[1]


# ------------------------------------------------------------------------------------------------------- the functional


@pytest.mark.parametrize("reference", ["mesh", "equilateral"])
@pytest.mark.parametrize("kind", ["values", "function"])
def test_gradient_against_finite_differences(reference, kind):
    triangulation = coarse()
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(2, triangulation.n_nodes, 2, dtype=DOUBLE, generator=generator)
    points = triangulation.move(0.08 * triangulation.size * noise).requires_grad_()
    monitor = 0.5 + torch.rand(2, triangulation.n_nodes, dtype=DOUBLE, generator=generator)
    if kind == "function":

        def monitor(x):
            return 1.5 + (3 * x[..., 0] + 4 * x[..., 1]).sin()

    values = huang_functional(points, triangulation, monitor, reference=reference)
    assert bool(torch.isfinite(values).all())
    (gradient,) = torch.autograd.grad(values.sum(), points)
    direction = torch.randn(points.shape, dtype=DOUBLE, generator=generator)
    step = 1e-7 * triangulation.size
    with torch.no_grad():
        ends = [
            huang_functional(points + sign * step * direction, triangulation, monitor, reference=reference)
            for sign in (1, -1)
        ]
    expected = (ends[0] - ends[1]) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum((1, 2)), expected, rtol=2e-6, atol=0)


def test_functional_by_the_formula_of_the_paper():
    triangulation = equilateral(2)
    generator = torch.Generator().manual_seed(0)
    points = triangulation.points + 0.1 * torch.randn(1, 9, 2, dtype=DOUBLE, generator=generator)
    m, theta, p = 1.7, 1 / 3, 1.5
    total = 0.0
    for triangle in triangulation.triangles:
        now = torch.stack(
            [points[0, triangle[1]] - points[0, triangle[0]], points[0, triangle[2]] - points[0, triangle[0]]], 1
        )
        fixed = triangulation.points[triangle]
        jacobian = torch.stack([fixed[1] - fixed[0], fixed[2] - fixed[0]], 1) @ now.inverse()
        metric = m * torch.eye(2, dtype=DOUBLE)
        aligned = torch.trace(jacobian @ metric.inverse() @ jacobian.T) ** p
        equal = 2**p * (jacobian.det() / metric.det().sqrt()) ** p
        total += now.det() / 2 * metric.det().sqrt() * (theta * aligned + (1 - 2 * theta) * equal)
    monitor = torch.full((1, 9), m, dtype=DOUBLE)
    found = huang_functional(points, triangulation, monitor, alignment=theta)
    torch.testing.assert_close(found[0], total / (triangulation.area * (1 - theta) * 2**p))


def test_fixed_mesh_of_a_constant_monitor_has_one_and_a_folded_mesh_infinity():
    triangulation = coarse()
    monitor = torch.ones(1, triangulation.n_nodes, dtype=DOUBLE)
    fixed = triangulation.points.unsqueeze(0)
    folded = fixed.clone()
    folded[0, triangulation.triangles[0]] = folded[0, triangulation.triangles[0].flip(0)]
    both = torch.cat([fixed, folded]).requires_grad_()
    values = huang_functional(both, triangulation, monitor)
    torch.testing.assert_close(values, torch.tensor([1.0, torch.inf], dtype=DOUBLE))
    (gradient,) = torch.autograd.grad(values.sum(), both)
    assert bool((gradient[1] == 0).all()) and bool(torch.isfinite(gradient).all())


def test_neighbours_on_a_circle_do_not_leave_each_other(channel):
    """Without the fans in the hole the largest angle between neighbours here becomes 176 degrees."""
    field = FIELDS["front at the disc"]
    monitor = triangle_curvature_monitor(field(channel.points.unsqueeze(0)).unsqueeze(1), channel, share=0.7)
    found = relax(monitor, channel, alignment=1 / 3)
    angles = []
    for points in (channel.points, found.points[0]):
        arms = points[channel.motion.turning] - CENTRE
        angle = torch.atan2(arms[:, 1], arms[:, 0]).sort().values
        angles.append(float(torch.cat([angle.diff(), 2 * math.pi + angle[:1] - angle[-1:]]).max()))
    assert 1.3 * angles[0] < angles[1] < 3 * angles[0]


# -------------------------------------------------------------------------------------------------------------- descent


def test_descent_solves_a_batch_of_quadratics():
    generator = torch.Generator().manual_seed(0)
    roots = torch.randn(3, 12, 12, dtype=DOUBLE, generator=generator)
    matrices = roots @ roots.mT + 0.1 * torch.eye(12, dtype=DOUBLE)
    minimum = torch.randn(3, 12, dtype=DOUBLE, generator=generator)

    def function(x):
        away = x - minimum
        return 1 + 0.5 * torch.einsum("bi,bij,bj->b", away, matrices, away)

    found = descend(
        function, torch.zeros(3, 12, dtype=DOUBLE), lambda g: g, iterations=200, tolerance=1e-15, longest=100.0
    )
    assert bool(found.converged.all())
    torch.testing.assert_close(found.x, minimum, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.values, torch.ones(3, dtype=DOUBLE))


def test_descent_gives_up_where_nothing_decreases():
    def uphill(x):  # its gradient has the wrong sign
        return (2 * x.detach() - x).sum(1) + 5

    start = torch.ones(2, 3, dtype=DOUBLE)
    found = descend(uphill, start, lambda g: g, iterations=50, tolerance=1e-9, longest=1.0)
    assert torch.equal(found.x, start) and found.iterations.tolist() == [0, 0] and not bool(found.converged.any())


@pytest.mark.parametrize("reference", ["mesh", "equilateral"])
def test_constant_monitor_keeps_equilateral_triangles(reference):
    triangulation = equilateral()
    monitor = torch.full((1, triangulation.n_nodes), 3.0, dtype=DOUBLE)
    found = relax(monitor, triangulation, reference=reference, tolerance=1e-12)
    assert bool(found.converged) and int(found.iterations) == 0
    torch.testing.assert_close(found.points[0], triangulation.points, rtol=0, atol=1e-12)
    # and finds them again
    noise = torch.randn(1, triangulation.n_nodes, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    start = triangulation.move(0.1 * noise)
    again = relax(monitor, triangulation, reference=reference, start=start, tolerance=1e-14)
    torch.testing.assert_close(again.points[0], triangulation.points, rtol=0, atol=1e-5)


def test_constant_monitor_keeps_a_graded_mesh_or_makes_it_even():
    triangulation = coarse()
    monitor = torch.ones(1, triangulation.n_nodes, dtype=DOUBLE)
    kept = relax(monitor, triangulation)
    torch.testing.assert_close(kept.points[0], triangulation.points, rtol=0, atol=1e-9)
    even = relax(monitor, triangulation, reference="equilateral")
    ones = torch.ones(1, triangulation.n_triangles, dtype=DOUBLE)
    spread = [float(mass_spread(nodes, triangulation, ones)) for nodes in (kept.points, even.points)]
    assert spread[1] < 0.6 * spread[0]


def test_one_dimensional_monitor_against_its_closed_form():
    """m(x) of x alone: columns of nodes lie where the integral of m has equal parts."""
    triangulation = Triangulation.of(channel_mesh(0.05, lengths=(1.0, 1.0)))
    line = torch.linspace(0, 1, 4001, dtype=DOUBLE)

    def m(x):
        return 1 + 2 * (-((x - 0.4) / 0.15).square()).exp()

    mass = torch.cumulative_trapezoid(m(line), line)
    mass = torch.cat([mass.new_zeros(1), mass]) / mass[-1]
    mean = float(torch.trapezoid(m(line), line))
    found = relax(lambda x: m(x[..., 0]) / mean, triangulation, alignment=0.01, tolerance=1e-7, iterations=300)
    place = torch.searchsorted(mass, triangulation.points[:, 0].contiguous()).clamp(max=4000)
    away = (found.points[0, :, 0] - line[place]).abs()
    moved = (triangulation.points[:, 0] - line[place]).abs()
    # alignment wants the shapes of the fixed mesh and has its way a little: the sideways part is not zero
    assert float(away.mean()) < 0.15 * float(moved.mean()), (away.mean(), moved.mean())


def test_symmetric_monitor_gives_a_symmetric_mesh():
    points = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, 9, dtype=DOUBLE)] * 2, indexing="ij"), -1).reshape(-1, 2)
    corner = (torch.arange(8).unsqueeze(1) * 9 + torch.arange(8)).flatten()
    low = torch.stack([corner, corner + 9, corner + 10], 1)
    triangulation = Triangulation(points, torch.cat([low, torch.stack([corner, corner + 10, corner + 1], 1)]))
    m = 1 + 3 * (-(points - 0.5).square().sum(1) / 0.04).exp()
    transposed = torch.arange(81).reshape(9, 9).T.flatten()
    shifted = 1 + 3 * (-((points[:, 0] - 0.3).square() + (points[:, 1] - 0.6).square()) / 0.04).exp()
    found = relax(torch.stack([m, shifted, shifted[transposed]]), triangulation, tolerance=1e-10).points
    torch.testing.assert_close(found[0, transposed].flip(-1), found[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[1, transposed].flip(-1), found[2], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "name, reference, expected",
    [
        ("front", "mesh", 2.3),
        ("front at the disc", "mesh", 2.0),
        ("ring around the disc", "mesh", 1.25),  # where the fixed mesh is fine already
        ("ring around the disc", "equilateral", 1.8),
        ("bump", "mesh", 2.1),
    ],
)
def test_interpolation_gains_on_the_domain_with_an_obstacle(channel, name, reference, expected):
    field, fixed = FIELDS[name], channel.points.unsqueeze(0)
    monitor = triangle_curvature_monitor(field(fixed).unsqueeze(1), channel)
    found = relax(monitor, channel, reference=reference)
    assert bool(found.converged)
    assert int(folded_triangles(found.points, channel)) == 0
    assert float(height_ratios(found.points, channel).min()) > 0.02
    assert float(found.functional) < float(huang_functional(fixed, channel, monitor, reference=reference))
    assert gain(field, channel, found.points) > expected
    radii = (found.points[0, channel.motion.turning] - CENTRE).norm(dim=-1)
    assert float((radii - 0.1).abs().max()) < 1e-15
    sides = ((fixed[0] == 0) | (fixed[0] == fixed[0].amax(0))).nonzero(as_tuple=True)
    assert len(sides[0]) > 100 and bool((found.points[0][sides] == fixed[0][sides]).all())
    if reference == "equilateral":
        spread = [mass_spread(p, channel, density_at_centroids(p, channel, monitor)) for p in (fixed, found.points)]
        assert float(spread[1]) < 0.5 * float(spread[0])


def test_single_precision_and_a_start():
    triangulation = coarse()
    field = FIELDS["front"]
    u = field(triangulation.points.unsqueeze(0)).unsqueeze(1)
    fine = relax(triangle_curvature_monitor(u, triangulation), triangulation)
    single = relax(triangle_curvature_monitor(u.float(), triangulation), triangulation)
    assert single.points.dtype == torch.float32
    assert float(single.functional) == pytest.approx(float(fine.functional), rel=2e-3)
    polished = relax(triangle_curvature_monitor(u, triangulation), triangulation, start=fine.points)
    assert int(polished.iterations) < int(fine.iterations) / 3


def test_bad_input():
    triangulation = coarse()
    n = triangulation.n_nodes
    ones, fixed = torch.ones(1, n, dtype=DOUBLE), triangulation.points.unsqueeze(0)
    with pytest.raises(DataError, match=r"monitor of sample 0 is zero everywhere"):
        relax(0 * ones, triangulation)
    with pytest.raises(DataError, match=r"field of sample 0 has 1 NaN"):
        relax(torch.where(torch.arange(n) == 3, torch.nan, 1.0).unsqueeze(0), triangulation)
    with pytest.raises(DataError, match=r"the monitor has shape \(1, 4\)"):
        relax(torch.ones(1, 4), triangulation)
    with pytest.raises(ConfigError, match=r"the reference is 'box'; expected one of mesh, equilateral"):
        relax(ones, triangulation, reference="box")
    with pytest.raises(ConfigError, match=r"the alignment is 0; expected \(0, 1/2\]"):
        relax(ones, triangulation, alignment=0)
    with pytest.raises(ConfigError, match=r"iterations is -1"):
        relax(ones, triangulation, iterations=-1)
    folded = fixed.clone()
    folded[0, triangulation.triangles[0]] = folded[0, triangulation.triangles[0].flip(0)]
    with pytest.raises(
        DataError, match=r"mesh of sample 0 to start from is folded or not finite; .*unfolded_triangles"
    ):
        relax(ones, triangulation, start=folded)
    with pytest.raises(DataError, match=r"2 monitors were given for 3 meshes"):
        relax(ones.expand(2, -1), triangulation, start=fixed.expand(3, -1, -1))
