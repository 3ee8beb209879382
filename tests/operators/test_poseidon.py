"""Poseidon beyond the reference: other grids, periodic boxes, masks, losses, precision, memory, stochastic depth."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from poseidon_small import SMALL, close, field, gradients, lead, small, vector
from torch import Tensor
from torch.nn import functional as F

from sciml.errors import ConfigError, DataError
from sciml.operators import Poseidon, create_operator
from sciml.operators.poseidon import PoseidonConfig
from sciml.operators.poseidon.blocks import ConvNextBlock, PeriodicConv2d, ResNetBlock, SwinBlock, kept_samples
from sciml.operators.poseidon.loss import grouped_loss
from sciml.operators.poseidon.norms import Condition, ConditionedNorm, PlainNorm
from sciml.operators.poseidon.resampling import resample

NOTHING = Condition(None, None)


# ------------------------------------------------------------------------------------------------------------- grids


def test_rectangular_and_odd_grids_are_padded():
    operator = small(image_size=32, patch_size=4, resize="pad")
    for grid in ((96, 64), (100, 52), (102, 53), (3, 41)):
        x = field(grid=grid)
        high, wide = (-(-n // 4) * 4 for n in grid)
        filled = F.pad(x, (0, wide - grid[1], 0, high - grid[0]), mode="replicate")
        y = operator(x, time=lead())
        assert y.shape == x.shape and y.isfinite().all()
        close(y, operator(filled, time=lead())[..., : grid[0], : grid[1]])


def test_a_native_grid_is_a_multiple_of_the_patches():
    operator = small(image_size=32, patch_size=4)
    assert operator(field(grid=(100, 52)), time=lead()).shape == (2, 4, 100, 52)
    with pytest.raises(DataError, match=r'grid \(100, 54\) is not a multiple of patch_size 4 .*resize="pad"'):
        operator(field(grid=(100, 54)), time=lead())


@pytest.mark.parametrize("given, wanted", list(itertools.product((20, 21), (24, 25, 32, 33, 15, 16))))
def test_resampling_is_exact_for_what_both_grids_resolve(given, wanted):
    def wave(n: int, m: int) -> Tensor:
        x, y = (2 * math.pi * torch.arange(k, dtype=torch.float64) / k for k in (n, m))
        x, y = x[:, None], y[None]
        return (1.5 + torch.sin(3 * x - 2 * y) + 0.5 * torch.cos(7 * y) + torch.cos(5 * x + 4))[None, None]

    close(resample(wave(given, given), (wanted, wanted)), wave(wanted, wanted))
    close(resample(wave(given, wanted), (wanted, given)), wave(wanted, given))


@pytest.mark.parametrize("grid, wanted", [((33, 33), (32, 32)), ((21, 21), (20, 20)), ((96, 64), (128, 128))])
def test_resampling_gives_the_size_that_is_asked_for(grid, wanted):
    x = field(grid=grid)
    assert resample(x, wanted).shape[2:] == wanted
    assert resample(resample(x, wanted), grid).shape == x.shape


@pytest.mark.parametrize("grid", [(12, 13), (13, 12), (11, 13)])
def test_resampling_up_and_down_is_the_identity(grid):
    spectrum = torch.fft.fft2(field(grid=grid))
    for axis, n in zip((2, 3), grid, strict=True):
        if n % 2 == 0:  # the highest frequency of an even axis has no partner
            spectrum.select(axis, n // 2).zero_()
    x = torch.fft.ifft2(spectrum).real
    for finer in ((16, 16), (17, 17), (13, 13), (25, 24)):
        close(resample(resample(x, finer), grid), x)


def test_a_rectangle_to_lay_windows_out_for():
    """Windows of 4 x 4 tokens on level 0 and, on the short axis of level 1, of 4 x 2."""
    operator = small(image_size=(24, 12), use_absolute_embeddings=True)
    x = field(grid=(24, 12))
    y = operator(x, time=lead())
    spectral = small(image_size=(24, 12), use_absolute_embeddings=True, resize="spectral")
    assert torch.equal(spectral(x, time=lead()), y)
    assert spectral(field(grid=(31, 40)), time=lead()).shape == (2, 4, 31, 40)
    with pytest.raises(DataError, match=r"grid of \(12, 24\) has \(6, 12\) patches; the table .* has \(12, 6\)"):
        operator(field(grid=(12, 24)), time=lead())


@pytest.mark.parametrize("channels, outputs", [(1, 8), (8, 1), (3, 5), (6, 2)])
def test_any_number_of_channels(channels, outputs):
    for resize, grid in (("spectral", (15, 20)), ("pad", (15, 20)), ("native", (20, 16))):
        operator = small(num_channels=channels, num_out_channels=outputs, resize=resize)
        y = operator(field(channels=channels, grid=grid), time=lead())
        assert y.shape == (2, outputs, *grid) and y.isfinite().all()


def test_a_larger_grid_is_that_of_a_model_laid_out_for_it():
    """More windows, shifted on more levels; of the same size and with the same offsets."""
    operator, larger = small(), small(image_size=32)
    larger.load_state_dict(operator.state_dict())
    x = field(grid=(32, 32))
    assert torch.equal(operator(x, time=lead()), larger(x, time=lead()))
    for rectangle in ((32, 48), (64, 16), (40, 24)):
        assert operator(field(grid=rectangle), time=lead()).isfinite().all()


def test_a_smaller_grid_keeps_the_scale_of_offsets():
    attention = small().encoder.layers[0].blocks[0].attention
    large, little = (attention.bias((n, n), None, field())[0].unflatten(1, (n, n)).unflatten(3, (n, n)) for n in (4, 2))
    close(little, large[:, :2, :2, :2, :2])
    for grid in ((8, 8), (4, 16), (2, 2), (6, 4)):
        assert small()(field(grid=grid), time=lead()).isfinite().all()


# ---------------------------------------------------------------------------------------------------------- periodic


@pytest.mark.parametrize("residual_model", ["convnext", "resnet"])
def test_a_periodic_model_commutes_with_shifts(residual_model):
    """By whole windows of the coarsest level: 4 tokens of 4 cells."""
    options = {"residual_model": residual_model, "skip_connections": (1, 1)}
    operator, walled = small(periodic=True, **options), small(**options)
    x = field(grid=(32, 48))
    y = operator(x, time=lead())
    for shift in ((16, 0), (0, 16), (16, 32)):
        close(operator(x.roll(shift, (2, 3)), time=lead()), y.roll(shift, (2, 3)))
    assert not torch.allclose(operator(x.roll(2, 2), time=lead()), y.roll(2, 2), rtol=1e-3)
    assert not torch.allclose(walled(x.roll(16, 2), time=lead()), walled(x, time=lead()).roll(16, 2), rtol=1e-3)


def test_a_periodic_grid_is_not_padded():
    for resize in ("native", "pad"):
        operator = small(periodic=True, resize=resize)
        # No whole patches, no whole windows, no whole merges.
        for grid in ((15, 16), (24, 16), (16, 20), (6, 4)):
            with pytest.raises(DataError, match=r"periodic grid .* is not filled by whole windows of 4 .*spectral"):
                operator(field(grid=grid), time=lead())
        for grid in ((32, 16), (8, 16), (4, 4)):
            assert operator(field(grid=grid), time=lead()).isfinite().all()
    with pytest.raises(ConfigError, match="image_size 24 is not filled by whole windows"):
        small(periodic=True, resize="spectral", image_size=24)
    assert small(periodic=True, resize="spectral")(field(grid=(24, 15)), time=lead()).isfinite().all()


@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (2, 5), (8, 6)])
def test_a_periodic_convolution_reaches_around_small_grids(grid):
    torch.manual_seed(0)
    convolution = PeriodicConv2d(3, 3, 7, groups=3).double()
    x = field(channels=3, grid=grid)
    many = x.repeat(1, 1, 9, 9)
    middle = F.conv2d(many, convolution.weight, convolution.bias, padding=3, groups=3)
    expected = middle[:, :, 4 * grid[0] : 5 * grid[0], 4 * grid[1] : 5 * grid[1]]
    close(convolution(x), expected)
    if min(grid) >= 3:
        theirs = torch.nn.Conv2d(3, 3, 7, padding=3, groups=3, padding_mode="circular").double()
        theirs.load_state_dict(convolution.state_dict())
        assert torch.equal(convolution(x), theirs(x))


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    "changes, message",
    [
        *[
            ({name: value}, f"{name} is {value!r}; expected a whole number above 0")
            for name in ("patch_size", "num_channels", "num_out_channels", "embed_dim", "window_size")
            for value in (0, 1.5, True)
        ],
        ({"image_size": 0}, "image_size is 0"),
        ({"image_size": (16,)}, r"image_size is \(16,\); expected a number, or one for each axis"),
        ({"image_size": (16, "16")}, "image_size is '16'"),
        ({"image_size": "16"}, "image_size is '16'; expected a number"),
        ({"image_size": None}, "image_size is None"),
        ({"depths": ()}, "depths is empty"),
        ({"depths": 2}, "depths is 2; expected a list"),
        ({"depths": (2, 2, 2)}, "num_heads has 2 entries; expected 3, one for each level"),
        ({"skip_connections": (1,)}, "skip_connections has 1 entries; expected 2"),
        ({"depths": (2, -1)}, r"depths\[1\] is -1"),
        ({"num_heads": (0, 1)}, r"num_heads\[0\] is 0"),
        ({"skip_connections": (1, True)}, r"skip_connections\[1\] is True"),
        ({"num_heads": (3, 2)}, "3 heads do not divide the 4 channels of level 0"),
        ({"image_size": 2}, "too small for 2 levels; expected at least 4 cells"),
        ({"image_size": (16, 3)}, "too small for 2 levels"),
        ({"image_size": 17, "resize": "spectral"}, "image_size 17 is no multiple of patch_size 2"),
        ({"resize": "bilinear"}, "resize is 'bilinear'; expected one of spectral, native, pad"),
        ({"residual_model": "unet"}, "residual_model is 'unet'; expected one of convnext, resnet"),
        ({"hidden_act": "tanh"}, "hidden_act is 'tanh'"),
        *[
            ({name: value}, f"{name} is {value!r}; expected 0 <= rate < 1")
            for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate")
            for value in (-0.1, 1.0, math.nan, None)
        ],
        *[
            ({name: value}, f"{name} is {value!r}; expected a positive number")
            for name in ("mlp_ratio", "layer_norm_eps", "initializer_range")
            for value in (0, -1.0, math.inf, "1")
        ],
        ({"mlp_ratio": 0.1}, "mlp_ratio 0.1 of 4 channels leaves the MLPs no hidden channel"),
        ({"norm_gain": "1"}, "norm_gain is '1'; expected a number"),
        ({"p": 3}, "p is 3; expected 1"),
        ({"n_parameters": -1}, "n_parameters is -1"),
        ({"n_parameters": 1.0}, "n_parameters is 1.0"),
        *[
            ({"channel_slice_list_normalized_loss": groups}, "rising boundaries from 0 to the 4 output channels")
            for groups in ((), (0, 3), (1, 4), (0, 2, 2, 4), (0, 3, 2, 4), ("a", 4))
        ],
        ({"channel_names": ("a", "b")}, "expected 4 different names, or none"),
        ({"out_channel_names": ("a", "b", "c", "a")}, "out_channel_names .*expected 4 different names"),
        ({"parameter_names": ("a",)}, "parameter_names .*expected 0 different names"),
        ({"channel_names": "abcd"}, "channel_names is 'abcd'; expected a list"),
        ({"channel_names": (1, 2, 3, 4)}, r"channel_names is \[1, 2, 3, 4\]; expected strings"),
        ({"learn_residual": True, "num_channels": 3}, "learn_residual adds the input"),
        ({"periodic": "no"}, "periodic is 'no'; expected true or false"),
    ],
)
def test_a_configuration_out_of_range(changes, message):
    with pytest.raises(ConfigError, match=message):
        PoseidonConfig(**{**SMALL, **changes})


def test_names_of_options():
    made = create_operator("poseidon", in_channels=2, out_channels=3, dim=2, time_conditioning=False, **without())
    assert (made.in_channels, made.out_channels, made.time_conditioning) == (2, 3, False)
    with pytest.raises(ConfigError, match="no argument 'embed_dims'; did you mean 'embed_dim'"):
        create_operator("poseidon", embed_dims=4)
    with pytest.raises(ConfigError, match="dim is 3; it exists in 2D only"):
        create_operator("poseidon", dim=3)
    with pytest.raises(ConfigError, match="in_channels and num_channels are the same argument"):
        create_operator("poseidon", in_channels=2, num_channels=2)
    with pytest.raises(ConfigError, match="config is dict; expected a PoseidonConfig"):
        Poseidon({"embed_dim": 4})


def without() -> dict:
    return {key: value for key, value in SMALL.items() if key not in ("num_channels", "num_out_channels")}


def test_inputs_that_do_not_fit():
    timed, untimed = small(n_parameters=2), small(use_conditioning=False)
    x, y, mu = field(), field(), vector()
    with pytest.raises(DataError, match=r"x has shape \(2, 3, 16, 16\); expected \(batch, 4, nx, ny\)"):
        untimed(x[:, :3])
    with pytest.raises(DataError, match=r"time is missing; expected \(2,\)"):
        timed(x, parameters=mu)
    with pytest.raises(DataError, match=r"time is of shape \(3,\); expected \(2,\)"):
        timed(x, time=lead(3), parameters=mu)
    with pytest.raises(DataError, match=r"time is of shape \(1,\)"):
        timed(x, time=lead(1), parameters=mu)
    with pytest.raises(DataError, match="time was given to an operator without lead time"):
        untimed(x, time=lead())
    with pytest.raises(DataError, match=r"parameters are missing; expected \(2, 2\)"):
        timed(x, time=lead())
    with pytest.raises(DataError, match=r"parameters are of shape \(2, 3\)"):
        timed(x, time=lead(), parameters=vector(length=3))
    with pytest.raises(DataError, match="operator without parameters"):
        untimed(x, parameters=mu)
    with pytest.raises(DataError, match=r"labels have shape \(2, 4, 16, 8\); expected \(2, 4, 16, 16\)"):
        untimed(x, labels=y[..., :8])
    mask = torch.ones(2, 4, 16, 16, dtype=torch.bool)
    for wrong in (mask.float(), mask[:, :1], mask[:, 0], mask[0]):
        with pytest.raises(DataError, match=r"pixel_mask is .*; expected bool of \(2, 4, 16, 16\) or \(2, 4\)"):
            untimed(x, labels=y, pixel_mask=wrong)
    with pytest.raises(DataError, match="pixel_mask without labels keeps the input, which has fewer channels"):
        small(num_channels=3)(x[:, :3], time=lead(), pixel_mask=mask)


def test_kinds_of_time():
    operator, x = small(), field()
    y = operator(x, time=lead())
    assert torch.equal(operator(x, time=lead()[:, None]), y)
    for other in (lead().float(), torch.tensor([0, 1])):
        made = operator(x, time=other)
        assert made.dtype == torch.float64 and torch.equal(made, operator(x, time=other.double()))
    # What is not a time makes its own sample not a number, and no other.
    made = operator(x, time=torch.tensor([math.nan, lead()[1]], dtype=torch.float64))
    assert made[0].isnan().all()
    close(made[1], y[1])


# -------------------------------------------------------------------------------------------------- masks and losses


@pytest.mark.parametrize("resize", ["native", "spectral"])
@pytest.mark.parametrize("whole_channels", [True, False])
def test_masked_cells_teach_nothing(whole_channels, resize):
    operator = small(resize=resize, image_size=16 if resize == "native" else 12)
    x, y = field(), field().flip(0)
    choose = torch.Generator().manual_seed(3)
    mask = torch.rand((2, 4) if whole_channels else x.shape, generator=choose) < 0.4
    cells = mask[:, :, None, None].expand(x.shape) if whole_channels else mask
    made = operator(x, time=lead(), labels=y, pixel_mask=mask)
    free = operator(x, time=lead())
    assert torch.equal(made.output, torch.where(cells, y, free))
    made.loss.backward()
    taught = gradients(operator)
    # The same gradients when the mean over what is not masked is written down.
    operator.zero_grad()
    ((operator(x, time=lead()) - y).abs() * ~cells).mean().backward()
    for name, gradient in gradients(operator).items():
        torch.testing.assert_close(gradient, taught[name], rtol=1e-9, atol=1e-14)
    # And what the network makes of masked cells does not matter at all.
    recovery = operator.patch_recovery.mixup
    recovery.register_forward_hook(lambda module, given, output: torch.where(cells, output * 7 - 1, output))
    if resize == "native":
        assert torch.equal(operator(x, time=lead(), labels=y, pixel_mask=mask).loss, made.loss)


def test_a_mask_without_labels_keeps_the_input():
    operator = small(num_out_channels=3, channel_slice_list_normalized_loss=(0, 1, 3))
    x = field()
    for mask in (torch.rand(2, 3, 16, 16) < 0.5, torch.tensor([[True, False, True], [False, False, True]])):
        cells = mask.view(*mask.shape, *(1,) * (4 - mask.ndim)).expand(2, 3, 16, 16)
        y = operator(x, time=lead(), pixel_mask=mask)
        assert torch.equal(y, torch.where(cells, x[:, :3], operator(x, time=lead())))


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("groups", [None, (0, 1, 3, 4), (0, 4)])
def test_the_loss_is_the_published_one(p, groups):
    made, labels = field(), field().flip(0) * 3
    error, size = (np.abs(a.numpy()) ** p for a in (made - labels, labels))
    if groups is None:
        expected = error.mean()
    else:
        parts = [(error[:, a:b].mean() / (size[:, a:b].mean() + 1e-10)) for a, b in itertools.pairwise(groups)]
        expected = np.mean(parts)
    assert grouped_loss(made, labels, p, groups).item() == pytest.approx(expected, rel=1e-13)
    operator = small(p=p, channel_slice_list_normalized_loss=groups)
    answer = operator(made, time=lead(), labels=labels)
    assert answer.loss == grouped_loss(answer.output, labels, p, groups)
    if groups:  # a group without any signal does not divide by zero
        assert grouped_loss(made, torch.zeros_like(made), p, groups).isfinite()


def test_parameter_groups_are_the_published_ones():
    operator = small(residual_model="resnet", n_parameters=2, use_absolute_embeddings=True)
    groups = {group.name: group for group in operator.parameter_groups()}
    assert {name: group.decay for name, group in groups.items()} == {
        "embedding_recovery": True,
        "time_embedding": False,
        "no_decay": False,
        "rest": True,
    }
    names = {id(parameter): name for name, parameter in operator.named_parameters()}
    found = {name: {names[id(p)] for p in group.parameters} for name, group in groups.items()}
    assert sum(map(len, found.values())) == len(names) == sum(len(g.parameters) for g in groups.values())
    for name in names.values():
        if "embeddings" in name or "patch_recovery" in name:
            kind = "embedding_recovery"
        elif "norm" in name or name.startswith("parameter_embedding"):
            kind = "time_embedding"
        elif "bias" in name:  # the networks of the position bias too
            kind = "no_decay"
        else:
            kind = "rest"
        assert name in found[kind], (name, kind)
    inner = "encoder.layers.0.blocks.0.attention.self"
    assert f"{inner}.continuous_position_bias_mlp.0.weight" in found["no_decay"]
    assert {f"{inner}.logit_scale", "residual_blocks.0.0.bn1.weight"} <= found["rest"]
    unconditioned = small(use_conditioning=False)
    groups = {group.name: group.parameters for group in unconditioned.parameter_groups()}
    assert not groups["time_embedding"]
    names = {id(p): name for name, p in unconditioned.named_parameters()}
    undecayed = {names[id(p)] for p in groups["no_decay"]}
    assert {"encoder.layers.0.blocks.0.layernorm_before.weight", "residual_blocks.0.0.norm.weight"} <= undecayed


# ------------------------------------------------------------------------------------------------------ half precision


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backward_inside", [True, False])
@pytest.mark.parametrize("options", [{}, {"residual_model": "resnet", "use_conditioning": False}], ids=["", "resnet"])
def test_bfloat16_autocast_trains(options, backward_inside, training):
    operator = small(torch.float32, n_parameters=2, **options).train(training)
    time = lead(dtype=torch.float32) if operator.time_conditioning else None
    x, mu, y = field(dtype=torch.float32), vector(dtype=torch.float32), field(dtype=torch.float32).flip(0)
    exact = operator(x, time=time, parameters=mu, labels=y)
    exact.loss.backward()
    expected = gradients(operator)
    operator.zero_grad()
    for dtype in (torch.float32, torch.bfloat16):  # of the input
        with torch.autocast("cpu", torch.bfloat16):
            made = operator(x.to(dtype), time=time, parameters=mu, labels=y)
            if backward_inside:
                made.loss.backward()
        if not backward_inside:
            made.loss.backward()
        close(made.output.float(), exact.output, 0.1)
        assert made.loss.item() == pytest.approx(exact.loss.item(), rel=0.05)
        found = gradients(operator)
        operator.zero_grad()
        flat, near = (torch.cat([g[name].flatten() for name in expected]) for g in (expected, found))
        assert near.isfinite().all() and F.cosine_similarity(flat, near, dim=0) > 0.98


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision(dtype):
    """Also on a grid where windows are filled with tokens whose keys are exactly zero."""
    exact = small(torch.float32, n_parameters=2)
    operator = copy.deepcopy(exact).to(dtype)
    for grid in ((16, 16), (20, 12)):
        x = field(grid=grid, dtype=torch.float32)
        expected = exact(x, time=lead(dtype=torch.float32), parameters=vector(dtype=torch.float32))
        made = operator(x.to(dtype), time=lead(), parameters=vector())
        assert made.dtype == dtype
        close(made.float(), expected, 0.1)
        operator.zero_grad()
        made.float().square().mean().backward()
        assert all(p.grad.isfinite().all() for p in operator.parameters())


# ------------------------------------------------------------------------------------------- checkpointing, stochastic


def step(operator: Poseidon) -> tuple[dict[str, Tensor], int]:
    """Gradients of one step, and the bytes that were kept for them."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    operator.zero_grad()
    torch.manual_seed(5)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = operator(field(), time=lead(), labels=field().flip(0)).loss
    loss.backward()
    return gradients(operator), sum(kept.values())


@pytest.mark.parametrize(
    "options", [{}, {"drop_path_rate": 0.5, "hidden_dropout_prob": 0.1}, {"residual_model": "resnet"}]
)
def test_checkpointing_gives_the_same_gradients_for_less_memory(options):
    plain, again = (small(gradient_checkpointing=on, **options).train() for on in (False, True))
    (expected, memory), (found, less) = step(plain), step(again)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert less < 0.6 * memory
    for name, buffer in plain.named_buffers():
        assert torch.equal(dict(again.named_buffers())[name], buffer), name


def test_drop_path_grows_along_the_order_of_execution():
    operator = small(depths=(2, 3), drop_path_rate=0.3)
    rates = []
    for block in operator.modules():
        if isinstance(block, SwinBlock):
            block.register_forward_hook(lambda module, given, output: rates.append(module.drop))
    operator(field(), time=lead())
    np.testing.assert_allclose(rates, np.linspace(0, 0.3, 10), rtol=1e-6)


def test_drop_path_drops_whole_samples_without_a_bias():
    torch.manual_seed(0)
    x = torch.ones(20_000, 2, 3, dtype=torch.float64)
    y = kept_samples(x, 0.3, training=True)
    assert y.shape == (20_000, 1, 1) and y.dtype == x.dtype
    assert set(y.unique().tolist()) == {0.0, 1 / 0.7}
    assert y.mean().item() == pytest.approx(1, abs=5 * math.sqrt(0.3 / 0.7 / 20_000))
    assert kept_samples(x, 0.3, training=False) is None and kept_samples(x, 0.0, training=True) is None


def test_drop_path_drops_both_branches_of_a_block():
    config = PoseidonConfig(**SMALL)
    block = SwinBlock(config, 0, True, (4, 4), drop=0.5).double().train()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(64, 8, 8, 4, dtype=torch.float64)
    condition = Condition(lead(64)[:, None], None)
    torch.manual_seed(0)
    y = block(x, condition, (8, 8))
    untouched = (y == x).flatten(1).all(1).double().mean().item()
    assert untouched == pytest.approx(0.25, abs=0.15)


def test_batch_norm_of_the_skips_in_training():
    block = ResNetBlock(PoseidonConfig(**SMALL), 4).double().train()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x = field(grid=(6, 5))

    def normed(h: Tensor, norm) -> Tensor:
        mean, variance = h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), keepdim=True, correction=0)
        return (h - mean) / (variance + 1e-5).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)

    first = F.conv2d(x, block.conv1.weight, block.conv1.bias, padding=1)
    h = normed(first, block.bn1)
    h = torch.where(h > 0, h, 0.01 * h)
    expected = x + normed(F.conv2d(h, block.conv2.weight, block.conv2.bias, padding=1), block.bn2)
    close(block(x.permute(0, 2, 3, 1), NOTHING).permute(0, 3, 1, 2), expected)
    torch.testing.assert_close(block.bn1.running_mean, 0.1 * first.mean((0, 2, 3)))
    torch.testing.assert_close(block.bn1.running_var, 0.9 + 0.1 * first.var((0, 2, 3)))


def test_conditioned_norms():
    torch.manual_seed(0)
    norm = ConditionedNorm(4, 1e-5, True, 3, 1.0).double()
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    time, embedded = lead()[:, None], vector(length=3)
    gain, shift = (embedded @ norm.parameters_weight.weight.T).chunk(2, 1)
    gain = gain + time * norm.weight.weight[:, 0] + norm.weight.bias
    shift = shift + time * norm.bias.weight[:, 0] + norm.bias.bias
    for shape in ((2, 4), (2, 5, 4), (2, 3, 5, 4)):
        x = torch.randn(shape, dtype=torch.float64)
        normal = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        wide = (2, *(1,) * (x.ndim - 2), 4)
        expected = gain.view(wide) * normal + shift.view(wide)
        close(norm(x, Condition(time, embedded)), expected)
        for i in range(2):
            part = slice(i, i + 1)
            close(norm(x[part], Condition(time[part], embedded[part])), expected[part])
    plain = PlainNorm(4, 1e-5).double()
    close(plain(x, NOTHING), normal)


def test_a_skip_block_starts_near_nothing():
    block = ConvNextBlock(PoseidonConfig(**SMALL), 4)
    assert torch.equal(block.weight, torch.full((4,), 1e-6))
