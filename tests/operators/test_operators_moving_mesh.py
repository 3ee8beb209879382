"""The wrapper that runs any grid operator on a moved mesh: what moves it, what it is told, what comes back."""

import json

import pytest
import torch
from test_operators_table import SMALL, perturb
from torch import nn

from sciml.constraints.mesh_mover import Box, cell_volumes
from sciml.errors import ConfigError, DataError, SolverError
from sciml.operators import FNO, OPERATORS, MovingMesh, Operator, create_operator
from sciml.operators.moving_mesh.channels import moving_channels
from sciml.operators.moving_mesh.grid import MovedGrid
from sciml.operators.moving_mesh.motion import box_of
from sciml.operators.moving_mesh.movers import MOVERS, make_mover, move

INNER = [name for name in SMALL if name not in ("moving_mesh", "mmpde")]
FOURIER = {"hidden_channels": 6, "n_layers": 2, "n_modes": (5, 5)}


def options_of(name: str) -> dict:
    return {key: value for key, value in SMALL[name].items() if key != "time_conditioning"}


def wrapped(name="fno", **changes) -> MovingMesh:
    torch.manual_seed(0)
    return perturb(MovingMesh(name, 2, 3, **{"options": options_of(name), **changes}))


def front(n=16, *, dim=2, periodic=True, batch=2):
    """Two channels with steep waves, smooth where the box is periodic."""
    box = Box((1.0,) * dim, (periodic,) * dim)
    x = box.centres((n,) * dim, dtype=torch.float64).unbind(-1)
    phase = torch.arange(batch, dtype=torch.float64).reshape(-1, *[1] * dim)
    wave = (2 * torch.pi * x[0] + phase).sin() + 0.5 * (2 * torch.pi * x[1]).cos()
    return torch.stack((torch.tanh(3 * wave), wave), 1)


def stretched(u, box):
    """A mesh that is known: x = xi + 0.06 sin(2 pi xi) along each axis, which wraps and stays on walls."""
    corners = box.corners(u.shape[2:], dtype=u.dtype)
    lengths = torch.tensor(box.lengths, dtype=u.dtype)
    return (corners + 0.06 * lengths * (2 * torch.pi * corners / lengths).sin()).expand(len(u), *corners.shape)


class Keeps(nn.Module):
    """An operator that gives back its first channels."""

    def __init__(self, gives):
        super().__init__()
        self.gives = gives

    def forward(self, x):
        return x[:, : self.gives]


# --------------------------------------------------------------------------------------------------------- what it does


@pytest.mark.parametrize("name", INNER)
def test_without_motion_it_is_the_operator_with_channels_of_zeros(name):
    operator = wrapped(name, mover="none")
    torch.manual_seed(0)
    plain = create_operator(name, in_channels=5, out_channels=3, **SMALL[name])
    plain.load_state_dict(operator.network.state_dict())
    x = front().float()
    assert torch.equal(operator(x), plain(torch.cat((x, torch.zeros(2, 3, 16, 16)), 1)))


@pytest.mark.parametrize("name", INNER)
def test_every_grid_operator_runs_on_a_moved_mesh_with_as_many_weights(name, tmp_path):
    moving, still = wrapped(name), wrapped(name, mover="none")
    assert {n: p.shape for n, p in moving.named_parameters()} == {n: p.shape for n, p in still.named_parameters()}
    still.load_state_dict(moving.state_dict())
    x = front().float()
    y = moving(x)
    assert y.shape == (2, 3, 16, 16) and (y - still(x)).abs().max() > 1e-4
    y.square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in moving.parameters())
    alike = torch.full_like(x, 0.3)
    assert (moving(alike) - still(alike)).abs().max() < 1e-5  # a constant field moves nothing
    moving.eval().save_pretrained(tmp_path)
    assert torch.equal(Operator.from_pretrained(tmp_path).eval()(x), moving(x))


def test_the_operator_sees_the_field_at_the_moved_cells_and_is_told_of_them():
    seen = []

    class Listens(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x[:, :1]

    box, cells = Box((1.0, 1.0), (True, True)), (16, 16)
    operator = MovingMesh(lambda takes, gives: Listens(), 2, 1, mover=stretched, periodic=True)
    x = front()
    operator(x)
    corners = stretched(x, box)
    middle = torch.arange(17, dtype=torch.float64) / 16
    edge = middle + 0.06 * (2 * torch.pi * middle).sin()
    centre, width = (edge[1:] + edge[:-1]) / 2, edge.diff()
    moved = centre - (middle[1:] + middle[:-1]) / 2
    (told,) = seen
    torch.testing.assert_close(told[:, 2], moved[:, None].expand(2, 16, 16))
    torch.testing.assert_close(told[:, 3], moved[None, :].expand(2, 16, 16))
    torch.testing.assert_close(told[:, 4], (width[:, None] * width[None, :] * 256).log().expand(2, 16, 16))
    assert cell_volumes(corners).sum(dim=(1, 2)).sub(1).abs().max() < 1e-12
    wave = (2 * torch.pi * centre).sin()[:, None] + 0.5 * (2 * torch.pi * centre).cos()[None]
    assert (told[0, 1] - wave).abs().max() < 0.03  # the field itself is linear between cells
    # Where the mesh is not moved the field is not changed either.
    still = MovedGrid(box.corners(cells, dtype=torch.float64).expand(2, 17, 17, 2), box)
    torch.testing.assert_close(still.there(x), x)
    torch.testing.assert_close(still.back(x), x)
    assert still.channels().abs().max() < 1e-12


@pytest.mark.parametrize("cells", [(16, 16), (12, 20)])
def test_linear_fields_go_there_and_back_exactly(cells):
    box = box_of(cells, False)
    grid = MovedGrid(stretched(torch.zeros(2, 1, *cells, dtype=torch.float64), box), box)
    at = box.centres(cells, dtype=torch.float64)
    linear = (2 * at[..., 0] - 3 * at[..., 1] + 0.5).expand(2, 1, *cells)
    torch.testing.assert_close(grid.back(grid.there(linear)), linear)
    half = grid.back(grid.there(linear.float()).bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.double() - linear).abs().max() < 0.03  # of the values alone: positions are not rounded so


def test_what_the_operator_makes_comes_back_to_the_fixed_grid():
    at = box_of((12, 20), False).centres((12, 20), dtype=torch.float64)
    linear = (2 * at[..., 0] - 3 * at[..., 1] + 0.5).expand(2, 1, 12, 20)
    operator = MovingMesh(lambda takes, gives: Keeps(gives), 1, 1, mover=stretched)
    torch.testing.assert_close(operator(linear), linear)
    assert box_of((12, 20), True) == Box((0.6, 1.0), (True, True))  # cubic cells


def test_a_front_is_wider_on_the_moved_mesh():
    x = front(32)
    grid = MovedGrid(
        move(make_mover("a", "monge_ampere", {}), "m", x[:, :1], Box((1.0, 1.0), (True, True)), frozen=True),
        Box((1.0, 1.0), (True, True)),
    )
    steepest = x[:, 0].diff(dim=1).abs().amax((1, 2))
    assert (grid.there(x)[:, 0].diff(dim=1).abs().amax((1, 2)) < 0.8 * steepest).all()


@pytest.mark.parametrize("mover", ["none", "monge_ampere"])
def test_a_shift_of_a_periodic_field_shifts_the_output(mover):
    options = {"hidden_channels": 6, "n_layers": 2, "n_modes": (5, 5), "patch_size": 1, "coordinates": False}
    operator = wrapped("fno", mover=mover, periodic=True, options=options).double()
    x = front(16)
    y = operator(x)
    for shift, axis in ((1, 2), (5, 3)):
        assert (operator(x.roll(shift, axis)) - y.roll(shift, axis)).abs().max() < 1e-9 * y.abs().max()


def test_in_three_dimensions_with_all_conditions_and_several_frames():
    torch.manual_seed(0)
    options = {"hidden_channels": 6, "n_layers": 2, "n_modes": (3, 4, 5)}
    operator = MovingMesh(
        "fno", 2, 3, dim=3, temporal=2, n_parameters=2, time_conditioning=True, options=options
    ).double()
    x = front(8, dim=3, periodic=False)
    y = operator(x, parameters=torch.rand(2, 2).double(), time=torch.rand(2).double())
    assert y.shape == (2, 6, 8, 8, 8)
    y.square().sum().backward()
    assert all(p.grad is not None for p in operator.parameters())


# ---------------------------------------------------------------------------------------- fewer nodes than the grid has


@pytest.mark.parametrize("mover", ["none", stretched, "monge_ampere"])
@pytest.mark.parametrize("coarsen", [2, 3])
@pytest.mark.parametrize("cells", [(24, 18), (12, 18, 12)])
def test_on_fewer_nodes_linear_fields_pass_exactly_up_to_walls_and_constants_where_it_wraps(cells, coarsen, mover):
    dim, seen = len(cells), []

    class Listens(Keeps):
        def forward(self, x):
            seen.append(x)
            return super().forward(x)

    def operator(periodic):
        return MovingMesh(
            lambda takes, gives: Listens(gives),
            2,
            1,
            dim=dim,
            mover=mover,
            moved_by=[1],
            coarsen=coarsen,
            periodic=periodic,
        )

    at = box_of(cells, False).centres(cells, dtype=torch.float64)
    slopes = torch.tensor([2.0, -3.0, 0.7], dtype=torch.float64)[:dim]
    linear = (at @ slopes + 0.5).expand(2, 1, *cells)
    moves_it = torch.tanh(6 * (at.sum(-1) - 0.9)).expand(2, 1, *cells)
    torch.testing.assert_close(operator(False)(torch.cat((linear, moves_it), 1)), linear)
    (told,) = seen
    assert told.shape == (2, 2 + dim + 1, *(n // coarsen for n in cells))
    far = told[:, 2:].abs().max()
    assert far < 1e-12 if mover == "none" else far > 0.02
    constant = torch.full_like(linear, -1.7)
    waves = torch.tanh(3 * (2 * torch.pi * at / at.new_tensor(box_of(cells, True).lengths)).sin().sum(-1))
    x = torch.cat((constant, waves.expand(2, 1, *cells)), 1)
    torch.testing.assert_close(operator(True)(x), constant)


def test_the_mover_is_given_means_over_blocks_on_the_same_box():
    given = []

    def mover(u, box):
        given.append((u, box))
        return box.corners(u.shape[2:], dtype=u.dtype).expand(len(u), *(n + 1 for n in u.shape[2:]), 2)

    x = torch.randn(2, 2, 12, 24, dtype=torch.float64)
    operator = MovingMesh(lambda takes, gives: Keeps(gives), 2, 1, mover=mover, coarsen=3)
    y = operator(x)
    ((u, box),) = given
    torch.testing.assert_close(u, x.unflatten(3, (8, 3)).unflatten(2, (4, 3)).mean((3, 5)))
    assert box == box_of((12, 24), False)
    # A mesh that a mover left as it was is the mesh of mover="none"; every third cell is sampled at its centre.
    still = MovingMesh(lambda takes, gives: Keeps(gives), 2, 1, mover="none", coarsen=3)
    torch.testing.assert_close(y, still(x))
    torch.testing.assert_close(y[:, :, 1::3, 1::3], x[:, :1, 1::3, 1::3])


def test_moved_nodes_hold_a_front_better_than_as_many_that_stay():
    x = box_of((144, 144), True).centres((144, 144), dtype=torch.float64)
    radius = (x - 0.5).square().sum(-1).sqrt()
    phase = torch.tensor([0.0, 0.1], dtype=torch.float64)[:, None, None]
    fronts = torch.tanh((0.25 + 0.3 * phase - radius) / 0.025).unsqueeze(1)  # about 2.4 coarse cells wide

    def error(**options):
        operator = MovingMesh(lambda takes, gives: Keeps(gives), 1, 1, coarsen=3, periodic=True, **options)
        return (operator(fronts) - fronts).square().mean((1, 2, 3)).sqrt()

    gain = error(mover="none") / error(mover="monge_ampere")
    assert (gain > 1.3).all(), gain


@pytest.mark.parametrize("mover", ["none", "monge_ampere", stretched])
def test_on_fewer_nodes_gradients_flow_and_the_weights_stay_as_many(mover):
    torch.manual_seed(0)
    operator = wrapped(mover=mover, coarsen=2).double()
    plain = wrapped(mover="none")
    assert [p.shape for p in operator.parameters()] == [p.shape for p in plain.parameters()]
    x = front(24).requires_grad_()
    y = operator(x)
    assert y.shape == (2, 3, 24, 24)
    y.square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in operator.parameters()) and x.grad.abs().max() > 0
    if mover != "monge_ampere":  # whose mesh follows the input and is frozen, which finite differences do not see
        small = torch.randn(1, 2, 6, 6, dtype=torch.float64, requires_grad=True)
        kept = MovingMesh(lambda takes, gives: Keeps(gives), 2, 1, mover=mover, coarsen=2)
        assert torch.autograd.gradcheck(kept, (small,), fast_mode=True)


@pytest.mark.parametrize("mover", ["none", "monge_ampere", "learned"])
def test_coarsening_is_saved_and_configurations_without_it_load(mover, tmp_path):
    operator = wrapped(mover=mover, coarsen=2, periodic=True).eval()
    x = front(24).float()
    y = operator(x)
    operator.save_pretrained(tmp_path)
    loaded = Operator.from_pretrained(tmp_path).eval()
    assert loaded.config["coarsen"] == 2 and torch.equal(loaded(x), y)
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved["config"]["coarsen"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    older = Operator.from_pretrained(tmp_path).eval()
    assert older.config["coarsen"] == 1 and (older(x) - y).abs().max() > 1e-4


@pytest.mark.parametrize("mover", ["none", "monge_ampere"])
def test_half_precision_and_a_batch_of_one_on_fewer_nodes(mover):
    operator = MovingMesh(lambda takes, gives: Keeps(gives), 2, 1, mover=mover, coarsen=2)
    x = front(24).float()
    half = operator(x.bfloat16())
    assert half.dtype == torch.bfloat16 and (half.float() - operator(x)).abs().max() < 0.1
    torch.testing.assert_close(operator(x)[1:], operator(x[1:]))


def test_a_grid_that_cannot_be_coarsened_is_refused():
    for mover in ("none", "monge_ampere"):
        operator = wrapped(mover=mover, coarsen=3)
        with pytest.raises(DataError, match=r"moving_mesh: a grid of 16 x 12 cells does not fit coarsen=3; .*multiple"):
            operator(torch.zeros(1, 2, 16, 12))
        with pytest.raises(DataError, match=r"a grid of 12 x 6 cells does not fit coarsen=3; expected.* 9 or more"):
            operator(torch.zeros(1, 2, 12, 6))


# ------------------------------------------------------------------------------------------------------ what moves it


def test_the_channels_of_the_newest_frame_move_the_mesh_unless_others_are_named():
    names = ["a_before1", "b_before1", "a", "b"]
    assert moving_channels("m", None, names, 4) == [2, 3]
    assert moving_channels("m", None, None, 4) == [0, 1, 2, 3]
    assert moving_channels("m", ["b", 0], names, 4) == [3, 0]
    x, other = front(), front().flip(0)
    one = wrapped(moved_by=["u"], channel_names=["u", "v"]).double()
    changed = torch.stack((x[:, 0], other[:, 1]), 1)
    assert torch.equal(one.motion(x).corners, one.motion(changed).corners)
    both = wrapped(channel_names=["u", "v"]).double()
    assert (both.motion(x).corners - both.motion(changed).corners).abs().max() > 1e-4
    assert MovingMesh.options_for_names(["u", "u_before1"], ["u"], []) == {"channel_names": ["u", "u_before1"]}


def test_a_mover_is_frozen_unless_it_is_trained():
    class Pull(nn.Module):
        def __init__(self):
            super().__init__()
            self.strength = nn.Parameter(torch.tensor(0.05))

        def forward(self, u, box):
            still = box.corners(u.shape[2:], dtype=u.dtype)
            moved = self.strength * (1 + u.flatten(1).mean(1)).reshape(-1, 1, 1, 1)
            return still + moved * (2 * torch.pi * still).sin() / 2

    trained = wrapped(mover=Pull(), periodic=True, frozen=False).double()
    frozen = wrapped(mover=trained.motion.trained, periodic=True).double()
    x = front().requires_grad_()
    assert not any("strength" in name for name, _ in frozen.named_parameters())
    assert [group.name for group in trained.parameter_groups()][-1] == "mover"
    trained(x).square().sum().backward()
    assert trained.motion.trained.strength.grad.abs() > 0
    small = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(trained, (small,), fast_mode=True)
    frozen.load_state_dict({k: v for k, v in trained.state_dict().items() if "strength" not in k})
    torch.testing.assert_close(frozen(x), trained(x))
    trained.zero_grad()
    frozen(x).square().sum().backward()
    assert trained.motion.trained.strength.grad is None


def test_options_of_the_classical_mover_matter():
    x = front()
    meshes = [
        wrapped(mover_options=options).motion(x).corners
        for options in ({}, {"share": 0.2}, {"monitor": "gradient"}, {"smoothing": 0.2}, {"tolerance": 10.0})
    ]
    for mesh in meshes[1:]:
        assert (mesh - meshes[0]).abs().max() > 1e-3


def test_a_field_that_has_diverged_does_not_move_and_is_not_hidden():
    operator = wrapped(mover="monge_ampere")
    x = front().float()
    x[1, 0, 3, 4] = torch.nan
    y = operator(x)
    assert torch.isfinite(y[0]).all() and not torch.isfinite(y[1]).all()
    torch.testing.assert_close(y[0], operator(x[:1])[0])


@pytest.mark.parametrize("field", [torch.randn(2, 2, 16, 16), 1e20 * torch.randn(2, 2, 16, 16), None])
def test_rough_fields_and_spikes_move_a_mesh_that_is_valid(field):
    if field is None:
        field = torch.zeros(2, 2, 16, 16)
        field[:, :, 7, 5] = 1.0
    for options in ({}, {"share": 0.95}):
        assert torch.isfinite(wrapped(mover_options=options)(field)).all()


# --------------------------------------------------------------------------------------------------------------- errors


def test_movers_that_give_no_mesh_are_named():
    x = front().float()

    def lost(u, box):
        corners = stretched(u, box).clone()
        corners[1, 2, 3] = torch.nan
        return corners

    def turned(u, box):
        corners = stretched(u, box).clone()
        corners[0, 5, 5] += 0.3
        return corners

    with pytest.raises(SolverError, match=r"mover .*lost gave positions that are not finite, in sample 1 of the batch"):
        wrapped(mover=lost)(x)
    with pytest.raises(SolverError, match=r"mover .*turned folded \d+ cells in sample 0.*unfolded"):
        wrapped(mover=turned)(x)
    with pytest.raises(
        ConfigError, match=r"gave corners of shape \(2, 16, 16, 2\); expected a tensor \(2, 17, 17, 2\)"
    ):
        wrapped(mover=lambda u, box: stretched(u, box)[:, 1:, 1:])(x)
    with pytest.raises(ConfigError, match="gave corners of NoneType; expected a tensor"):
        wrapped(mover=lambda u, box: None)(x)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"operator": "gns"}, "moving_mesh: 'gns' steps particles, which have no grid to split or move"),
        ({"operator": "fmo"}, "moving_mesh: unknown operator 'fmo'; did you mean 'fno'"),
        ({"operator": "mmpde"}, "mmpde cannot be its sub-operator: it moves a mesh itself"),
        ({"operator": "poseidon", "dim": 3}, "moving_mesh: poseidon exists in 2D only"),
        ({"dim": 3, "options": {"n_modes": (4, 4)}}, "moving_mesh: the options make a fno on grids of 2 axes"),
        ({"options": {"in_channels": 3}}, "'in_channels', which follows from the arguments of the whole"),
        ({"options": {"n_mode": (3, 3)}}, "no argument 'n_mode'; did you mean 'n_modes'"),
        ({"mover": "monge"}, "unknown mover 'monge'"),
        ({"mover_options": {"shares": 0.2}}, "no option 'shares'; did you mean 'share'"),
        ({"mover": stretched, "mover_options": {"share": 0.2}}, "mover_options go with a mover by name"),
        ({"mover_options": {"share": 2.0}}, "share"),
        ({"moved_by": ["w"], "channel_names": ["u", "v"]}, r"moved_by has no channel 'w'; known: u, v"),
        ({"moved_by": ["u"]}, "the names of the input channels are not known"),
        ({"moved_by": [2]}, "moved_by has 2; expected names, or numbers from 0 to 1"),
        ({"moved_by": []}, "moved_by is empty"),
        ({"channel_names": ["u"]}, "1 channel_names for 2 input channels"),
        ({"coarsen": 0}, "moving_mesh: coarsen is 0; expected a whole number above 0"),
        ({"coarsen": 1.5}, "coarsen is 1.5"),
        ({"coarsen": True}, "coarsen is True"),
    ],
)
def test_arguments_out_of_range(changes, message):
    with pytest.raises(ConfigError, match=message):
        MovingMesh(**{"operator": "fno", "in_channels": 2, "out_channels": 2, **changes})(torch.randn(1, 2, 12, 12))


def test_an_operator_that_does_not_fit_the_grid():
    pooled = MovingMesh(lambda i, o: nn.Conv2d(i, o, 2, stride=2), 2, 2)
    with pytest.raises(ConfigError, match=r"moving_mesh: the sub-operator made a tensor.*keeps batch and grid"):
        pooled(front().float())
    with pytest.raises(DataError, match=r"grid \(12, 12\) is not a multiple of 16"):
        MovingMesh("unet", 2, 2, periodic=True)(torch.zeros(1, 2, 12, 12))
    with pytest.raises(DataError, match="a mesh of 12 x 2 cells cannot be moved"):
        wrapped()(torch.zeros(1, 2, 12, 2))


def test_what_the_user_made_is_not_saved(tmp_path):
    MovingMesh(FNO, 1, 1, options=FOURIER).save_pretrained(tmp_path / "class")
    assert Operator.from_pretrained(tmp_path / "class").config["operator"] == "fno"
    with pytest.raises(ConfigError, match=r"sub-operator is made by .*lambda.*could not find again"):
        MovingMesh(lambda i, o: Keeps(o), 1, 1).save_pretrained(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="the mover is stretched, which from_pretrained could not find again"):
        wrapped(mover=stretched).save_pretrained(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_the_registry_makes_it_of_unet_by_default():
    operator = create_operator("moving_mesh", in_channels=1, out_channels=1)
    assert operator.network.name == "unet" and operator.config["mover"] in MOVERS
    assert OPERATORS["moving_mesh"] is MovingMesh
