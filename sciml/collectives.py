"""Parts of one sample on several processes: differentiable collectives, and errors that reach every process.

The ranks of an expert group hold the same network and the same samples; each does its own tiles (the experts of a
constraint, the subtasks of an operator), and what all of them made is gathered. A tensor is then either *replicated*
(the same values on each rank; the gradient on each rank is the whole gradient, as one process has it) or a *share* (a
rank's own tiles and the gradient with respect to them):

| function | forward | backward |
|---|---|---|
| ``spread`` | replicated to shares: a rank takes its tiles | ``gather`` |
| ``gather`` | shares to replicated | ``spread`` |
| ``shared`` | replicated, to be used for the own tiles only: the identity | ``summed`` |
| ``summed`` | sum of what the ranks computed from their tiles | ``shared`` |
| ``broadcast_bases`` | of one rank to replicated | the identity |

(the pairs of conjugate operators of Shoeybi et al. 2019, "Megatron-LM"). A backward pass is made of the same functions,
so it can be differentiated again. What follows ``gather`` must be computed alike on each rank, loss included; then each
rank ends with the gradients of one process, and their average over all ranks, data parallel ones too, stays right.

``group`` is a process group of ``torch.distributed``; with None, or a group of one, every function is a no-op.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

from sciml.errors import ConfigError, SciMLError, SolverError

Group: TypeAlias = "dist.ProcessGroup | None"
T = TypeVar("T")


def size_of(group: Group) -> int:
    """Ranks of the group."""
    return 1 if group is None else dist.get_world_size(group)


def rank_of(group: Group) -> int:
    """This process's place in the group."""
    return 0 if group is None else dist.get_rank(group)


def share_sizes(tiles: int, group: Group) -> list[int]:
    """Tiles of each rank: contiguous runs whose lengths differ by one at most, the longer ones first."""
    whole, rest = divmod(tiles, size_of(group))
    return [whole + (rank < rest) for rank in range(size_of(group))]


def own_share(tiles: int, group: Group, noun: str = "tiles") -> slice:
    """The tiles of this rank; ``noun`` is what messages call them.

    Raises ``ConfigError`` if there are fewer tiles than ranks, naming both numbers.
    """
    sizes = share_sizes(tiles, group)
    if sizes[-1] == 0:
        raise ConfigError(
            f"{len(sizes)} ranks share the {noun} of a sample, but there are only {tiles}; use "
            f"parallel.expert={tiles} or fewer, or more {noun}"
        )
    start = sum(sizes[: rank_of(group)])
    return slice(start, start + sizes[rank_of(group)])


# ------------------------------------------------------------------------------------------- differentiable collectives


def spread(x: Tensor, dim: int, group: Group) -> Tensor:
    """This rank's tiles of a replicated tensor whose axis ``dim`` counts tiles."""
    return x if size_of(group) == 1 else _Spread.apply(x, dim % x.ndim, group)


def gather(x: Tensor, dim: int, tiles: int, group: Group) -> Tensor:
    """All ``tiles`` along ``dim``, on each rank, from the ranks' shares."""
    return x if size_of(group) == 1 else _Gather.apply(x, dim % x.ndim, tiles, group)


def shared(x: Tensor, group: Group) -> Tensor:
    """The tensor, of which this rank uses what its tiles need: gradients are summed over the ranks."""
    return x if size_of(group) == 1 else _Shared.apply(x, group)


def summed(x: Tensor, group: Group) -> Tensor:
    """The sum of the ranks' tensors, on each rank."""
    return x if size_of(group) == 1 else _Summed.apply(x, group)


def broadcast_bases(x: Tensor | None, source: int, group: Group) -> Tensor:
    """The tensor of the group's rank ``source`` on each rank; the others pass None.

    Gradients need no message: each rank has the whole gradient of a replicated tensor, the source too.
    """
    if size_of(group) == 1:
        if x is None:
            raise ConfigError("there is one process, so the bases must be given on it")
        return x
    assert group is not None
    here = rank_of(group) == source
    if here and x is None:
        raise ConfigError(f"rank {source} of the group is to send the bases, and has none")
    described: list[Any] = [(tuple(x.shape), x.dtype, x.requires_grad) if here and x is not None else None]
    sender = dist.get_global_rank(group, source)
    dist.broadcast_object_list(described, sender, group, _device(group))
    shape, dtype, differentiable = described[0]
    if not here or x is None:
        # A leaf that wants a gradient: the collectives of a backward pass must run on each rank.
        x = torch.empty(shape, dtype=dtype, device=_device(group)).requires_grad_(differentiable)
    return _Broadcast.apply(x, sender, group)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, group: Group) -> Tensor:
        ctx.dim, ctx.tiles, ctx.group = dim, x.shape[dim], group
        share = own_share(x.shape[dim], group)
        return x.narrow(dim, share.start, share.stop - share.start)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Gather.apply(gradient, ctx.dim, ctx.tiles, ctx.group), None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, tiles: int, group: Group) -> Tensor:
        ctx.dim, ctx.group = dim, group
        return all_tiles(x, dim, tiles, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Spread.apply(gradient, ctx.dim, ctx.group), None, None, None


class _Shared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Summed.apply(gradient, ctx.group), None


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Shared.apply(gradient, ctx.group), None


class _Broadcast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, sender: int, group: Group) -> Tensor:
        sent = x.clone(memory_format=torch.contiguous_format)
        dist.broadcast(sent, sender, group)
        return sent

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient, None, None


def all_tiles(x: Tensor, dim: int, tiles: int, group: Group) -> Tensor:
    """``gather`` without a gradient, for what is computed inside a solve."""
    ranks = size_of(group)
    if ranks == 1:
        return x
    sizes = share_sizes(tiles, group)
    if x.shape[dim] != sizes[rank_of(group)]:
        raise ConfigError(
            f"rank {rank_of(group)} of {ranks} has {x.shape[dim]} of {tiles} tiles; its share is "
            f"{sizes[rank_of(group)]} (see spread)"
        )
    own = x.movedim(dim, 0)
    sent = own.new_zeros(sizes[0], *own.shape[1:])  # a collective wants equal sizes: a shorter share is padded
    sent[: own.shape[0]] = own
    received = own.new_empty(ranks * sizes[0], *own.shape[1:])
    # Another name of the same collective from torch 2.13 on, where the old one warns.
    collect = dist.all_gather_single if hasattr(dist, "all_gather_single") else dist.all_gather_into_tensor
    collect(received, sent, group)
    if sizes[0] != sizes[-1]:
        received = torch.cat([part[:size] for part, size in zip(received.split(sizes[0]), sizes, strict=True)])
    return received.movedim(0, dim)


# --------------------------------------------------------------------------------------------------------------- errors


def on_all_ranks(function: Callable[[], T], group: Group) -> T:
    """``function()``, or an error on every rank if it fails on any: a rank that raised alone would leave the others
    waiting in the next collective.

    Raises ``SolverError`` with the reasons and their ranks; a rank whose failure is no error of ours raises that.
    """
    if size_of(group) == 1:
        return function()
    assert group is not None
    result, error = _tried(function)
    failed = torch.tensor([float(error is not None)], device=_device(group))
    dist.all_reduce(failed, dist.ReduceOp.MAX, group)
    if failed.item():
        _fail_on_all_ranks(error, group)
    return result  # type: ignore[return-value]


def combined(function: Callable[[], Tensor], combine: Callable[[Tensor], Tensor], like: Tensor, group: Group) -> Tensor:
    """``combine(function())`` with the errors of ``on_all_ranks``, whose flag travels in the same message.

    ``function() (..., C)`` has the shape and type of ``like``; ``combine`` gathers or sums, and keeps the last axis.
    """
    own, error = _tried(function)
    flag = like.new_full((*like.shape[:-1], 1), float(error is not None))
    every = combine(torch.cat([like if own is None else own, flag], -1))
    if bool((every[..., -1] > 0).any()):
        assert group is not None
        _fail_on_all_ranks(error, group)
    return every[..., :-1]


def _tried(function: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return function(), None
    except Exception as error:
        return None, error


def _fail_on_all_ranks(error: Exception | None, group: dist.ProcessGroup) -> NoReturn:
    """Tell each other what went wrong, and raise."""
    told = (
        None if error is None else str(error) if isinstance(error, SciMLError) else f"{type(error).__name__}: {error}"
    )
    reasons: list[str | None] = [None] * size_of(group)
    dist.all_gather_object(reasons, told, group)
    if error is not None and not isinstance(error, SciMLError):
        raise error
    named = [f"rank {dist.get_global_rank(group, rank)}: {reason}" for rank, reason in enumerate(reasons) if reason]
    raise SolverError(f"failed on {'; '.join(named)}") from error


def _device(group: dist.ProcessGroup) -> torch.device:
    """Where the group's collectives want their tensors."""
    return (
        torch.device("cuda", torch.cuda.current_device()) if dist.get_backend(group) == "nccl" else torch.device("cpu")
    )
