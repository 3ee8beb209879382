"""Split and merge are exact; the three modes, their subtasks, saving, and what is refused."""

import itertools

import pytest
import torch
from test_operators_table import SMALL, perturb
from torch import nn
from torch.func import functional_call

from sciml.errors import ConfigError, DataError
from sciml.operators import FNO, OPERATORS, NeuralStagger, Operator, create_operator
from sciml.operators.neuralstagger import MODES, merge, split
from sciml.operators.neuralstagger.operator import REFUSED
from sciml.operators.neuralstagger.stacked_networks import tensors_of

SUBOPERATORS = [name for name in SMALL if name not in REFUSED]
FOURIER = {"hidden_channels": 6, "n_layers": 2, "n_modes": (5, 5)}


def options_of(name: str) -> dict:
    return {key: value for key, value in SMALL[name].items() if key != "time_conditioning"}


def stagger(name="fno", mode="stacked", *, seed=0, **changes) -> NeuralStagger:
    torch.manual_seed(seed)
    values = {"spatial": 2, "mode": mode, "options": options_of(name) if name in SMALL else {}, **changes}
    return perturb(NeuralStagger(name, 2, 3, **values))


def field(*grid, batch=2, dtype=torch.float64):
    torch.manual_seed(1)
    return torch.randn(batch, 2, *grid, dtype=dtype)


# ------------------------------------------------------------------------------------------------------ split and merge


@pytest.mark.parametrize(
    "factors", [(1,), (2,), (6,), (2, 2), (1, 3), (4, 6), (12, 12), (2, 2, 2), (1, 2, 3), (3, 4, 1)]
)
def test_merge_inverts_split_bit_for_bit(factors):
    x = torch.randn(2, 3, *[12] * len(factors))
    phases = split(x, factors)
    assert phases.shape == (2, torch.tensor(factors).prod(), 3, *(12 // s for s in factors))
    assert torch.equal(merge(phases, factors), x)
    assert torch.equal(split(merge(phases, factors), factors), phases)
    for number, offset in enumerate(itertools.product(*map(range, factors))):
        strided = x[(..., *(slice(p, None, s) for p, s in zip(offset, factors, strict=True)))]
        assert torch.equal(phases[:, number], strided)


def test_a_shift_by_one_cell_permutes_the_phases():
    x = torch.randn(1, 1, 12, 8)
    phases, moved = split(x, (3, 2)), split(x.roll(1, 2), (3, 2))
    for p, q in itertools.product(range(3), range(2)):
        source = phases[:, ((p - 1) % 3) * 2 + q]
        assert torch.equal(moved[:, p * 2 + q], source if p else source.roll(1, 2))


def test_grids_that_the_factors_do_not_divide():
    with pytest.raises(DataError, match=r"5 does not divide the 12 cells along y.*4 is the nearest.*a grid of 15"):
        split(torch.zeros(1, 1, 10, 12), (5, 5))
    with pytest.raises(DataError, match=r"2 axes.*3 factors"):
        split(torch.zeros(1, 1, 10, 10), (2, 2, 2))
    with pytest.raises(DataError, match=r"4 on a grid of 2 axes.*make 6"):
        merge(torch.zeros(1, 4, 1, 5, 5), (2, 3))
    with pytest.raises(DataError, match="4 does not divide the 10 cells along x"):
        stagger(periodic=True, spatial=4)(field(10, 8).float())


def test_on_walls_a_grid_is_padded_by_its_last_cells_and_cropped():
    operator = stagger(spatial=(4, 3)).double()
    x = field(10, 9)
    padded = torch.cat([x, x[:, :, -1:], x[:, :, -1:]], 2)
    assert torch.equal(operator(x), operator(padded)[:, :, :10])


# ---------------------------------------------------------------------------------------------------------------- modes


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SUBOPERATORS)
def test_factors_of_one_are_the_operator_bit_for_bit(name, mode):
    torch.manual_seed(3)
    plain = create_operator(name, in_channels=2, out_channels=3, n_parameters=2, **SMALL[name])
    torch.manual_seed(3)
    staggered = NeuralStagger(name, 2, 3, spatial=1, mode=mode, n_parameters=2, options=options_of(name))
    x, parameters = field(16, 12, dtype=torch.float32), torch.rand(2, 2)
    assert torch.equal(staggered(x, parameters=parameters), plain(x, parameters=parameters))
    assert sum(p.numel() for p in staggered.parameters()) == sum(p.numel() for p in plain.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", SUBOPERATORS)
def test_independent_networks_are_a_loop_over_them(name, training, dtype):
    operator = stagger(name, "independent", spatial=(2, 1), temporal=2, n_parameters=2, time_conditioning=True).to(
        dtype
    )
    operator.train(training)
    x = field(16, 16, dtype=dtype).requires_grad_()
    conditions = {"time": torch.rand(2, dtype=dtype), "parameters": torch.rand(2, 2, dtype=dtype).requires_grad_()}
    parts = []
    for phase in range(2):
        for frame in range(2):
            alone = {key: tensor[2 * phase + frame] for key, tensor in tensors_of(operator.network).items()}
            parts.append(functional_call(operator.network, alone, (x[:, :, phase::2],), conditions))
    wanted = torch.stack(parts).unflatten(0, (2, 2)).permute(2, 1, 3, 4, 0, 5)  # batch, frame, channel, x, phase, y
    wanted = wanted.reshape(2, 6, 16, 16)
    found = operator(x, **conditions)
    tolerance = 2e-6 if dtype == torch.float32 else 1e-12
    assert (found - wanted).abs().max() < tolerance * wanted.abs().max()
    if not training:
        with torch.no_grad():
            for _ in range(2):
                assert (operator(x, **conditions) - wanted).abs().max() < tolerance * wanted.abs().max()
    inputs = [x, conditions["parameters"], *operator.parameters()]
    weights = torch.randn_like(found)
    for a, b in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((wanted * weights).sum(), inputs),
        strict=True,
    ):
        assert (a - b).abs().max() <= 50 * tolerance * b.abs().max().clamp(min=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_equal_finite_differences(mode):
    operator = stagger(mode=mode, temporal=2, options={**FOURIER, "n_modes": (3, 3), "n_layers": 1}).double()
    x = field(4, 4, batch=1).requires_grad_()
    assert torch.autograd.gradcheck(operator, (x,), fast_mode=True)
    weights = list(operator.parameters())
    assert torch.autograd.gradcheck(lambda *_: operator(x.detach()), weights, fast_mode=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dim, modes", [(1, (5,)), (2, (5, 5)), (3, (3, 3, 3))])
def test_one_to_three_dimensions_and_several_frames(mode, dim, modes):
    spatial = [2, 1, 2][:dim]
    operator = stagger(mode=mode, dim=dim, spatial=spatial, temporal=3, options={**FOURIER, "n_modes": modes})
    y = operator(field(*[8] * dim, dtype=torch.float32))
    assert operator.temporal == 3 and y.shape == (2, 9, *[8] * dim)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in operator.parameters())


@pytest.mark.parametrize("mode", MODES)
def test_circular_convolutions_in_every_mode(mode):
    operator = stagger("unet", mode, periodic=True, options={"hidden_channels": (4, 6)}).double()
    assert operator(field(16, 16)).shape == (2, 3, 16, 16)
    operator = stagger("poseidon", mode, periodic=True).double()
    assert operator(field(16, 16)).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("residual_model", ["convnext", "resnet"])
def test_norms_with_running_statistics_keep_their_own(residual_model):
    options = {**options_of("poseidon"), "residual_model": residual_model}
    operator = stagger("poseidon", "independent", options=options).double()
    operator(field(16, 16))
    means = [buffer for name, buffer in operator.named_buffers() if name.endswith("running_mean")]
    assert bool(means) == (residual_model == "resnet")
    for mean in means:
        assert mean.shape[0] == 4 and len({round(float(m), 9) for m in mean.abs().sum(1)}) == 4


def test_recomputing_under_vmap_is_refused():
    operator = stagger("poseidon", "independent", options={**options_of("poseidon"), "gradient_checkpointing": True})
    with pytest.raises(ConfigError, match="gradient_checkpointing recomputes nothing under"):
        operator(field(16, 16, dtype=torch.float32))
    assert operator.eval()(field(16, 16, dtype=torch.float32)).shape == (2, 3, 16, 16)


def test_networks_have_weights_of_their_own_and_shared_ones_the_same():
    independent = NeuralStagger("fno", 2, 3, spatial=2, mode="independent", temporal=3, options=FOURIER)
    for tensor in independent.parameters():
        assert tensor.shape[0] == 12 and not torch.allclose(tensor[0], tensor[1])
    one = sum(p.numel() for p in FNO(2, 3, patch_size=1, **FOURIER).parameters())
    assert sum(p.numel() for p in independent.parameters()) == 12 * one
    shared = stagger(mode="shared", periodic=True, options={**FOURIER, "coordinates": False})
    assert sum(p.numel() for p in shared.parameters()) == one - 2 * 12  # two coordinates into twice six channels


def test_shared_weights_on_a_periodic_box_commute_with_shifts_by_a_cell():
    options = {**FOURIER, "coordinates": False}
    x = field(12, 8)
    for axis in (2, 3):
        shared = stagger(mode="shared", periodic=True, options=options).double()
        torch.testing.assert_close(shared(x.roll(1, axis)), shared(x).roll(1, axis), rtol=0, atol=1e-12)
        for mode in ("stacked", "independent"):
            other = stagger(mode=mode, periodic=True, options=options).double()
            assert (other(x.roll(1, axis)) - other(x).roll(1, axis)).abs().max() > 1e-3
            torch.testing.assert_close(other(x.roll(2, axis)), other(x).roll(2, axis), rtol=0, atol=1e-12)


@pytest.mark.parametrize("periodic, coordinates", [(False, False), (True, True)])
def test_where_phases_differ_a_shared_network_is_told_which(periodic, coordinates):
    operator = stagger(mode="shared", periodic=periodic, options={**FOURIER, "coordinates": coordinates}).double()
    constant = operator(torch.ones(1, 2, 8, 8, dtype=torch.float64))
    phases = split(constant, (2, 2))
    assert min((phases[:, 0] - phases[:, k]).abs().max() for k in (1, 2, 3)) > 1e-4


@pytest.mark.parametrize("name", ["fno", "unet"])
def test_patches_are_of_one_cell_unless_given(name):
    assert NeuralStagger(name, 1, 1).network.patch_size == 1
    assert NeuralStagger(name, 1, 1, options={"patch_size": 2}).network.patch_size == 2
    assert NeuralStagger(name, 1, 1, spatial=1).network.patch_size == 2  # the operator with its own defaults
    assert NeuralStagger("poseidon", 1, 1, mode="shared").network.settings.resize == "pad"


# ------------------------------------------------------------------------------------------------------------- subtasks


@pytest.mark.parametrize("mode", ["shared", "independent"])
@pytest.mark.parametrize("periodic", [True, False])
def test_a_subtask_is_the_phase_of_the_whole(mode, periodic):
    operator = stagger(mode=mode, spatial=(3, 2), temporal=2, periodic=periodic, n_parameters=1).double()
    x, parameters = field(12, 8), torch.rand(2, 1, dtype=torch.float64)
    whole = operator(x, parameters=parameters)
    for phase in itertools.product(range(3), range(2)):
        where = (..., slice(phase[0], None, 3), slice(phase[1], None, 2))
        every, last = operator.subtask(phase), operator.subtask(phase, frames="last")
        assert (every.temporal, last.temporal) == (2, 1)
        torch.testing.assert_close(every(x[where], parameters=parameters), whole[where], rtol=0, atol=1e-12)
        torch.testing.assert_close(last(x[where], parameters=parameters), whole[where][:, 3:], rtol=0, atol=1e-12)


def test_a_subtask_shares_the_weights():
    operator = stagger(mode="independent", temporal=2)
    subtask = operator.subtask((0, 1), frames="last")
    subtask(field(4, 4, dtype=torch.float32)).sum().backward()
    for parameter in operator.parameters():
        touched = parameter.grad.flatten(1).abs().sum(1) > 0
        assert touched.tolist() == [k == 3 for k in range(8)]
    with pytest.raises(ConfigError, match="saved with the NeuralStagger"):
        subtask.save_pretrained("nowhere")


def test_subtasks_that_do_not_exist():
    with pytest.raises(ConfigError, match="one network sees all phases"):
        stagger().subtask()
    with pytest.raises(ConfigError, match="did you mean 'last'"):
        stagger(mode="shared").subtask(frames="lasst")
    for phase in ((0, 2), (-1, 0), (0,)):
        with pytest.raises(ConfigError, match=r"expected an offset in cells below \(2, 2\)"):
            stagger(mode="shared").subtask(phase)


# --------------------------------------------------------------------------------------------------- saving, factories


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SUBOPERATORS)
def test_saved_and_loaded_is_bit_equal(name, mode, tmp_path):
    operator = stagger(name, mode, temporal=2, periodic=name == "fno").eval()
    operator.save_pretrained(tmp_path)
    random_state = torch.get_rng_state()
    loaded = Operator.from_pretrained(tmp_path).eval()
    assert torch.equal(torch.get_rng_state(), random_state)
    assert loaded.config == operator.config and (loaded.temporal, loaded.mode) == (2, mode)
    x = field(16, 16, dtype=torch.float32)
    assert torch.equal(loaded(x), operator(x))


def test_a_class_of_the_package_is_its_name(tmp_path):
    NeuralStagger(FNO, 1, 1, options=FOURIER).save_pretrained(tmp_path)
    assert Operator.from_pretrained(tmp_path).config["operator"] == "fno"


class Tied(nn.Module):
    """A user's own: two layers with one weight, and a bias of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x).tanh())


@pytest.mark.parametrize("mode", MODES)
def test_a_users_own_factory_works_and_is_not_saved(mode, tmp_path):
    operator = NeuralStagger(lambda takes, gives: Tied(takes), 2, 2, spatial=2, mode=mode, periodic=True)
    names = [name for name, _ in operator.named_parameters()]
    assert names == ["network.first.weight", "network.first.bias", "network.second.bias"]
    y = operator(field(8, 8, dtype=torch.float32))
    y.square().sum().backward()
    assert y.shape == (2, 2, 8, 8) and all(p.grad.abs().max() > 0 for p in operator.parameters())
    with pytest.raises(ConfigError, match=r"made by .*lambda.*could not find again"):
        operator.save_pretrained(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"operator": "gns"},
            "'gns' steps particles, which have no grid to split or move; expected one of deeponet, fno",
        ),
        ({"operator": "fmo"}, "unknown operator 'fmo'; did you mean 'fno'"),
        ({"operator": "neuralstagger"}, "neuralstagger cannot be its sub-operator: splitting twice is splitting once"),
        ({"operator": "mmpde"}, "mmpde cannot be its sub-operator: it moves the mesh.*inside moving_mesh"),
        ({"operator": 3}, "operator is 3; expected the name or class of a grid operator"),
        ({"operator": dict}, "expected the name or class of a grid operator"),
        ({"operator": lambda takes, gives: None}, "made a NoneType; expected a torch.nn.Module"),
        ({"operator": "poseidon", "dim": 3}, "poseidon exists in 2D only, and the grid has 3 axes"),
        ({"dim": 1, "options": {"n_modes": (4, 4)}}, "fno on grids of 2 axes, and dim is 1.*an entry for each axis"),
        ({"operator": "deeponet", "dim": 3, "options": {"n_sensors": (4, 4)}}, "deeponet on grids of 2 axes"),
        ({"spatial": 0}, r"spatial\[0\] is 0"),
        ({"spatial": (2, 1.5)}, r"spatial\[1\] is 1.5"),
        ({"spatial": (2, 2, 2)}, "3 factors for 2 axes"),
        ({"temporal": 0}, "temporal is 0"),
        ({"mode": "stack"}, "unknown mode 'stack'; did you mean 'stacked'"),
        ({"options": {"n_mode": (3, 3)}}, "no argument 'n_mode'; did you mean 'n_modes'"),
        ({"options": {"in_channels": 3}}, "'in_channels', which follows from the arguments of the whole"),
        ({"options": {"block": nn.Linear}}, "unknown block|cannot be written as JSON"),
    ],
)
def test_arguments_out_of_range(changes, message):
    values = {"operator": "fno", "in_channels": 2, "out_channels": 2, **changes}
    with pytest.raises(ConfigError, match=message):
        NeuralStagger(**values)


def test_a_module_that_is_no_grid_operator():
    for mode in MODES:
        pooled = NeuralStagger(lambda i, o: nn.Conv2d(i, o, 2, stride=2), 2, 2, spatial=2, mode=mode)
        with pytest.raises(ConfigError, match="keeps batch and grid"):
            pooled(field(8, 8, dtype=torch.float32))
        narrow = NeuralStagger(lambda i, o: nn.Conv2d(i, 1, 1), 2, 2, spatial=2, mode=mode)
        with pytest.raises(ConfigError, match="makes the channels that it is asked for"):
            narrow(field(8, 8, dtype=torch.float32))


@pytest.mark.parametrize("mode", MODES)
def test_a_coarse_grid_that_the_sub_operator_refuses_is_named(mode):
    operator = stagger("unet", mode, periodic=True, options={"hidden_channels": (4, 6, 8)})
    with pytest.raises(DataError, match=r"coarse grid \(6, 4\) that the factors \(2, 2\) leave.*multiple of 4"):
        operator(field(12, 8, dtype=torch.float32))


def test_the_registry_makes_it_of_fno_by_default():
    operator = create_operator("neuralstagger", in_channels=1, out_channels=1, spatial=8)
    assert type(operator.network) is FNO and operator.spatial == (8, 8) and operator.mode == "stacked"
    assert OPERATORS["neuralstagger"] is NeuralStagger
    x = torch.randn(1, 1, 32, 32)  # four coarse cells, fewer than modes
    assert operator(x).shape == x.shape
    assert not hasattr(operator, "expert_group") and hasattr(stagger(mode="independent"), "expert_group")
    assert stagger("poseidon", "independent").parameter_groups()[0].name == "embedding_recovery"
