"""The two halves of a block as one operation each, against the modules and against finite differences."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml.operators import PoseidonConfig
from sciml.operators.poseidon import blocks
from sciml.operators.poseidon.blocks import SwinBlock
from sciml.operators.poseidon.norms import Condition, NormTensors, apply_norm, norm_gradients, norm_of_samples

torch.set_num_threads(1)


def block_of(shifted: bool = True, timed: bool = True, **options) -> SwinBlock:
    """With windows of 2 x 2 on a grid of 4 x 3: shifted, masked and filled up."""
    config = PoseidonConfig(
        image_size=16,
        embed_dim=4,
        num_heads=(2,),
        depths=(1,),
        window_size=2,
        skip_connections=(0,),
        patch_size=4,
        use_conditioning=timed,
        **options,
    )
    torch.manual_seed(0)
    block = SwinBlock(config, 0, shifted, (2, 2), drop=config.drop_path_rate).double()
    inner = block.attention.self.continuous_position_bias_mlp
    inner[0], inner[2] = nn.Linear(2, 5).double(), nn.Linear(5, 2, bias=False).double()  # instead of 512
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    return block


def tokens(batch: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(batch, 4, 3, 4, dtype=torch.float64), torch.rand(batch, 1, dtype=torch.float64)


def run(block: SwinBlock, x: Tensor, time: Tensor | None) -> Tensor:
    parameters = None
    if getattr(block.layernorm_before, "parameters_weight", None) is not None:
        parameters = torch.linspace(-1, 1, 64 * len(x), dtype=x.dtype).view(-1, 64)
    return block(x, Condition(time, parameters), (4, 3))


@pytest.fixture
def plain(monkeypatch):
    """Runs a block by its modules."""

    def run_plain(block: SwinBlock, x: Tensor, time: Tensor | None) -> Tensor:
        with monkeypatch.context() as patch:
            patch.setattr(blocks, "branch_applies", lambda *_: False)
            return run(block, x, time)

    return run_plain


def as_one(y: Tensor) -> bool:
    return type(y.grad_fn).__name__ == "_MlpBranchBackward"


SETTINGS = [
    pytest.param({}, 1, True, id="one sample"),
    pytest.param({}, 3, True, id="samples"),
    pytest.param({}, 3, False, id="without time"),
    pytest.param({"shifted": False}, 2, True, id="unshifted"),
    pytest.param({"qkv_bias": False}, 2, True, id="no bias of query and value"),
    pytest.param({"periodic": True}, 2, True, id="periodic"),
    pytest.param({"n_parameters": 2}, 1, True, id="physical parameters of one sample"),
    pytest.param({"n_parameters": 2}, 3, True, id="physical parameters"),
    pytest.param({"n_parameters": 2}, 3, False, id="physical parameters without time"),
]


@pytest.mark.parametrize("options, batch, timed", SETTINGS)
def test_the_same_as_the_modules(options, batch, timed, plain):
    block = block_of(timed=timed, **options)
    x, time = tokens(batch)
    if options.get("periodic"):
        x = torch.randn(batch, 4, 4, 4, dtype=torch.float64)
    x.requires_grad_()
    time = time if timed else None
    found, expected = run(block, x, time), plain(block, x, time)
    assert as_one(found) and not as_one(expected)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(found)
    wanted = [x, *block.parameters()]
    pairs = (torch.autograd.grad(y, wanted, upstream) for y in (found, expected))
    names = ["x", *(name for name, _ in block.named_parameters())]
    for name, a, b in zip(names, *pairs, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("intel", [True, False])
def test_single_precision_by_either_library(intel, plain, monkeypatch):
    """MKL on Intel's processors, oneDNN on others."""
    monkeypatch.setattr("sciml.operators.layers.linear.MADE_BY_INTEL", intel)
    block, (x, time) = block_of(), tokens(3)
    wanted = [*torch.autograd.grad(plain(block, x, time).square().sum(), list(block.parameters()))]
    block, x, time = block.float(), x.float(), time.float()
    y = run(block, x, time)
    assert as_one(y)
    for a, b in zip(torch.autograd.grad(y.square().sum(), list(block.parameters())), wanted, strict=True):
        assert (a - b).abs().max() < 1e-4 * b.abs().max().clamp_min(1)


@pytest.mark.parametrize("batch", [1, 2])
def test_finite_differences(batch):
    block = block_of()
    x, time = tokens(batch)
    parameters = dict(block.named_parameters())

    def function(x: Tensor, *values: Tensor) -> Tensor:
        for (name, old), value in zip(parameters.items(), values, strict=True):
            holder = block.get_submodule(name.rpartition(".")[0])
            holder._parameters[name.rpartition(".")[2]] = value if torch.is_tensor(value) else old
        y = run(block, x, time)
        assert as_one(y)
        return y

    inputs = (x.requires_grad_(), *parameters.values())
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def test_the_scale_that_is_clamped_has_no_gradient(plain):
    block = block_of()
    with torch.no_grad():
        block.attention.self.logit_scale[0] = 5.0  # above log(100)
    x, time = tokens(2)
    run(block, x, time).square().sum().backward()
    found = block.attention.self.logit_scale.grad.clone()
    assert found[0] == 0 and found[1] != 0
    block.zero_grad()
    plain(block, x, time).square().sum().backward()
    torch.testing.assert_close(found, block.attention.self.logit_scale.grad)


def test_only_some_gradients_are_wanted(plain):
    block = block_of()
    x, time = tokens(2)
    for name, parameter in block.named_parameters():
        block.requires_grad_(False)
        parameter.requires_grad_()
        for create in (False, True):
            y = run(block, x, time)
            (found,) = torch.autograd.grad(y.square().sum(), parameter, create_graph=create)
            (wanted,) = torch.autograd.grad(plain(block, x, time).square().sum(), parameter)
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")
    block.requires_grad_(False)
    x.requires_grad_()
    (found,) = torch.autograd.grad(run(block, x, time).square().sum(), x)
    (wanted,) = torch.autograd.grad(plain(block, x, time).square().sum(), x)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)


def test_dropped_samples(plain):
    """The same samples are dropped, and their gradients."""
    block = block_of(drop_path_rate=0.5).train()
    block.drop = 0.5
    x, time = tokens(8)
    x.requires_grad_()
    ways = []
    for way in (run, plain):
        torch.manual_seed(2)
        y = way(block, x, time)
        ways.append((y, *torch.autograd.grad(y.square().sum(), [x, *block.parameters()])))
    assert as_one(ways[0][0]) and (ways[0][0] == x).flatten(1).all(1).any()
    for a, b in zip(*ways, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


LAYERS = [f"attention.self.{name}" for name in ("query", "key", "value")]
LAYERS += ["attention.output.dense", "intermediate.dense", "output.dense"]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("grad", [True, False])
def test_layers_that_others_replaced_or_hooked_onto_are_called(name, grad):
    def changed(y: Tensor) -> Tensor:
        return y * torch.linspace(0, 1, y.shape[-1], dtype=y.dtype)

    class Adapted(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return changed(self.layer(x))

    x, time = tokens(2)
    hooked, replaced, expected = block_of(), block_of(), block_of()
    hooked.get_submodule(name).register_forward_hook(lambda module, given, y: changed(y))
    replaced.set_submodule(name, Adapted(replaced.get_submodule(name)))
    layer = expected.get_submodule(name)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(changed(parameter.mT).mT if parameter.ndim > 1 else changed(parameter))
    with torch.set_grad_enabled(grad):
        wanted = run(expected, x, time)
        torch.testing.assert_close(run(hooked, x, time), wanted)
        torch.testing.assert_close(run(replaced, x, time), wanted)
        assert not torch.allclose(run(block_of(), x, time), wanted)


@pytest.mark.parametrize("name", ["layernorm_before", "layernorm_after", "attention"])
def test_hooks_on_norms_and_attention_are_called(name):
    block, called = block_of(), []
    block.get_submodule(name).register_forward_hook(lambda *_: called.append(name))
    run(block, *tokens(2))
    assert called == [name]


def test_lead_times_that_are_learned(plain):
    block = block_of()
    x, time = tokens(2)
    time.requires_grad_()
    y = run(block, x, time)
    (found,) = torch.autograd.grad(y.square().sum(), time)
    h = 1e-6
    with torch.no_grad():
        for i in range(2):
            step = h * F.one_hot(torch.tensor(i), 2)[:, None]
            ahead, behind = (plain(block, x, time + s * step).square().sum() for s in (1, -1))
            assert abs((ahead - behind) / (2 * h) - found[i]) < 1e-6 * found.abs().max()


@pytest.mark.parametrize("batch, timed", list(itertools.product([1, 3], [False, True])))
def test_gradients_of_the_norm(batch, timed):
    torch.manual_seed(0)
    x, time = torch.randn(batch, 2, 3, 5, dtype=torch.float64), torch.rand(batch, 1, dtype=torch.float64)
    tensors = NormTensors(*(torch.randn(shape, dtype=torch.float64) for shape in ((5, 1), (5,), (5, 1), (5,))))
    if not timed:
        time, tensors = None, tensors._replace(gain_slope=None, shift_slope=None)
    given = [t.requires_grad_() for t in (x, *tensors) if t is not None]

    def affine(slope: Tensor | None, offset: Tensor) -> Tensor:
        return offset[None] if slope is None else offset + time @ slope.T

    expected = norm_of_samples(x, affine(*tensors[:2]), affine(*tensors[2:]), 1e-5)
    upstream = torch.randn_like(expected)
    with torch.no_grad():
        made, kept = apply_norm(x, tensors, time, 1e-5)
        into_x, into_tensors = norm_gradients(upstream, kept, tensors, time)
    torch.testing.assert_close(made, expected)
    found = [g for g in (into_x, *into_tensors) if g is not None]
    for a, b in zip(found, torch.autograd.grad(expected, given, upstream), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
