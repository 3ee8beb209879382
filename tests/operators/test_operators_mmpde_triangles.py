"""MM-PDE on triangulations: neighbours around an obstacle, moved nodes, what moves, and what stays."""

import pytest
import torch

from sciml.constraints.mesh_mover.triangles import (
    Triangulation,
    folded_triangles,
    relax,
    sample_triangles,
    triangle_gradient_monitor,
)
from sciml.errors import CheckpointError, ConfigError, DataError
from sciml.operators.mmpde import MovedNodes, TriangleMMPDE, triangle_neighbours
from sciml.physics.weak.channel_mesh import channel_mesh, channel_with_disc

DOUBLE = torch.float64
CENTRE = torch.tensor([0.5, 0.6], dtype=DOUBLE)


@pytest.fixture(scope="module")
def channel() -> Triangulation:
    return Triangulation.of(channel_with_disc(0.09), circles=[(*CENTRE.tolist(), 0.1)])


def operator(**changes) -> TriangleMMPDE:
    torch.manual_seed(0)
    made = TriangleMMPDE(1, 2, **{"hidden_channels": 6, "n_layers": 3, **changes})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.double()


def front(triangulation: Triangulation, batch: int = 2) -> torch.Tensor:
    x, y = triangulation.points.unbind(1)
    places = torch.linspace(0.9, 1.3, batch, dtype=DOUBLE).unsqueeze(1)
    return torch.tanh((x - places + 0.2 * (6 * y).sin()) / 0.06).unsqueeze(1)


# --------------------------------------------------------------------------------------------------------- neighbours


def test_nearest_neighbours_share_an_edge(channel):
    edges = triangle_neighbours(channel, 1, channel.points).edges
    found = torch.stack([edges.source, edges.receiver], 1)
    wanted = torch.cat([channel.mesh.edges, channel.mesh.edges.flip(1)])
    assert torch.equal(found.unique(dim=0), wanted.unique(dim=0)) and len(found) == len(wanted)


def test_far_neighbours_are_as_far_as_the_reach_says_and_not_across_the_disc(channel):
    points = channel.points
    near = triangle_neighbours(channel, 1, points)
    for reach in (2, 4):
        far = triangle_neighbours(channel, reach, points)
        assert float(far.unit[0] / near.unit[0]) == pytest.approx(reach, rel=0.1)
        ends = torch.stack([points[far.edges.source], points[far.edges.receiver]])
        assert bool((far.edges.source != far.edges.receiver).all())
        degree = far.edges.offsets.diff()
        assert int(degree.max()) <= 9 and int(degree.min()) >= 1
        middles = torch.stack([ends[0] * s + ends[1] * (1 - s) for s in torch.linspace(0, 1, 21)])
        assert float((middles - CENTRE).norm(dim=-1).min()) > 0.05  # they may graze the disc, not cross it
    assert triangle_neighbours(channel, 4, points) is far


def test_far_neighbours_on_a_regular_mesh_lie_along_its_edges():
    square = Triangulation.of(channel_mesh(0.1, lengths=(1.0, 1.0)))
    far = triangle_neighbours(square, 3, square.points)
    inner = ((square.points - 0.5).abs() < 0.05).all(1).nonzero()[0, 0]
    senders = far.edges.source[far.edges.receiver == inner]
    apart = square.points[senders] - square.points[inner]
    assert len(senders) == 6
    torch.testing.assert_close(apart.norm(dim=1), torch.full((6,), 0.3, dtype=DOUBLE), rtol=0.25, atol=0)


# -------------------------------------------------------------------------------------------------------- moved nodes


def test_fields_go_there_and_back_as_by_sampling_and_linear_ones_exactly(channel):
    u = front(channel)
    points = relax(triangle_gradient_monitor(u, channel), channel, iterations=10).points
    moved = MovedNodes.of(points, channel)
    values = torch.randn(2, 3, channel.n_nodes, dtype=DOUBLE)
    torch.testing.assert_close(moved.there(values), sample_triangles(values, channel, None, points))
    fixed = channel.points.unsqueeze(0)
    torch.testing.assert_close(moved.back(values), sample_triangles(values, channel, points, fixed))
    matrix = torch.tensor([[2.0, -1.0], [0.5, 3.0]], dtype=DOUBLE)

    def linear(x):
        return (x @ matrix.T + 1).mT

    torch.testing.assert_close(moved.there(linear(fixed).expand(2, -1, -1)), linear(points))
    torch.testing.assert_close(moved.back(linear(points)), linear(fixed).expand(2, -1, -1))
    rows = torch.tensor([1])
    assert torch.equal(moved[rows].back(values[rows]), moved.back(values)[rows])


# ------------------------------------------------------------------------------------------------------- the operator


def test_nodes_move_to_the_front_and_no_triangle_folds(channel):
    u = front(channel)
    moved = operator(share=0.7).move(u, channel)
    assert int(folded_triangles(moved.points, channel).sum()) == 0
    places, turning = torch.tensor([0.9, 1.3], dtype=DOUBLE).unsqueeze(1), channel.motion.turning

    def near(points):
        x, y = points.unbind(-1)
        return ((x - places + 0.2 * (6 * y).sin()).abs() < 0.06).sum(1)

    assert bool((near(moved.points) > 1.15 * near(channel.points.expand(2, -1, -1))).all())
    radii = (moved.points[:, turning] - CENTRE).norm(dim=-1)
    assert float((radii - 0.1).abs().max()) < 1e-12


def test_without_warp_the_same_weights_give_what_unmoved_nodes_give(channel):
    moving, still = operator(), operator(warp=False)
    still.load_state_dict(moving.state_dict())
    u = front(channel)
    unmoved = MovedNodes.of(channel.points.expand(2, -1, -1), channel)
    torch.testing.assert_close(moving(u, channel, moved=unmoved), still(u, channel), rtol=0, atol=1e-9)
    assert (moving(u, channel) - still(u, channel)).abs().max() > 1e-3
    alike = torch.full_like(u, 0.7)  # a constant field moves nothing
    torch.testing.assert_close(moving(alike, channel), still(alike, channel), rtol=0, atol=1e-6)


def test_moved_nodes_may_be_kept_and_given(channel):
    made, u = operator(n_parameters=2), front(channel, 3)
    parameters = torch.randn(3, 2, dtype=DOUBLE)
    kept, rows = made.move(u, channel), torch.tensor([2, 0])
    found = made(u[rows], channel, moved=kept[rows], parameters=parameters[rows])
    torch.testing.assert_close(found, made(u, channel, parameters=parameters)[rows], rtol=0, atol=1e-9)
    other = made(u[rows], channel, moved=kept[rows], parameters=parameters[rows] + 1)
    assert (other - found).abs().max() > 1e-4


def test_the_moved_branch_is_told_of_the_motion(channel):
    made, u = operator(), front(channel)
    unmoved = MovedNodes.of(channel.points.expand(2, -1, -1), channel)
    told = MovedNodes(made.move(u, channel).points, unmoved.there, unmoved.back)  # the same values elsewhere
    assert (made(u, channel, moved=told) - made(u, channel, moved=unmoved)).abs().max() > 1e-3


def test_layers_take_the_reaches_in_turn(channel):
    centre = (channel.points - torch.tensor([1.5, 0.5])).norm(dim=1).argmin()
    away = (channel.points - channel.points[centre]).norm(dim=1)
    u = torch.zeros(1, 1, channel.n_nodes, dtype=DOUBLE)
    pulse = u.clone()
    pulse[..., centre] = 1.0
    farthest = []
    for reach in ((1,), (1, 2, 4)):
        made = operator(branches="fixed", reach=reach, coordinates=False)
        with torch.no_grad():
            farthest.append(float(away[((made(pulse, channel) - made(u, channel)).abs().amax(1)[0] > 0)].max()))
    assert 2 * 0.09 < farthest[0] < 3.4 * 0.09  # three edges of about 0.09
    assert 5 * 0.09 < farthest[1] < 8 * 0.09  # 1 + 2 + 4 edges


def test_only_the_named_channels_move_the_nodes(channel):
    torch.manual_seed(0)
    made = TriangleMMPDE(2, 1, hidden_channels=4, n_layers=1, moved_by=[0]).double()
    u = torch.cat([front(channel), torch.randn(2, 1, channel.n_nodes, dtype=DOUBLE)], 1)
    other = torch.cat([u[:, :1], torch.zeros_like(u[:, :1])], 1)
    assert torch.equal(made.move(u, channel).points, made.move(other, channel).points)


def test_every_weight_learns_and_the_numbers_of_nodes_mean_nothing(channel):
    made, u = operator(), front(channel)
    y = made(u, channel)
    assert y.shape == (2, 2, channel.n_nodes)
    y.square().sum().backward()
    assert all(float(parameter.grad.abs().max()) > 0 for parameter in made.parameters())
    order = torch.randperm(channel.n_nodes)
    place = order.argsort()
    again = Triangulation(channel.points[order], place[channel.triangles], circles=[(*CENTRE.tolist(), 0.1)])
    torch.testing.assert_close(made(u[..., order], again), y[..., order], rtol=0, atol=1e-6)


def test_the_fixed_branch_alone_has_as_many_weights():
    both, fixed = (TriangleMMPDE(3, 2, n_parameters=1, branches=branches) for branches in ("both", "fixed"))
    weights = [sum(parameter.numel() for parameter in made.parameters()) for made in (both, fixed)]
    assert weights[1] == pytest.approx(weights[0], rel=0.03) and fixed.core.moved is None


def test_the_fixed_branch_alone_works_on_another_triangulation(channel):
    made = operator(branches="fixed")
    square = Triangulation.of(channel_mesh(0.12, lengths=(1.0, 1.0)))
    assert made(front(channel), channel).shape == (2, 2, channel.n_nodes)
    assert made(front(square), square).shape == (2, 2, square.n_nodes)


def test_saved_and_loaded(tmp_path, channel):
    made, u = operator(reach=[1, 3], share=0.6), front(channel)
    made.save_pretrained(tmp_path)
    torch.testing.assert_close(TriangleMMPDE.from_pretrained(tmp_path)(u, channel), made(u, channel), rtol=0, atol=0)
    (tmp_path / "config.json").write_text('{"operator": "mmpde", "config": {}}')
    with pytest.raises(CheckpointError, match=r"holds an operator 'mmpde'; expected 'triangle_mmpde'"):
        TriangleMMPDE.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"monitor": "gradiant"}, r"unknown monitor 'gradiant'; did you mean 'gradient'"),
        ({"share": 0.99}, r"share is 0.99, n_parameters 0 and reach \[1, 2, 4\]"),
        ({"reach": []}, r"reach \[\]; expected"),
        ({"reach": [1, 0]}, r"reach\[1\] is 0; expected a whole number above 0"),
        ({"moved_by": [1]}, r"moved_by is \[1\]; expected numbers of input channels, 0 to 0"),
        ({"branches": "moved"}, r"unknown branches 'moved'"),
        ({"iterations": 0}, r"iterations is 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        TriangleMMPDE(1, 1, **options)


def test_bad_input(channel):
    made, u = operator(n_parameters=1), front(channel)
    parameters = torch.zeros(2, 1, dtype=DOUBLE)
    with pytest.raises(DataError, match=r"u has shape \(2, 1, 5\); expected \(batch, 1, "):
        made(u[..., :5], channel, parameters=parameters)
    with pytest.raises(DataError, match=r"parameters are missing; expected \(2, 1\)"):
        made(u, channel)
    with pytest.raises(DataError, match=r"parameters are of shape \(2, 1\); expected none"):
        operator()(u, channel, parameters=parameters)
    moved = made.move(u, channel)
    with pytest.raises(DataError, match=r"moved nodes have shape \(1, "):
        made(u, channel, moved=moved[torch.tensor([0])], parameters=parameters)
    with pytest.raises(DataError, match=r"whose nodes stay; leave them out"):
        operator(warp=False)(u, channel, moved=moved)
    with pytest.raises(DataError, match=r"NaN"):
        made(torch.full_like(u, torch.nan), channel, parameters=parameters)
