"""A linear map of the last axis, by the faster of torch's two libraries."""

import functools
import platform
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Linear):
    """``nn.Linear`` that computes by ``linear``: the same arguments, parameters and initial weights."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def untouched(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module may be computed from its parameters instead of being called: one of these kinds and no other
    that somebody has put there, say to adapt it (LoRA), and without hooks."""
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return type(module) in kinds and not hooks


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x weight^T + bias``: ``(*, in)`` to ``(*, out)``, differentiable as often as wanted.

    For single precision on a CPU it takes oneDNN, which torch uses for convolutions and half precision only, instead of
    MKL: on processors that are not Intel's MKL does without the wide vectors, and was 2.2 times slower (AMD EPYC, torch
    2.13). On Intel's it is the faster one. Everything else, and code that is compiled or transformed, is left to
    ``F.linear``.
    """
    if _takes_onednn(x, weight, bias):
        if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
            return _Linear.apply(x, weight, bias)
        return _product(x, weight, bias)
    return F.linear(x, weight, bias)


def input_gradient(gradient: Tensor, weight: Tensor) -> Tensor:
    """Gradient of what went into ``linear``, from that of what came out ``(*, out)``."""
    return linear(gradient, weight.t()) if _takes_onednn(gradient, weight, None) else gradient @ weight


def weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """Gradient ``(out, in)`` of the weight of ``linear``, from that of what came out ``(*, out)`` and what went in."""
    rows, columns = gradient.reshape(-1, gradient.shape[-1]), x.reshape(-1, x.shape[-1])
    if not _takes_onednn(rows, columns, None):
        return rows.t() @ columns
    # oneDNN is slow for long products that are taller than wide; turning them costs a copy of the weight.
    if rows.shape[1] > columns.shape[1] and len(rows) > 4 * rows.shape[1]:
        return linear(columns.t(), rows.t()).t()
    return linear(rows.t(), columns.t())


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``gelu(x weight^T + bias)`` (the exact one), in one operation where no gradient is wanted."""
    if not torch.is_grad_enabled() and _takes_onednn(x, weight, bias):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "none")
    return F.gelu(linear(x, weight, bias))


def _takes_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return (
        not MADE_BY_INTEL
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and type(x) in (Tensor, nn.Parameter)
        and not transformed()
        and not torch.is_autocast_enabled("cpu")
        and _has_onednn()
    )


def transformed() -> bool:
    """Whether the code is being compiled, or under ``torch.func``: neither takes a backward pass of our own."""
    return torch.compiler.is_compiling() or under_func()


def under_func() -> bool:
    """Whether the code runs under ``torch.func``: ``vmap`` of several networks, say, which has no rule for memory
    formats and for the fused attention, and whose tensors must not be kept.
    """
    return torch._C._are_functorch_transforms_active()


def _made_by_intel() -> bool:
    known = Path("/proc/cpuinfo")
    if not known.is_file():
        return "GenuineIntel" in platform.processor()
    with known.open(errors="replace") as lines:
        return any("GenuineIntel" in line for line in islice(lines, 32))  # the first processor's


MADE_BY_INTEL = _made_by_intel()
"""Whether the processor is Intel's; not measured, so that every process of a machine computes the same bits."""


@functools.lru_cache(maxsize=1)
def _has_onednn() -> bool:
    """Whether this torch has the operation, with the arguments that we know: it is not a documented one."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight, bias = (torch.arange(float(n)).view(shape) for n, shape in ((6, (2, 3)), (12, (4, 3)), (4, (4,))))
    try:
        return torch.allclose(_product(x, weight, bias), F.linear(x, weight, bias))
    except (AttributeError, RuntimeError, TypeError):
        return False


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        into_x = into_weight = into_bias = None
        if ctx.needs_input_grad[0]:
            into_x = input_gradient(gradient, weight)
        if ctx.needs_input_grad[1]:
            into_weight = weight_gradient(gradient, x)
        if ctx.needs_input_grad[2]:
            into_bias = gradient.reshape(-1, gradient.shape[-1]).sum(0)
        return into_x, into_weight, into_bias
