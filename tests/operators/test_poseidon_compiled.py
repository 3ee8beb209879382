"""Poseidon compiled and exported."""

import pytest
import torch
from poseidon_small import close, field, gradients, lead, small, vector
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F

from sciml.operators import Poseidon


def compiled_inputs(batch: int = 2, dtype=torch.float64) -> dict[str, Tensor]:
    return {"time": lead(batch, dtype), "parameters": vector(batch, dtype=dtype)}


def two_shifted_levels(**changes) -> Poseidon:
    """Windows of 2 x 2 tokens on 8 x 8 and 4 x 4."""
    return small(window_size=2, n_parameters=2, **changes)


def test_compiled_equals_eager():
    operator = two_shifted_levels().train()
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(operator, backend=counter, fullgraph=True)
    for seed in (1, 2):
        x = (seed * field()).requires_grad_()
        results = []
        for model in (operator, compiled):
            operator.zero_grad()
            x.grad = None
            y = model(x, **compiled_inputs())
            y.square().mean().backward()
            results.append((y.detach(), {**gradients(operator), "x": x.grad.clone()}))
        (y, expected), (made, found) = results
        close(made, y, 1e-11)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-8, atol=1e-13)
    assert counter.frame_count == 1
    with torch.no_grad():
        operator.eval()
        close(compiled(x, **compiled_inputs()), operator(x, **compiled_inputs()), 1e-11)
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_to_machine_code(precision):
    one_level = {"depths": (2,), "num_heads": (1,), "skip_connections": (1,)}
    operator = two_shifted_levels(dtype=torch.float32, gradient_checkpointing=True, **one_level).train()
    torch._dynamo.reset()
    compiled = torch.compile(operator, fullgraph=True)
    x, inputs = field(dtype=torch.float32), compiled_inputs(dtype=torch.float32)
    results = []
    for model in (operator, compiled):
        operator.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            y = model(x, **inputs)
        y.float().square().mean().backward()
        results.append((y.detach().float(), gradients(operator)))
    (y, expected), (made, found) = results
    close(made, y, 1e-5 if precision == "float32" else 0.05)
    flat, near = (torch.cat([some[name].flatten() for name in expected]) for some in (expected, found))
    assert F.cosine_similarity(flat, near, dim=0) > (1 - 1e-9 if precision == "float32" else 0.99)
    torch._dynamo.reset()


def test_exported_equals_eager_for_other_batches():
    operator = two_shifted_levels()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(
        operator,
        (field(3),),
        compiled_inputs(3),
        dynamic_shapes={"x": {0: batch}, "time": {0: batch}, "parameters": {0: batch}},
    ).module()
    for n in (2, 5):
        close(program(field(n), **compiled_inputs(n)), operator(field(n), **compiled_inputs(n)))


def test_an_exported_program_is_not_tied_to_small_batches():
    """Widths as published: a few samples have fewer numbers than the weights, many have more."""
    shape = {"image_size": 32, "window_size": 4, "depths": (1, 1), "num_heads": (3, 6), "skip_connections": (0, 0)}
    operator = Poseidon.tiny(**shape, norm_gain=1.0).double()
    batch = torch.export.Dim("batch", min=2, max=64)
    dynamic = {"x": {0: batch}, "time": {0: batch}}
    program = torch.export.export(operator, (field(2),), {"time": lead(2)}, dynamic_shapes=dynamic).module()
    for n in (3, 32):
        close(program(field(n), time=lead(n)), operator(field(n), time=lead(n)))
