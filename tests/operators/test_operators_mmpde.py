"""MM-PDE: connectivity of grids and lists, the two branches, what moves, and what stays."""

import itertools

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from sciml.constraints.mesh_mover import Box
from sciml.errors import ConfigError, DataError
from sciml.operators import MMPDE, Operator
from sciml.operators.mmpde import GraphBranches, GridNeighbours, ListNeighbours
from sciml.operators.mmpde.messages import _plain, sum_of_messages
from sciml.operators.mmpde.neighbours import KINDS

LIKE = torch.zeros((), dtype=torch.float64)
SMALL = {"hidden_channels": 6, "n_layers": 3}


def perturb(operator):
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in operator.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return operator


def mmpde(**changes) -> MMPDE:
    torch.manual_seed(0)
    return perturb(MMPDE(1, 2, **{**SMALL, **changes})).double()


def front(n=16, *, dim=2, periodic=True, batch=2):
    """Steep waves, smooth where the box is periodic."""
    box = Box((1.0,) * dim, (periodic,) * dim)
    x = box.centres((n,) * dim, dtype=torch.float64).unbind(-1)
    phase = torch.arange(batch, dtype=torch.float64).reshape(-1, *[1] * dim)
    wave = (2 * torch.pi * x[0] + phase).sin() + 0.5 * (2 * torch.pi * x[1]).cos()
    return torch.tanh(3 * wave).unsqueeze(1)


# ------------------------------------------------------------------------------------------------------- connectivity


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reach", [1, 2, 9])
@pytest.mark.parametrize("periodic", [(False, False), (True, True), (True, False)])
@pytest.mark.parametrize("cells", [(7, 5), (3, 9), (4, 4)])
def test_messages_of_a_grid_are_those_of_its_list_of_pairs(cells, periodic, reach, kind):
    grid = GridNeighbours(cells, periodic, reach=reach, kind=kind, like=LIKE)
    pairs = grid.pairs()
    torch.manual_seed(1)
    receivers, senders = (torch.randn(2, *cells, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    scale, shift = (torch.randn(len(grid.steps), 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    which = (pairs.features[:, None] == grid.features).all(-1).to(torch.float64)
    assert torch.equal(which.sum(1), torch.ones(len(which), dtype=torch.float64))
    inputs = [receivers, senders, scale, shift]
    found = grid.mean_of_messages(*inputs)
    wanted = pairs.mean_of_messages(receivers.flatten(1, 2), senders.flatten(1, 2), which @ scale, which @ shift)
    torch.testing.assert_close(found.flatten(1, 2), wanted)
    weights = torch.randn_like(found)
    for a, b in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((wanted * weights.flatten(1, 2)).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_messages_of_a_cell_by_hand():
    grid = GridNeighbours((4, 5), (False, True), kind="corners", like=LIKE)
    r, s = (torch.randn(1, 4, 5, 1, dtype=torch.float64) for _ in range(2))
    scale, shift = (torch.randn(8, 1, dtype=torch.float64) for _ in range(2))
    found = grid.mean_of_messages(r, s, scale, shift)
    for i, j in itertools.product(range(4), range(5)):
        messages = [
            (r[0, i, j] + scale[k] * (s[0, i + p, (j + q) % 5] - s[0, i, j]) + shift[k]).relu()
            for k, (p, q) in enumerate(grid.steps)
            if 0 <= i + p < 4
        ]
        assert len(messages) == (5 if i in (0, 3) else 8)
        torch.testing.assert_close(found[0, i, j], sum(messages) / len(messages))


def test_gradients_of_the_messages_are_exact_and_once_more_differentiable():
    grid = GridNeighbours((4, 3), (True, False), like=LIKE)
    torch.manual_seed(2)
    tensors = [
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 4, 3, 2),) * 2 + ((8, 2),) * 2
    ]
    assert torch.autograd.gradcheck(grid.mean_of_messages, tensors)
    assert torch.autograd.gradgradcheck(grid.mean_of_messages, tensors)


def test_compilers_get_the_same_messages_from_plain_operations():
    grid = GridNeighbours((4, 3), (False, False), reach=2, like=LIKE)
    torch.manual_seed(2)
    r, s, scale, shift = (torch.randn(*shape, dtype=torch.float64) for shape in ((2, 4, 3, 2),) * 2 + ((8, 2),) * 2)
    windows = grid._windows()
    torch.testing.assert_close(_plain(r, s, s, scale, shift, windows), sum_of_messages(r, s, s, scale, shift, windows))


def test_two_networks_at_once_by_vmap_are_a_loop_over_them():
    networks = [mmpde(branches="fixed") for _ in range(2)]
    with torch.no_grad():
        for parameter in networks[1].parameters():
            parameter.mul_(1.3)
    stacked = {
        name: torch.stack([dict(n.named_parameters())[name] for n in networks])
        for name, _ in networks[0].named_parameters()
    }
    x = front(6)
    found = vmap(lambda weights: functional_call(networks[0], weights, (x,)))(stacked)
    for network, y in zip(networks, found, strict=True):
        torch.testing.assert_close(network(x), y)


@pytest.mark.parametrize("periodic", [False, True])
def test_slopes_of_a_grid_and_of_its_pairs(periodic):
    cells = (6, 7)
    grid = GridNeighbours(cells, (periodic,) * 2, like=LIKE)
    index = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in cells), indexing="ij"), -1)
    matrix = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    linear = (index @ matrix.T).unsqueeze(0)
    inside = (slice(None), slice(1, -1), slice(1, -1)) if periodic else (slice(None),) * 3
    for slopes in (grid.gradient(linear), grid.pairs().gradient(linear.flatten(1, 2)).unflatten(1, cells)):
        torch.testing.assert_close(slopes[inside], matrix.expand_as(slopes[inside]))


def test_wrong_connectivity_is_named():
    with pytest.raises(ConfigError, match="unknown neighbours 'face'; did you mean 'faces'"):
        GridNeighbours((4, 4), (True, True), kind="face", like=LIKE)
    index = torch.tensor([[0, 1], [1, 4]])
    with pytest.raises(DataError, match="pairs name the nodes 0 to 4; there are 3 nodes"):
        ListNeighbours(index, torch.zeros(2, 2), 3, torch.ones(2))
    with pytest.raises(DataError, match=r"pairs of shape \(2, 2\) with features of shape \(3, 2\)"):
        ListNeighbours(index, torch.zeros(3, 2), 5, torch.ones(2))


# ---------------------------------------------------------------------------------------------------- the two branches


class Shifted:
    """A transfer between nodes that is its own inverse, to be told apart from none."""

    def there(self, values):
        return -values

    def back(self, values):
        return -values


@pytest.mark.parametrize("moves", [False, True])
def test_the_core_is_the_same_on_a_grid_and_on_its_list_of_pairs(moves):
    torch.manual_seed(0)
    core = perturb(GraphBranches(2, 3, dim=2, hidden_channels=5, n_layers=3, conditions=2, coordinates=True)).double()
    cells, box = (6, 5), Box((1.2, 1.0), (False, False))
    grids = [GridNeighbours(cells, (False, False), reach=r, spacing=box.spacing(cells), like=LIKE) for r in (1, 2)]
    u, condition = torch.randn(2, 2, *cells, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    fixed = box.centres(cells, dtype=torch.float64).unsqueeze(0)
    moved = fixed + torch.tensor([0.03, 0.05], dtype=torch.float64) * fixed * (1 + 0.5 * fixed) if moves else None
    moved = moved.expand(2, -1, -1, -1) if moves else None
    found = core(u, fixed, moved, grids, Shifted(), condition)
    lists = [grid.pairs() for grid in grids]
    flat = None if moved is None else moved.flatten(1, 2)
    wanted = core(u.flatten(2), fixed.flatten(1, 2), flat, lists, Shifted(), condition)
    if moves:  # least squares and central differences agree inside, not at walls: compare with the same slopes
        for pairs, grid in zip(lists, grids, strict=True):
            pairs.gradient = lambda v, grid=grid: grid.gradient(v.unflatten(1, cells)).flatten(1, 2)
        wanted = core(u.flatten(2), fixed.flatten(1, 2), flat, lists, Shifted(), condition)
    torch.testing.assert_close(found.flatten(2), wanted)


def test_the_core_runs_and_learns_on_a_triangulation():
    from scipy.spatial import Delaunay

    torch.manual_seed(0)
    points = torch.rand(40, 2, dtype=torch.float64)
    triangles = torch.from_numpy(Delaunay(points.numpy()).simplices).long()
    ends = torch.cat([triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])]).T
    pairs = ListNeighbours.of_points(torch.unique(torch.cat((ends, ends.flip(0)), 1), dim=1), points)
    core = perturb(GraphBranches(1, 1, dim=2, hidden_channels=6, n_layers=2)).double()
    u = torch.randn(3, 1, 40, dtype=torch.float64)
    moved = points + 0.02 * torch.randn(3, 40, 2, dtype=torch.float64)
    y = core(u, points.unsqueeze(0), moved, [pairs], Shifted())
    assert y.shape == (3, 1, 40)
    y.square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in core.parameters())
    order = torch.randperm(40)  # numbers of nodes mean nothing
    place = order.argsort()
    again = ListNeighbours.of_points(place[torch.stack((pairs.edges.source, pairs.edges.receiver))], points[order])
    other = core(u[..., order], points[order].unsqueeze(0), moved[:, order], [again], Shifted())
    torch.testing.assert_close(other, y[..., order])
    with pytest.raises(DataError, match=r"a field of shape \(3, 1, 40\) at nodes of shape \(1, 39, 2\)"):
        core(u, points[None, :39], None, [pairs], Shifted())


def test_the_moved_branch_sees_what_the_transfer_gives_and_the_sum_is_of_what_comes_back():
    class Records(Shifted):
        def there(self, values):
            self.given = values
            return torch.zeros_like(values)

        def back(self, values):
            self.made = values
            return 3 * values

    torch.manual_seed(0)
    core = perturb(GraphBranches(1, 1, dim=2, hidden_channels=5, n_layers=2)).double()
    alone = GraphBranches(1, 1, dim=2, hidden_channels=5, n_layers=2, branches="fixed").double()
    alone.load_state_dict({k: v for k, v in core.state_dict().items() if k.startswith("fixed")})
    fixed = Box((1.0, 1.0)).centres((6, 6), dtype=torch.float64).unsqueeze(0)
    grid = GridNeighbours((6, 6), (False, False), like=LIKE)
    u, records = torch.randn(1, 1, 6, 6, dtype=torch.float64), Records()
    y = core(u, fixed, None, [grid], records)
    assert torch.equal(records.given, u)
    torch.testing.assert_close(y, alone(u, fixed, None, [grid], None) + 3 * records.made)
    made = records.made
    core(u + 1, fixed, None, [grid], records)
    assert torch.equal(records.made, made)  # of zeros, whatever the field


def test_layers_take_the_reaches_in_turn():
    operator = mmpde(branches="fixed", reach=(1, 2, 4), n_layers=3, coordinates=False)
    u = torch.zeros(1, 1, 24, 24, dtype=torch.float64)
    pulse = u.clone()
    pulse[..., 11, 9] = 1.0
    seen = ((operator(pulse) - operator(u)).abs().amax(1)[0] > 0).nonzero()
    low, high = seen.amin(0).tolist(), seen.amax(0).tolist()
    assert low == [11 - 7, 9 - 7] and high == [11 + 7, 9 + 7]


def test_the_moved_branch_is_told_of_the_motion():
    torch.manual_seed(0)
    core = perturb(GraphBranches(1, 1, dim=2, hidden_channels=5, n_layers=2)).double()
    box = Box((1.0, 1.0), (True, True))
    grid = GridNeighbours((6, 6), (True, True), spacing=box.spacing((6, 6)), like=LIKE)
    fixed = box.centres((6, 6), dtype=torch.float64).unsqueeze(0)
    u = torch.randn(1, 1, 6, 6, dtype=torch.float64)
    bent = fixed + 0.05 * (2 * torch.pi * fixed).sin()
    still = core(u, fixed, None, [grid], Shifted())
    torch.testing.assert_close(core(u, fixed, fixed, [grid], Shifted()), still)
    assert (core(u, fixed, bent, [grid], Shifted()) - still).abs().max() > 1e-3


# -------------------------------------------------------------------------------------------------------- the operator


def weights(operator: nn.Module) -> int:
    return sum(parameter.numel() for parameter in operator.parameters())


def test_without_warp_it_has_exactly_the_same_weights():
    moving, still = mmpde(periodic=True), mmpde(periodic=True, warp=False)
    assert {n: p.shape for n, p in moving.named_parameters()} == {n: p.shape for n, p in still.named_parameters()}
    still.load_state_dict(moving.state_dict())
    assert (moving(front()) - still(front())).abs().max() > 1e-3
    alike = torch.full((2, 1, 16, 16), 0.7, dtype=torch.float64)
    torch.testing.assert_close(moving(alike), still(alike), rtol=0, atol=1e-9)


@pytest.mark.parametrize("changes", [{}, {"hidden_channels": 32, "n_layers": 4}, {"dim": 3, "n_parameters": 2}])
def test_the_graph_operator_alone_has_as_many_weights_as_both_branches(changes):
    both = MMPDE(2, 2, **changes)
    alone = MMPDE(2, 2, branches="fixed", **changes)
    assert abs(weights(alone) / weights(both) - 1) < 0.02
    assert alone.config["hidden_channels"] == both.config["hidden_channels"]
    assert alone.core.moved is None and alone.correction is None and not alone.motion.moves


@pytest.mark.parametrize("changes", [{"warp": False}, {"branches": "fixed"}, {}], ids=["still", "graph", "moving"])
def test_a_shift_of_a_periodic_field_shifts_the_output(changes):
    operator = mmpde(periodic=True, **changes)
    u = front(16)
    y = operator(u)
    tolerance = 1e-12 if changes else 1e-9  # the mesh is solved for in the order of the shifted numbers
    for shift, axis in ((1, 2), (5, 3)):
        assert (operator(u.roll(shift, axis)) - y.roll(shift, axis)).abs().max() < tolerance * y.abs().max()
    walled = mmpde(periodic=False, warp=False)
    assert (walled(u.roll(5, 3)) - walled(u).roll(5, 3)).abs().max() > 1e-3


@pytest.mark.parametrize("periodic", [False, True])
def test_in_three_dimensions(periodic):
    operator = mmpde(dim=3, periodic=periodic, n_parameters=2, temporal=2)
    assert operator.neighbours == "faces"
    u = front(8, dim=3, periodic=periodic)
    y = operator(u, parameters=torch.randn(2, 2, dtype=torch.float64))
    assert y.shape == (2, 4, 8, 8, 8)
    y.square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in operator.parameters())
    still = mmpde(dim=3, periodic=periodic, n_parameters=2, temporal=2, warp=False)
    assert (still(u, parameters=torch.zeros(2, 2, dtype=torch.float64)) - y).abs().max() > 1e-3


def test_gradients_reach_the_input_and_a_mover_that_is_trained():
    class Pull(nn.Module):
        """Moves what is inside towards the walls, by a weight and the mean of the field."""

        def __init__(self):
            super().__init__()
            self.strength = nn.Parameter(torch.tensor(0.02))

        def forward(self, u, box):
            corners = box.corners(u.shape[2:], dtype=u.dtype).expand(len(u), *(n + 1 for n in u.shape[2:]), 2)
            bump = (torch.pi * corners / torch.tensor(box.lengths, dtype=u.dtype)).sin()
            return corners + (self.strength * (1 + u.flatten(1).mean(1))).reshape(-1, 1, 1, 1) * bump

    x = torch.randn(1, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    operator = mmpde(mover=Pull(), frozen=False)
    assert "motion.trained.strength" in dict(operator.named_parameters())
    assert torch.autograd.gradcheck(operator, (x,), fast_mode=True)
    operator(x).square().sum().backward()
    assert operator.motion.trained.strength.grad.abs() > 0
    frozen = mmpde(mover=Pull())
    assert not any("strength" in name for name, _ in frozen.named_parameters())
    with pytest.raises(ConfigError, match="the mover is Pull, which from_pretrained could not find again"):
        frozen.save_pretrained("nowhere")


def test_saved_and_loaded_with_its_options(tmp_path):
    operator = mmpde(
        periodic=True,
        mover_options={"share": 0.7, "monitor": "gradient"},
        channel_names=["u"],
        moved_by=["u"],
        reach=(1, 3),
        temporal=2,
    )
    operator.save_pretrained(tmp_path)
    loaded = Operator.from_pretrained(tmp_path)
    assert loaded.config == operator.config and loaded.config["mover_options"]["share"] == 0.7
    assert torch.equal(loaded(front()), operator(front()))
    other = MMPDE(**{**operator.config, "mover_options": {"share": 0.3}}).double()
    other.load_state_dict(operator.state_dict())
    assert (other(front()) - operator(front())).abs().max() > 1e-4


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"branches": "moved"}, "unknown branches 'moved'"),
        ({"neighbours": "corner"}, "unknown neighbours 'corner'; did you mean 'corners'"),
        ({"mover": "monge_amper"}, "mmpde: unknown mover 'monge_amper'; did you mean 'monge_ampere'"),
        ({"mover": 3}, "mmpde: mover is 3; expected one of"),
        ({"mover_options": {"tol": 1e-3}}, "the mover 'monge_ampere' has no option 'tol'"),
        ({"mover_options": {"monitor": "curve"}}, "unknown monitor 'curve'; did you mean 'curvature'"),
        ({"moved_by": ["vorticity"], "channel_names": ["velocity_x"]}, "moved_by has no channel 'vorticity'"),
        ({"n_layers": 0}, "n_layers is 0"),
    ],
)
def test_arguments_out_of_range(changes, message):
    with pytest.raises(ConfigError, match=message):
        MMPDE(1, 1, **changes)


def test_a_grid_too_small_for_a_mesh():
    with pytest.raises(DataError, match="a mesh of 2 x 8 cells cannot be moved; expected 3 or more"):
        mmpde()(torch.zeros(1, 1, 2, 8, dtype=torch.float64))


def test_it_learns_at_once_what_neighbours_tell_of_a_smooth_field():
    """A product of value and slope is none of the node alone; without the gain of filters it takes far longer."""
    x = torch.arange(48) / 48 * 2 * torch.pi
    phases = torch.rand(6, 2, generator=torch.Generator().manual_seed(0)) * 6
    u = torch.stack([((x + p).sin()[:, None] + (x + q).cos()[None]) for p, q in phases])[:, None]
    wanted = u * (u.roll(-1, 2) - u.roll(1, 2))
    wanted = wanted / wanted.std()
    torch.manual_seed(0)
    operator = MMPDE(1, 1, hidden_channels=12, n_layers=2, branches="fixed", periodic=True)
    optimizer = torch.optim.Adam(operator.parameters(), lr=5e-3)
    for _ in range(25):
        loss = (operator(u) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
