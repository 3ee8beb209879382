"""Poseidon's attention: windows, the bias that evaluation keeps, and its own backward pass."""

import copy
import itertools
import math

import pytest
import torch
from poseidon_small import close, field, lead, small
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from sciml.operators import Poseidon
from sciml.operators.poseidon import fused_attention
from sciml.operators.poseidon.attention import WindowAttention
from sciml.operators.poseidon.fused_attention import cosine_attention
from sciml.operators.poseidon.position_bias import bias_gradients, make_bias, offset_of_pairs, offsets, position_bias
from sciml.operators.poseidon.windows import partition, shift_mask, unpartition


@pytest.mark.parametrize("grid", [(12, 8), (8, 12), (4, 12), (10, 6), (9, 4)])
def test_shifted_windows_are_what_they_are_said_to_be(grid):
    """Attention over all tokens at once, of which each sees only its window, on rectangles."""
    torch.manual_seed(0)
    window, largest = (4, 4), (4, 4)
    shift = tuple(2 if n > 4 else 0 for n in grid)
    attention = WindowAttention(6, 2, True, 0.0, 0.0, largest).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, *grid, 6, dtype=torch.float64)
    mask = shift_mask(grid, window, shift, x)
    found = unpartition(attention(partition(x, window, shift), window, mask), grid, window, shift)

    high, wide = (-(-n // 4) * 4 for n in grid)
    filled = F.pad(x, (0, 0, 0, wide - grid[1], 0, high - grid[0])).flatten(1, 2)
    inner = attention.self
    query, key, value = (layer(filled).unflatten(2, (2, 3)) for layer in (inner.query, inner.key, inner.value))
    cosine = torch.einsum("bqhc,bkhc->bhqk", F.normalize(query, dim=-1), F.normalize(key, dim=-1))
    logits = cosine * inner.logit_scale.clamp(max=math.log(100)).exp()
    rows = torch.arange(high).repeat_interleave(wide)
    columns = torch.arange(wide).repeat(high)
    together = torch.ones(high * wide, high * wide, dtype=torch.bool)
    apart = []
    for place, n, s in ((rows, high, shift[0]), (columns, wide, shift[1])):
        moved = (place - s) % n
        of = torch.stack([moved // 4, (place < s).long()])  # which window, and whether it came around
        together &= (of[:, :, None] == of[:, None]).all(0)
        apart.append(moved[:, None] - moved[None])
    z = 8 * torch.stack(apart, -1).float() / 3
    table = (z.sign() * torch.log2(1 + z.abs()) / 3).double()
    bias = 16 * torch.sigmoid(inner.continuous_position_bias_mlp(table)).permute(2, 0, 1)
    weights = (logits + bias).masked_fill(~together, -math.inf).softmax(-1)
    mixed = torch.einsum("bhqk,bkhc->bqhc", weights, value).flatten(2)
    expected = attention.output.dense(mixed).unflatten(1, (high, wide))[:, : grid[0], : grid[1]]
    close(found, expected)


# ----------------------------------------------------------------------------------------------------------- kept bias


class Sigmoids(TorchDispatchMode):
    """Counts them: evaluations of the network of a position bias."""

    count = 0

    def __torch_dispatch__(self, function, kinds, arguments=(), named=None):
        self.count += function is torch.ops.aten.sigmoid.default
        return function(*arguments, **(named or {}))


def evaluated(operator: Poseidon, x: Tensor | None = None) -> tuple[Tensor, int]:
    with torch.no_grad(), Sigmoids() as sigmoids:
        y = operator(field() if x is None else x, time=lead().to(operator.embeddings.norm.bias.bias))
    return y, sigmoids.count


def anew(operator: Poseidon, x: Tensor | None = None) -> Tensor:
    """What it makes when nothing is kept."""
    twin = copy.deepcopy(operator)
    twin.forget_bias()
    return evaluated(twin, x)[0]


BLOCKS = 8


def test_evaluation_keeps_the_bias():
    operator = small()
    first, computed = evaluated(operator)
    again, more = evaluated(operator)
    assert torch.equal(first, again)
    assert (computed, more) == (BLOCKS, 0)
    operator.forget_bias()
    assert evaluated(operator)[1] == BLOCKS
    operator(field(), time=lead()).sum().backward()  # with gradients it is not taken from there
    operator.train().eval()
    assert evaluated(operator)[1] == BLOCKS


def changes_of_weights():
    def optimizer(kind, **options):
        def change(operator):
            operator.zero_grad()
            operator(field(), time=lead(), labels=field().flip(0)).loss.backward()
            kind(operator.parameters(), lr=0.1, **options).step()

        return change

    def copied(operator):
        with torch.no_grad():
            for parameter in operator.parameters():
                parameter.copy_(parameter * 1.5)

    def in_inference_mode(operator):
        with torch.inference_mode():
            for parameter in operator.parameters():
                parameter.mul_(1.5)

    def loaded(assign):
        def change(operator):
            state = {key: value * 1.5 for key, value in operator.state_dict().items()}
            operator.load_state_dict(state, assign=assign)

        return change

    def replaced(operator):
        for parameter in operator.parameters():
            parameter.data = parameter.data * 1.5

    def other_module(operator):
        for block in operator.modules():
            if isinstance(block, WindowAttention):
                block.self.continuous_position_bias_mlp[2] = torch.nn.Linear(512, block.heads, bias=False).double()

    return {
        "sgd": optimizer(torch.optim.SGD),
        "adamw": optimizer(torch.optim.AdamW),
        "adamw one by one": optimizer(torch.optim.AdamW, foreach=False),
        "adamw fused": optimizer(torch.optim.AdamW, fused=True),
        "copied": copied,
        "inference mode": in_inference_mode,
        "loaded": loaded(False),
        "assigned": loaded(True),
        "replaced": replaced,
        "module": other_module,
    }


@pytest.mark.parametrize("name", changes_of_weights())
def test_a_change_of_the_weights_is_seen(name):
    operator = small()
    before, _ = evaluated(operator)
    changes_of_weights()[name](operator)
    expected = anew(operator)
    after, computed = evaluated(operator)
    assert torch.equal(after, expected) and computed == BLOCKS
    assert (after - before).abs().max() > 1e-4


def test_a_write_that_leaves_no_trace_needs_forgetting():
    operator = small()
    evaluated(operator)
    for module in operator.modules():
        if isinstance(module, WindowAttention):
            module.self.continuous_position_bias_mlp[2].weight.data.mul_(-1)
    expected = anew(operator)
    assert not torch.equal(evaluated(operator)[0], expected)  # as documented
    operator.forget_bias()
    assert torch.equal(evaluated(operator)[0], expected)


def test_memory_that_was_given_back_is_not_taken_for_the_same_weights():
    operator = small(depths=(1,), num_heads=(1,), skip_connections=(0,))
    for factor in range(2, 12):
        evaluated(operator)
        for parameter in operator.parameters():
            value = parameter.detach().numpy() * factor
            parameter.data = torch.zeros(1, dtype=torch.float64)  # frees what it had
            parameter.data = torch.tensor(value)  # which is the place that comes next
        assert torch.equal(evaluated(operator)[0], anew(operator))


def test_other_grids_types_and_modes_in_turn():
    operator = small()
    for _ in range(2):
        for grid in ((16, 16), (32, 16), (20, 12), (8, 8)):
            x = field(grid=grid)
            y, _ = evaluated(operator, x)
            assert torch.equal(y, anew(operator, x))
            with torch.inference_mode():
                assert torch.equal(operator(x, time=lead()), y)
            close(operator(x, time=lead()).detach(), y)
    single, _ = evaluated(operator.float(), field().float())
    assert torch.equal(single, anew(operator, field().float()))
    operator.forget_bias()
    with torch.autocast("cpu", torch.bfloat16):
        evaluated(operator, field().float())
    assert torch.equal(evaluated(operator, field().float())[0], single)
    assert torch.equal(evaluated(operator.double())[0], anew(operator))


def test_copies_do_not_share_what_is_kept():
    operator = small()
    expected, _ = evaluated(operator)
    with torch.inference_mode():
        operator(field(), time=lead())
    twin = copy.deepcopy(operator)
    assert torch.equal(evaluated(twin)[0], expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.5)
    assert torch.equal(evaluated(operator)[0], expected)
    assert torch.equal(evaluated(twin)[0], anew(twin))
    operator.train()(field(), time=lead()).sum().backward()  # after inference mode


def test_shapes_alone():
    operator = small().to("meta")
    assert evaluated(operator, field().to("meta"))[0].shape == (2, 4, 16, 16)


def test_made_in_inference_mode():
    with torch.inference_mode():
        operator = small()
        before = operator(field(), time=lead())
        for parameter in operator.parameters():
            parameter.mul_(1.5)
        after = operator(field(), time=lead())
    assert (after - before).abs().max() > 1e-4
    assert torch.equal(evaluated(operator)[0], after.clone())


# ----------------------------------------------------------------------------------------------------- the pieces


def attention_inputs(tokens: int, count: int, per_window: bool, batch: int = 2) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    heads, width = 2, 3
    shape = (count, heads, tokens, tokens) if per_window else (heads, tokens, tokens)
    made = torch.randn(batch, count, tokens, 3, heads, width), 1 + torch.rand(heads, 1, 1), torch.randn(shape)
    return tuple(t.double().requires_grad_() for t in made)


def plain_attention(qkv: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    query, key, value = qkv.unbind(3)
    query, key = (t / t.norm(dim=-1, keepdim=True).clamp_min(1e-12) for t in (query, key))
    logits = torch.einsum("bnqhc,bnkhc->bnhqk", query, key) * scale.view(-1, 1, 1) + bias
    return torch.einsum("bnhqk,bnkhc->bnqhc", logits.softmax(-1), value)


@pytest.mark.parametrize("per_window", [False, True])
def test_attention_as_a_formula(per_window):
    qkv, scale, bias = inputs = attention_inputs(4, 3, per_window)
    close(cosine_attention(*inputs), plain_attention(*inputs))
    mask = -3 * torch.rand(3, 1, 4, 4, dtype=torch.float64)
    close(cosine_attention(*inputs, mask), plain_attention(qkv, scale, bias + mask))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("tokens, count", [(1, 3), (4, 1), (4, 3), (9, 2), (64, 5)])
def test_gradients_of_attention(tokens, count, masked, batch, monkeypatch):
    monkeypatch.setattr(fused_attention, "CHUNK", 2 * 64**2 * 2)  # several pieces, not equally large, of many tokens
    qkv, scale, bias = inputs = attention_inputs(tokens, count, False, batch)
    mask = -3 * torch.rand(count, 1, tokens, tokens, dtype=torch.float64) if masked else None
    expected = plain_attention(qkv, scale, bias if mask is None else bias + mask)
    with torch.no_grad():
        y, kept = fused_attention.attend(*inputs, mask)
        upstream = torch.randn_like(y)
        into_qkv, into_log_scale, into_bias = fused_attention.attention_gradients(upstream, kept, mask)
    close(y, expected)
    wanted = torch.autograd.grad(expected, inputs, upstream)
    for a, b in zip((into_qkv, into_log_scale / scale, into_bias), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_vectors_without_a_length():
    inputs = attention_inputs(4, 2, False)
    qkv, scale, _ = inputs
    with torch.no_grad():
        qkv[0, 0, 1, :2] = 0
        qkv[1, 1, 2, 1] = 0
        y, kept = fused_attention.attend(*inputs, None)
        found = fused_attention.attention_gradients(2 * y, kept, None)
    wanted = torch.autograd.grad(plain_attention(*inputs).square().sum(), inputs)
    for a, b in zip((found[0], found[1] / scale, found[2]), wanted, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_second_derivatives():
    operator = small()
    x, v, time = field(1), field(1).flip(2), lead(1)

    def energy(x: Tensor) -> Tensor:
        return operator(x, time=time).square().mean()

    def slope(x: Tensor) -> Tensor:
        return torch.autograd.grad(energy(x), x, create_graph=True)[0]

    x = x.requires_grad_()
    (curvature,) = torch.autograd.grad((slope(x) * v).sum(), x)
    h = 1e-5
    ahead, behind = (slope((x + s * h * v).detach().requires_grad_()).detach() for s in (1, -1))
    close(curvature, (ahead - behind) / (2 * h), 1e-5)
    expected = slope(x).detach()
    operator.requires_grad_(False)
    close(torch.func.grad(energy)(x.detach()), expected)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's kernel has no rule for batches
def test_under_vmap():
    operator, x, time = small().requires_grad_(False), field(3), lead(1)
    close(torch.func.vmap(lambda one: operator(one[None], time=time)[0])(x), operator(x, time=time.expand(3)))


def test_offsets_and_pairs():
    cpu = torch.device("cpu")
    down, right = offsets((3, 2), (5, 2), cpu)
    assert down.shape == (5,) and right.shape == (3,) and down.dtype == torch.float32
    # The largest offset of the reference window is 1 on the logarithmic scale: log2(9) / 3.
    for axis in offsets((5, 2), (5, 2), cpu):
        torch.testing.assert_close(axis.abs().max(), torch.tensor(math.log2(9) / 3))
    torch.testing.assert_close(down.max(), torch.tensor(math.log2(5) / 3))  # half of it
    found = offset_of_pairs((3, 2), cpu).view(6, 6)
    for a, b in itertools.product(range(6), range(6)):
        row, column = a // 2 - b // 2 + 2, a % 2 - b % 2 + 1
        assert found[a, b] == 3 * row + column


def bias_parameters(heads: int = 2, hidden: int = 7) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    return tuple(torch.randn(shape).double().requires_grad_() for shape in ((hidden, 2), (hidden,), (heads, hidden)))


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (2, 4)])
def test_gradients_of_the_position_bias(size):
    parameters, reference = bias_parameters(), (4, 4)
    weight, shift, last = parameters
    made = position_bias(*parameters, size, reference)
    table = torch.cartesian_prod(*offsets(size, reference, made.device)).double()
    expected = 16 * torch.sigmoid((table @ weight.T + shift).relu() @ last.T)
    expected = expected[offset_of_pairs(size, made.device)].T.reshape(made.shape)
    close(made, expected)
    upstream = torch.randn_like(made)
    with torch.no_grad():
        again, kept = make_bias(*parameters, size, reference)
        found = bias_gradients(upstream, kept, *parameters)
    close(again, made)
    for a, b in zip(found, torch.autograd.grad(expected, parameters, upstream), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_training_after_an_evaluation_in_inference_mode():
    operator = small()
    with torch.inference_mode():
        operator(field(), time=lead())
    operator.train()(field(), time=lead()).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in operator.parameters())
