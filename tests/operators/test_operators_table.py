"""Every registered operator through every check: register a new one, give it a small size here, done."""

import json

import pytest
import torch
from torch import nn

from sciml.errors import CheckpointError, ConfigError, DataError
from sciml.operators import OPERATORS, Operator, create_operator

SMALL = {
    "fno": {"hidden_channels": 6, "n_layers": 2, "n_modes": (5, 5)},
    "unet": {"hidden_channels": (4, 6), "embedding_channels": 4},
    "deeponet": {"hidden_channels": 8, "n_basis": 4, "n_layers": 3, "n_sensors": (4, 4)},
    "multionet": {
        "hidden_channels": 8,
        "n_layers": 3,
        "averaged_layers": 2,
        "encoder_channels": (6,),
        "n_sensors": (4, 4),
    },
    "poseidon": {
        "image_size": 16,
        "patch_size": 2,
        "embed_dim": 4,
        "depths": (2, 2),
        "num_heads": (1, 2),
        "skip_connections": (1, 0),
        "window_size": 4,
        "norm_gain": 1.0,
        "resize": "pad",
        "time_conditioning": False,
    },
    "neuralstagger": {"spatial": 2, "options": {"hidden_channels": 6, "n_layers": 2, "n_modes": (5, 5)}},
    "moving_mesh": {"options": {"hidden_channels": (4, 6), "embedding_channels": 4}},
    "mmpde": {"hidden_channels": 6, "n_layers": 3, "reach": (1, 2)},
}
WITH_A_FIXED_MESH = {"moving_mesh": {"mover": "none"}, "mmpde": {"warp": False}}
"""A mesh is taken as given: no gradient reaches the input through it."""
EXPORTABLE = {"moving_mesh": {"mover": "none"}, "mmpde": {"branches": "fixed"}}
"""A mesh is found by as many iterations as it needs, which no graph of operations holds."""
IN_ONE_DIMENSION = {
    "fno": {"n_modes": (5,)},
    "unet": {"dim": 1},
    "deeponet": {"n_sensors": (4,)},
    "multionet": {"n_sensors": (4,)},
    "neuralstagger": {"dim": 1, "options": {"hidden_channels": 6, "n_layers": 2, "n_modes": (5,)}},
}
IN_THREE_DIMENSIONS = {
    "fno": {"n_modes": (3, 4, 5)},
    "unet": {"dim": 3},
    "deeponet": {"n_sensors": (4, 3, 2)},
    "multionet": {"n_sensors": (4, 3, 2)},
    "neuralstagger": {"dim": 3, "options": {"hidden_channels": 6, "n_layers": 2, "n_modes": (3, 4, 5)}},
}
NAMES = sorted(OPERATORS)
ANY_DIMENSION = [name for name in NAMES if OPERATORS[name].dims == (1, 2, 3)]


def small(name: str, **changes) -> Operator:
    torch.manual_seed(0)
    operator = create_operator(name, **{"in_channels": 2, "out_channels": 3, **SMALL[name], **changes})
    return perturb(operator)


def perturb(operator: Operator) -> Operator:
    """Move layers that start at zero, so that nothing is hidden behind them."""
    with torch.no_grad():
        for parameter in operator.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return operator


def inputs(batch: int = 2, grid=(12, 10), dtype=torch.float32):
    torch.manual_seed(1)
    return torch.randn(batch, 2, *grid, dtype=dtype), torch.randn(batch, 3, dtype=dtype)


def test_the_table_covers_the_registry():
    assert set(SMALL) == set(OPERATORS)
    assert all(OPERATORS[name].name == name for name in OPERATORS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid", [(12, 10), (16, 16), (13, 11), (9, 24), (3, 5)])
def test_any_grid_and_every_parameter_gets_a_gradient(name, grid):
    operator = small(name, n_parameters=3, time_conditioning=True)
    x, parameters = inputs(grid=grid)
    y = operator(x, parameters=parameters, time=torch.tensor([0.3, 0.7]))
    assert y.shape == (2, 3, *grid)
    y.square().sum().backward()
    for key, parameter in operator.named_parameters():
        assert parameter.grad is not None, f"{key} takes no part: DDP would stop"
        assert torch.isfinite(parameter.grad).all()
        alone = name == "poseidon" and min(grid) < 8  # a coarsest window of one token: nothing to attend to
        if not (alone and (key.endswith("logit_scale") or "bias_mlp" in key or ".query." in key or ".key." in key)):
            assert parameter.grad.abs().max() > 0, f"{key} has a zero gradient"


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_in_one_group(name):
    operator = small(name, n_parameters=3, time_conditioning=True)
    grouped = [id(parameter) for group in operator.parameter_groups() for parameter in group.parameters]
    assert sorted(grouped) == sorted(id(parameter) for parameter in operator.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_takes_part_from_the_start(name):
    operator = create_operator(name, in_channels=2, out_channels=2, **SMALL[name])
    operator(inputs()[0]).sum().backward()
    assert all(parameter.grad is not None for parameter in operator.parameters())


@pytest.mark.parametrize("name", ANY_DIMENSION)
@pytest.mark.parametrize(
    "changes, grid", [(IN_ONE_DIMENSION, (17,)), (IN_THREE_DIMENSIONS, (6, 7, 8))], ids=["1D", "3D"]
)
def test_one_and_three_dimensions(name, changes, grid):
    operator = small(name, n_parameters=3, **changes[name])
    x, parameters = inputs(grid=grid)
    y = operator(x, parameters=parameters)
    assert y.shape == (2, 3, *grid)
    y.square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in operator.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_the_input_the_parameters_and_the_time_matter(name):
    operator = small(name, n_parameters=3, time_conditioning=True).double()
    x, parameters = inputs(dtype=torch.float64)
    time = torch.tensor([0.2, 0.6], dtype=torch.float64)
    y = operator(x, parameters=parameters, time=time)
    assert (operator(x + 1, parameters=parameters, time=time) - y).abs().max() > 1e-4
    for i in range(3):
        moved = parameters.clone()
        moved[:, i] += 1
        assert (operator(x, parameters=moved, time=time) - y).abs().max() > 1e-5
    assert (operator(x, parameters=parameters, time=time + 0.1) - y).abs().max() > 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_equals_its_samples(name):
    operator = small(name, n_parameters=3).double()
    x, parameters = inputs(batch=3, dtype=torch.float64)
    together = operator(x, parameters=parameters)
    assert together.dtype == torch.float64
    for i in range(3):
        alone = operator(x[i : i + 1], parameters=parameters[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_finite_differences(name):
    operator = small(name, n_parameters=3, **WITH_A_FIXED_MESH.get(name, {})).double()
    x, parameters = inputs(batch=1, grid=(5, 6), dtype=torch.float64)
    x.requires_grad_()
    parameters.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, p: operator(x, parameters=p), (x, parameters), fast_mode=True)
    weights = [p for p in operator.parameters() if p.requires_grad]
    assert torch.autograd.gradcheck(
        lambda *_: operator(x.detach(), parameters=parameters.detach()), weights, fast_mode=True
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saved_and_loaded_is_bit_equal(name, dtype, tmp_path):
    operator = small(name, n_parameters=3).to(dtype)
    x, parameters = inputs(dtype=dtype)
    assert operator.save_pretrained(tmp_path / "made" / "here") == tmp_path / "made" / "here"
    assert {file.name for file in (tmp_path / "made" / "here").iterdir()} == {
        "config.json",
        "model.safetensors",
    }
    random_state = torch.get_rng_state()
    for cls in (Operator, OPERATORS[name]):
        loaded = cls.from_pretrained(tmp_path / "made" / "here")
        assert type(loaded) is OPERATORS[name]
        assert loaded.config == operator.config
        assert torch.equal(loaded(x, parameters=parameters), operator(x, parameters=parameters))
        assert all(p.requires_grad and p.dtype == dtype for p in loaded.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_holds_every_constructor_argument(name):
    operator = small(name)
    assert operator.config["num_channels" if name == "poseidon" else "in_channels"] == 2
    assert operator.config["n_parameters"] == 0  # a default that was not given
    assert json.loads(json.dumps(operator.config)) == operator.config
    twin = create_operator(name, **operator.config)
    assert twin.config == operator.config
    assert [p.shape for p in twin.parameters()] == [p.shape for p in operator.parameters()]


@pytest.mark.parametrize("name", NAMES)
def test_export_with_a_dynamic_batch(name):
    operator = small(name, n_parameters=3, **EXPORTABLE.get(name, {}))
    x, parameters = inputs(batch=4)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(
        operator,
        (x,),
        {"parameters": parameters},
        dynamic_shapes={"x": {0: batch}, "parameters": {0: batch}},
    )
    x, parameters = inputs(batch=7)
    exported = program.module()(x, parameters=parameters)
    torch.testing.assert_close(exported, operator(x, parameters=parameters), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast(name):
    operator = small(name, n_parameters=3)
    x, parameters = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = operator(x, parameters=parameters)
        y.float().square().mean().backward()
    torch.testing.assert_close(y.float(), operator(x, parameters=parameters), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_inputs_are_named(name):
    operator = small(name, n_parameters=3)
    x, parameters = inputs()
    with pytest.raises(DataError, match=r"x has shape \(2, 1, 12, 10\); expected \(batch, 2, nx, ny\)"):
        operator(x[:, :1], parameters=parameters)
    with pytest.raises(DataError, match=r"x has shape \(2, 2, 12\)"):
        operator(x[..., 0], parameters=parameters)
    with pytest.raises(DataError, match=r"parameters are missing; expected \(2, 3\)"):
        operator(x)
    with pytest.raises(DataError, match=r"parameters are of shape \(2, 2\); expected \(2, 3\)"):
        operator(x, parameters=parameters[:, :2])
    with pytest.raises(DataError, match="time was given"):
        operator(x, parameters=parameters, time=torch.zeros(2))
    with pytest.raises(DataError, match="without parameters"):
        small(name)(x, parameters=parameters)
    with pytest.raises(DataError, match="time is missing"):
        small(name, time_conditioning=True)(x)


def test_wrong_names_and_arguments_are_answered():
    with pytest.raises(ConfigError, match="unknown operator 'unett'; did you mean 'unet'"):
        create_operator("unett")
    with pytest.raises(ConfigError, match="no argument 'hidden_chanels'; did you mean 'hidden_channels'"):
        create_operator("unet", in_channels=1, out_channels=1, hidden_chanels=3)
    with pytest.raises(ConfigError, match="'fno' needs the argument 'out_channels'"):
        create_operator("fno", in_channels=1)


@pytest.mark.parametrize(
    "name, wrong, message",
    [
        ("fno", {"in_channels": 0}, "in_channels is 0"),
        ("fno", {"n_modes": (4, 0)}, r"n_modes\[1\] is 0"),
        ("fno", {"n_modes": (4, 4, 4, 4)}, "4 axes"),
        ("fno", {"padding": -0.1}, "padding is -0.1"),
        ("fno", {"block": "residua"}, "did you mean 'residual'"),
        ("fno", {"n_parameters": -1}, "n_parameters is -1"),
        ("unet", {"hidden_channels": ()}, "hidden_channels is empty"),
        ("unet", {"hidden_channels": (4, -6)}, r"hidden_channels\[1\] is -6"),
        ("unet", {"n_layers": 1.5}, "n_layers is 1.5"),
        ("unet", {"dim": 4}, "4 axes"),
        ("deeponet", {"n_layers": 1}, "n_layers is 1"),
        ("deeponet", {"n_sensors": (4, 0)}, r"n_sensors\[1\] is 0"),
        ("multionet", {"averaged_layers": 4}, "averaged_layers is 4, and there are 3 layers; expected 1 to 3"),
        ("multionet", {"encoder_channels": (4, 0)}, r"encoder_channels\[1\] is 0"),
        ("multionet", {"activation": "tanh_sine"}, "did you mean 'tanh_sin'"),
        ("deeponet", {"hidden_channels": nn.Linear}, "cannot be written as JSON"),
        ("mmpde", {"hidden_channels": 0}, "hidden_channels is 0"),
        ("mmpde", {"reach": (1, 0)}, r"reach\[1\] is 0"),
        ("mmpde", {"reach": ()}, "reach is empty"),
        ("mmpde", {"dim": 1}, "mmpde: the grid has 1 axes; meshes are moved in 2D and 3D"),
        ("moving_mesh", {"dim": 1}, "moving_mesh: the grid has 1 axes; meshes are moved in 2D and 3D"),
        ("moving_mesh", {"temporal": 0}, "temporal is 0"),
    ],
)
def test_arguments_out_of_range(name, wrong, message):
    with pytest.raises(ConfigError, match=message):
        create_operator(name, **{"in_channels": 2, "out_channels": 2, **SMALL[name], **wrong})


def test_what_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        Operator.from_pretrained(tmp_path / "nowhere")
    small("unet").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds an operator 'unet'; expected 'fno'"):
        OPERATORS["fno"].from_pretrained(tmp_path)

    saved = json.loads((tmp_path / "config.json").read_text())
    assert set(saved) == {"operator", "config", "sciml_version"}

    def rewrite(**changes):
        (tmp_path / "config.json").write_text(json.dumps({**saved, **changes}))

    rewrite(operator="unit")
    with pytest.raises(ConfigError, match="did you mean 'unet'"):
        Operator.from_pretrained(tmp_path)
    rewrite(config={**saved["config"], "patchsize": 2})
    with pytest.raises(ConfigError, match="did you mean 'patch_size'"):
        Operator.from_pretrained(tmp_path)
    rewrite(config={**saved["config"], "hidden_channels": [4, 8]})
    with pytest.raises(CheckpointError, match=r"shape \(6, 6, 3, 3\), expected \(8, 8, 3, 3\)"):
        Operator.from_pretrained(tmp_path)
    rewrite(config={**saved["config"], "n_layers": 2})
    with pytest.raises(CheckpointError, match=r"missing down_blocks\.0\.1"):
        Operator.from_pretrained(tmp_path)
    rewrite(config={**saved["config"], "hidden_channels": [4]})
    with pytest.raises(CheckpointError, match=r"unexpected down_blocks\.1\.0"):
        Operator.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="not an operator's configuration"):
        Operator.from_pretrained(tmp_path)
    rewrite()
    (tmp_path / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Operator.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors"):
        Operator.from_pretrained(tmp_path)


def test_a_subclass_of_a_users_own_saves_and_loads(tmp_path):
    class Scaled(OPERATORS["unet"]):
        name = "scaled"

        def __init__(self, factor: float) -> None:
            super().__init__(2, 2, hidden_channels=(4, 6))
            self.factor = factor

        def forward(self, x, *, time=None, parameters=None):
            return self.factor * super().forward(x, time=time, parameters=parameters)

    operator = Scaled(3.0)
    assert operator.config == {"factor": 3.0}
    operator.save_pretrained(tmp_path)
    x, _ = inputs()
    assert torch.equal(Scaled.from_pretrained(tmp_path)(x), operator(x))


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("name", ["unet", "fno"])
def test_a_periodic_operator_commutes_with_shifts(name, dim):
    """Without coordinates, a shift by whole coarsest cells of the input shifts the output."""
    options = OPERATORS[name].options_for(dim, periodic=True)
    options |= {"hidden_channels": (4, 6) if name == "unet" else 6, "coordinates": False}
    torch.manual_seed(0)
    operator = perturb(create_operator(name, in_channels=2, out_channels=3, **options)).double()
    x = torch.randn(2, 2, *(16,) * dim, dtype=torch.float64)
    for axis in range(2, 2 + dim):
        torch.testing.assert_close(operator(x.roll(8, axis)), operator(x).roll(8, axis))
    walled = perturb(create_operator("unet", in_channels=2, out_channels=3, dim=dim, hidden_channels=(4, 6))).double()
    assert not torch.allclose(walled(x.roll(8, 2)), walled(x).roll(8, 2), rtol=1e-3)


def test_a_periodic_unet_refuses_a_grid_that_it_would_have_to_pad():
    operator = create_operator("unet", in_channels=1, out_channels=1, hidden_channels=(4, 6), periodic=True)
    with pytest.raises(DataError, match=r"grid \(12, 10\) is not a multiple of 4"):
        operator(torch.zeros(1, 1, 12, 10))


@pytest.mark.parametrize("name, dim", [(name, dim) for name in NAMES for dim in OPERATORS[name].dims])
def test_options_for_a_dimension_build_an_operator_of_it(name, dim):
    for periodic in (False, True):
        operator = create_operator(name, in_channels=1, out_channels=1, **OPERATORS[name].options_for(dim, periodic))
        assert operator.dim == dim
