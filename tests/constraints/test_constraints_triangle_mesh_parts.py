"""Moved triangulations: admissible motion, monitors, point location and sampling, scaling back, bad input."""

import math

import pytest
import torch

from sciml.constraints.mesh_mover.triangles import (
    TRIANGLE_MONITORS,
    Triangulation,
    check_triangle_monitor,
    find_triangles,
    folded_triangles,
    height_ratios,
    huang_functional,
    sample_triangles,
    signed_areas,
    smooth_nodes,
    triangle_curvature_monitor,
    triangle_gradient_monitor,
    unfolded_triangles,
)
from sciml.constraints.mesh_mover.triangles.recovery import recovery_matrix
from sciml.errors import ConfigError, DataError
from sciml.physics.weak.channel_mesh import channel_mesh, channel_with_disc

DOUBLE = torch.float64
CIRCLE = (0.5, 0.6, 0.1)


def disc_channel(h: float = 0.09) -> Triangulation:
    return Triangulation.of(channel_with_disc(h), circles=[CIRCLE])


def disc_domain(turned: float = 0.3) -> Triangulation:
    """A disc of radius 2, its boundary a circle that turns."""
    angle = turned + torch.arange(12, dtype=DOUBLE) * (math.pi / 6)
    ring = torch.stack([angle.cos(), angle.sin()], 1)
    points = torch.cat([torch.zeros(1, 2, dtype=DOUBLE), ring, 2 * ring])
    inner = torch.arange(12)
    after = (inner + 1) % 12
    fan = torch.stack([torch.zeros_like(inner), 1 + inner, 1 + after], 1)
    first = torch.stack([1 + inner, 13 + inner, 13 + after], 1)
    second = torch.stack([1 + inner, 13 + after, 1 + after], 1)
    return Triangulation(points, torch.cat([fan, first, second]), circles=[(0.0, 0.0, 2.0)])


def shaken(triangulation: Triangulation, amount: float, batch: int = 1, seed: int = 0) -> torch.Tensor:
    """Nodes displaced at random by up to ``amount`` sizes of the mesh."""
    generator = torch.Generator().manual_seed(seed)
    noise = 2 * torch.rand(batch, triangulation.n_nodes, 2, dtype=DOUBLE, generator=generator) - 1
    return triangulation.move(amount * triangulation.size * noise)


# --------------------------------------------------------------------------------------------------- admissible motion


def test_boundary_nodes_stay_on_the_boundary_whatever_the_displacement():
    triangulation = disc_channel()
    points = shaken(triangulation, 30.0, batch=3)
    before, motion = triangulation.points, triangulation.motion
    x, y = before.unbind(1)
    for on, axis, value in ((x == 0, 0, 0.0), (x == 2, 0, 2.0), (y == 0, 1, 0.0), (y == 1, 1, 1.0)):
        assert int(on.sum()) > 5
        assert bool((points[:, on, axis] == value).all())
    corners = ((x == 0) | (x == 2)) & ((y == 0) | (y == 1))
    assert bool((points[:, corners] == before[corners]).all()) and int(corners.sum()) == 4
    on_disc = ((before - torch.tensor(CIRCLE[:2], dtype=DOUBLE)).norm(dim=1) - 0.1).abs() < 1e-9
    assert set(on_disc.nonzero().flatten().tolist()) == set(motion.turning.tolist())
    radii = (points[:, on_disc] - torch.tensor(CIRCLE[:2], dtype=DOUBLE)).norm(dim=-1)
    assert float((radii - 0.1).abs().max()) < 1e-15
    moved = (points - before).norm(dim=-1).amin(0)
    held = set((moved == 0).nonzero().flatten().tolist())
    assert held == set(corners.nonzero().flatten().tolist())  # everything else moves


def test_a_slanted_side_and_what_is_not_straight():
    points = torch.tensor([[0, 0], [1, 0.5], [2, 1], [0, 1], [-0.3, 0.5], [0.6, 0.7]], dtype=DOUBLE)
    triangles = torch.tensor([[0, 1, 5], [1, 2, 5], [2, 3, 5], [3, 4, 5], [4, 0, 5]])
    triangulation = Triangulation(points, triangles)
    assert triangulation.motion.sliding.tolist() == [1]
    moved = triangulation.move(torch.full((1, 6, 2), 0.1, dtype=DOUBLE))[0]
    along = torch.tensor([2.0, 1.0], dtype=DOUBLE) / 5**0.5
    torch.testing.assert_close(moved[1], points[1] + (0.1 * along.sum()) * along, rtol=0, atol=1e-15)
    assert torch.equal(moved[[0, 2, 3, 4]], points[[0, 2, 3, 4]])
    assert Triangulation(points, triangles, fixed=[1]).motion.sliding.tolist() == []


def test_displacement_is_what_move_takes():
    for triangulation in (disc_channel(), disc_domain()):
        points = shaken(triangulation, 0.4, batch=2)
        again = triangulation.move(triangulation.displacement(points))
        torch.testing.assert_close(again, points, rtol=0, atol=1e-14)
        zero = torch.zeros(1, triangulation.n_nodes, 2, dtype=DOUBLE)
        assert torch.equal(triangulation.move(zero)[0], triangulation.points)


def test_expand_is_the_transpose_of_reduce():
    triangulation = disc_channel()
    vectors = torch.randn(1, triangulation.n_nodes, 2, dtype=DOUBLE)
    amounts = torch.randn_like(triangulation.reduce(vectors))
    first = (triangulation.reduce(vectors) * amounts).sum()
    second = (vectors * triangulation.expand(amounts)).sum()
    torch.testing.assert_close(first, second)


# --------------------------------------------------------------------------------------------------- quality, validity


def test_quality_of_known_triangles():
    points = torch.tensor([[0, 0], [1, 0], [0.5, 0.75**0.5], [1.5, 0.75**0.5]], dtype=DOUBLE)
    triangulation = Triangulation(points, torch.tensor([[0, 1, 2], [1, 2, 3]]))
    torch.testing.assert_close(height_ratios(points[None], triangulation), torch.ones(1, 2, dtype=DOUBLE))
    over = points[None].clone()
    over[0, 3] = torch.tensor([0.2, 0.1])
    assert folded_triangles(over, triangulation).tolist() == [1]
    torch.testing.assert_close(signed_areas(points[None], triangulation).sum(), torch.tensor(0.75**0.5, dtype=DOUBLE))


def test_scaling_back_stops_short_of_the_first_fold():
    triangulation = disc_channel()
    good, wild = shaken(triangulation, 0.1), shaken(triangulation, 3.0)
    points, scale = unfolded_triangles(torch.cat([good, wild]), triangulation, least=0.1)
    assert torch.equal(points[0], good[0]) and float(scale[0]) == 1
    assert 0 < float(scale[1]) < 1
    share = signed_areas(points, triangulation) / triangulation.mesh.areas
    assert float(share[1].min()) > 0.1
    beyond = triangulation.move((scale[1] + 2e-3) * triangulation.displacement(wild))
    assert float((signed_areas(beyond, triangulation) / triangulation.mesh.areas).min()) < 0.1
    radii = (points[1, triangulation.motion.turning] - torch.tensor(CIRCLE[:2], dtype=DOUBLE)).norm(dim=-1)
    assert float((radii - 0.1).abs().max()) < 1e-15


def ring_domain() -> Triangulation:
    """Between circles of the radii 1 and 2, twelve nodes on each."""
    number = torch.arange(12)
    angle = number.double() * (math.pi / 6) - math.pi + 0.1
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    after = (number + 1) % 12
    first = torch.stack([number, 12 + number, 12 + after], 1)
    second = torch.stack([number, 12 + after, after], 1)
    circles = [(0.0, 0.0, 1.0), (0.0, 0.0, 2.0)]
    return Triangulation(torch.cat([circle, 2 * circle]), torch.cat([first, second]), circles=circles)


def test_scaling_back_keeps_neighbours_on_a_circle_together():
    """All nodes turn towards angle 0, so that a gap of 129 degrees opens behind: no triangle folds."""
    triangulation = ring_domain()
    x, y = triangulation.points.unbind(1)
    arcs = -0.3 * torch.atan2(y, x) * triangulation.points.norm(dim=1)
    tangents = torch.nn.functional.normalize(torch.stack([-y, x], 1))
    points = triangulation.move((arcs.unsqueeze(1) * tangents).unsqueeze(0))
    assert int(folded_triangles(points, triangulation)) == 0
    kept, scale = unfolded_triangles(points, triangulation)
    assert 0.5 < float(scale) < 0.95
    monitor = torch.ones(1, triangulation.n_nodes, dtype=DOUBLE)
    assert float(huang_functional(points, triangulation, monitor)) == math.inf
    assert math.isfinite(float(huang_functional(kept, triangulation, monitor)))


def test_scaling_back_is_differentiable():
    triangulation = disc_domain()
    wild = shaken(triangulation, 1.5).requires_grad_()
    points, scale = unfolded_triangles(wild, triangulation)
    assert float(scale) < 1
    (gradient,) = torch.autograd.grad(points[0, 5].sum(), wild)
    torch.testing.assert_close(gradient[0, 5], scale.expand(2).detach())


# ---------------------------------------------------------------------------------------------- monitors and smoothing


def test_recovery_is_exact_for_quadratics_up_to_the_boundary():
    triangulation = disc_channel()
    x, y = triangulation.points.unbind(1)
    values = 1 + 2 * x - 3 * y + 4 * x * x + 5 * x * y - 6 * y * y
    found = recovery_matrix(triangulation)(values).unflatten(-1, (5, -1))
    expected = torch.stack([2 + 8 * x + 5 * y, -3 + 5 * x - 12 * y, 0 * x + 8, 0 * x + 5, 0 * x - 12])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", sorted(TRIANGLE_MONITORS))
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_monitor_has_mean_one_and_is_high_where_the_front_is(name, dtype):
    triangulation = disc_channel(0.06)
    x = triangulation.points[:, 0]
    u = torch.stack([((x - 1.3) / 0.08).tanh(), torch.ones_like(x)]).to(dtype).unsqueeze(1)
    monitor = TRIANGLE_MONITORS[name](u, triangulation, share=0.6)
    weights = triangulation.node_areas.to(dtype)
    torch.testing.assert_close((monitor * weights).sum(1) / weights.sum(), torch.ones(2, dtype=dtype))
    assert bool((monitor[1] == 1).all())  # a constant field
    assert float(monitor[0].min()) > 0.39
    assert abs(float(x[monitor[0].argmax()]) - 1.3) < 0.15
    far = (x - 1.3).abs() > 0.5
    assert float(monitor[0, far].max()) < 0.6 < 3 < float(monitor[0].max())


def test_monitor_knows_no_units_and_no_linear_part():
    triangulation = disc_channel()
    x, y = triangulation.points.unbind(1)
    u = ((x - 1.2).square() * 8 + y).sin().expand(1, 1, -1)
    monitor = triangle_curvature_monitor(u, triangulation)
    torch.testing.assert_close(triangle_curvature_monitor(1e6 * u - 3e4, triangulation), monitor)
    twice = triangle_curvature_monitor(torch.cat([u, 40 * u], 1), triangulation)
    torch.testing.assert_close(twice, monitor)  # two channels that say the same
    linear = (3 * x - 2 * y).expand(1, 1, -1)
    assert bool((triangle_curvature_monitor(linear, triangulation) == 1).all())
    flat = triangle_gradient_monitor(linear, triangulation)
    torch.testing.assert_close(flat, torch.ones_like(flat))


def test_smoothing_keeps_the_integral_and_has_its_width():
    triangulation = Triangulation.of(channel_mesh(0.05))
    away = (triangulation.points - torch.tensor([1.0, 0.5], dtype=DOUBLE)).square().sum(1)
    weights = triangulation.node_areas
    spike = torch.zeros(1, 1, triangulation.n_nodes, dtype=DOUBLE)
    spike[..., away.argmin()] = 1
    smooth = smooth_nodes(spike, triangulation, 0.1)
    torch.testing.assert_close((smooth * weights).sum(), (spike * weights).sum())
    variance = float((smooth * weights * away).sum() / (smooth * weights).sum())
    assert variance == pytest.approx(2 * 0.1**2, rel=0.05)
    assert float(smooth.min()) >= 0
    assert smooth_nodes(spike, triangulation, 0.0) is spike


def test_monitor_is_differentiable():
    triangulation = disc_domain()
    u = torch.randn(2, 1, triangulation.n_nodes, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: triangle_curvature_monitor(v, triangulation), (u,))


# ------------------------------------------------------------------------------------------------ location and sampling


def test_neighbours_lie_across_the_edges():
    triangulation = disc_channel()
    neighbours = triangulation.tables(triangulation.points).neighbours
    for triangle, others in zip(triangulation.triangles.tolist(), neighbours.tolist(), strict=True):
        for vertex, other in zip(triangle, others, strict=True):
            if other >= 0:
                assert set(triangle) - set(triangulation.triangles[other].tolist()) == {vertex}
    assert int((neighbours < 0).sum()) == int((triangulation.mesh.edge_counts == 1).sum())


def test_location_agrees_with_the_search_of_the_mesh():
    triangulation = disc_channel()
    generator = torch.Generator().manual_seed(1)
    targets = torch.rand(4000, 2, dtype=DOUBLE, generator=generator) * torch.tensor([2.0, 1.0])
    expected, _ = triangulation.mesh.find(targets)
    targets, expected = targets[expected >= 0], expected[expected >= 0]
    assert 3000 < len(targets) < 4000  # some were in the hole
    points = triangulation.points.unsqueeze(0)
    assert torch.equal(find_triangles(triangulation, points, targets[None])[0], expected)
    # walks that all begin in one triangle have to go around the hole
    start = torch.zeros(1, len(targets), dtype=torch.int64)
    assert torch.equal(find_triangles(triangulation, points, targets[None], start)[0], expected)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-5), (DOUBLE, 1e-13)])
def test_sampling_is_exact_for_linear_functions_both_ways(dtype, tolerance):
    triangulation = disc_channel()
    moved, _ = unfolded_triangles(shaken(triangulation, 0.5, batch=3), triangulation)
    moved = moved.to(dtype)
    fixed = triangulation.points.to(dtype).unsqueeze(0)

    def linear(x):
        return torch.stack([1 + 2 * x[..., 0] - 3 * x[..., 1], torch.ones_like(x[..., 0])], 1)

    there = sample_triangles(linear(fixed), triangulation, None, moved)
    torch.testing.assert_close(there, linear(moved), rtol=0, atol=tolerance)
    back = sample_triangles(there, triangulation, moved, fixed)
    torch.testing.assert_close(back, linear(fixed).expand(3, -1, -1), rtol=0, atol=tolerance)


def test_sampling_is_differentiable_in_all():
    triangulation = disc_domain()
    points, _ = unfolded_triangles(shaken(triangulation, 0.2, batch=2), triangulation)
    generator = torch.Generator().manual_seed(3)
    targets = 2 * torch.rand(2, 9, 2, dtype=DOUBLE, generator=generator) - 1
    values = torch.randn(2, 2, triangulation.n_nodes, dtype=DOUBLE, generator=generator)
    inputs = [tensor.clone().requires_grad_() for tensor in (values, points, targets)]
    assert torch.autograd.gradcheck(lambda v, p, t: sample_triangles(v, triangulation, p, t), inputs)


def test_targets_outside():
    triangulation = disc_channel()
    x = triangulation.points[:, 0].expand(1, 1, -1)
    hole = torch.tensor([[[0.5, 0.6]]], dtype=DOUBLE)
    with pytest.raises(DataError, match=r"1 of 1 targets lie outside the triangulation .*sample 0 at \[0.5, 0.6\]"):
        sample_triangles(x, triangulation, None, hole)
    far = torch.tensor([[[0.5, 0.6], [3.0, 0.5], [-7.0, 2.0]]], dtype=DOUBLE)
    clamped = sample_triangles(x, triangulation, None, far, clamp=True)[0, 0]
    assert 0.4 <= float(clamped[0]) <= 0.6 and float(clamped[2]) == 0
    assert float(clamped[1]) == pytest.approx(2.0)
    # an arc lies a little outside the polygon of an outer circle: linear extrapolation
    disc = disc_domain()
    arc = 2 * torch.tensor([[[math.cos(0.3 + math.pi / 12), math.sin(0.3 + math.pi / 12)]]], dtype=DOUBLE)
    values = disc.points[:, 0].expand(1, 1, -1)
    torch.testing.assert_close(sample_triangles(values, disc, None, arc)[0, 0], arc[0, :, 0])


# ------------------------------------------------------------------------------------------------------------ bad input


def test_bad_triangulations():
    square = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]], dtype=DOUBLE)
    triangles = torch.tensor([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])
    Triangulation(square, triangles.flip(1))  # the other orientation is only a way of counting
    inverted = square.clone()
    inverted[4] = torch.tensor([0.5, 1.4])
    with pytest.raises(DataError, match=r"triangulation is folded: \d+ edges have both triangles on the same side"):
        Triangulation(inverted, triangles)
    with pytest.raises(DataError, match=r"vertex numbers 0 to 9; there are 5"):
        Triangulation(square, torch.cat([triangles, torch.tensor([[0, 1, 9]])]))
    with pytest.raises(DataError, match=r"expected finite coordinates"):
        Triangulation(square * torch.nan, triangles)
    with pytest.raises(DataError, match=r"1 nodes belong to no triangle, the first is 5"):
        Triangulation(torch.cat([square, square[:1] + 3]), triangles)
    with pytest.raises(ConfigError, match=r"none of the 4 nodes of the boundary lies on the circle"):
        Triangulation(square, triangles, circles=[(0.5, 0.5, 0.1)])
    with pytest.raises(ConfigError, match=r"expected \(centre x, centre y, radius above 0\)"):
        Triangulation(square, triangles, circles=[(0.5, 0.5, 0.0)])
    with pytest.raises(ConfigError, match=r"fixed names the nodes \[7\]; there are 5"):
        Triangulation(square, triangles, fixed=[7])
    with pytest.raises(DataError, match=r"too few around node \d+ for second derivatives"):
        triangle_curvature_monitor(torch.rand(1, 1, 5), Triangulation(square, triangles))


def test_bad_fields_and_monitors():
    triangulation = disc_domain()
    n = triangulation.n_nodes
    with pytest.raises(DataError, match=rf"the field has shape \(1, 1, 7\).*{n}\)"):
        triangle_curvature_monitor(torch.rand(1, 1, 7), triangulation)
    spoilt = torch.rand(2, 1, n)
    spoilt[1, 0, 3] = torch.nan
    with pytest.raises(DataError, match=r"field of sample 1 has 1 NaN or infinite values"):
        triangle_curvature_monitor(spoilt, triangulation)
    with pytest.raises(ConfigError, match=r"share is 1.0; expected \[0, 0.95\]"):
        triangle_curvature_monitor(torch.rand(1, 1, n), triangulation, share=1.0)
    with pytest.raises(ConfigError, match=r"smoothing is -1.0 m"):
        triangle_curvature_monitor(torch.rand(1, 1, n), triangulation, smoothing=-1.0)
    with pytest.raises(DataError, match=r"monitor of sample 0 is zero everywhere"):
        check_triangle_monitor(torch.zeros(1, n), triangulation)
    with pytest.raises(DataError, match=r"monitor of sample 1 is -1 somewhere"):
        check_triangle_monitor(torch.tensor([[1.0], [-1.0]]).expand(2, n), triangulation)
    with pytest.raises(DataError, match=r"the monitor has shape \(4,\)"):
        check_triangle_monitor(torch.ones(4), triangulation)
    nodes = torch.rand(1, n, 2)
    with pytest.raises(DataError, match=r"values have shape \(1, 5\)"):
        sample_triangles(torch.rand(1, 5), triangulation, None, nodes)
    with pytest.raises(DataError, match=r"batches of 2, 1 and 3"):
        sample_triangles(torch.rand(2, 1, n), triangulation, None, nodes.expand(3, -1, -1))
    with pytest.raises(DataError, match=r"targets have shape .* expected finite"):
        sample_triangles(torch.rand(1, 1, n), triangulation, None, nodes * torch.inf)
    with pytest.raises(DataError, match=r"the nodes have shape \(1, 3, 2\)"):
        unfolded_triangles(torch.rand(1, 3, 2), triangulation)
    with pytest.raises(DataError, match=r"not finite; nothing can be scaled back"):
        unfolded_triangles(nodes * torch.nan, triangulation)
    with pytest.raises(ConfigError, match=r"least is 1.0"):
        unfolded_triangles(nodes, triangulation, least=1.0)
