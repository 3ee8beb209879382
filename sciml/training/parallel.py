"""Parallelism through torchrun: one process a device, gloo on CPUs and NCCL on GPUs.

The processes form a mesh (data, expert): those of a row, the expert group, train on the same samples and share the
experts of each; those of a column, one of each row, train on different samples.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from sciml.collectives import Group
from sciml.errors import ConfigError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True)
class World:
    """This process among the processes of a run."""

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh | None = None
    """Axes ``data`` and ``expert``; None: the experts of a sample stay on one process."""
    wrapped: list[nn.parallel.DistributedDataParallel] = field(default_factory=list, repr=False, compare=False)
    """What ``wrap`` has made."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def experts(self) -> int:
        """Processes that share the experts of a sample."""
        return 1 if self.mesh is None else self.mesh["expert"].size()

    @property
    def data_size(self) -> int:
        """Processes, or expert groups, that a batch is divided among."""
        return self.size // self.experts

    @property
    def data_rank(self) -> int:
        """Which part of a batch is this process's: the same in all of an expert group."""
        return self.rank // self.experts

    @contextmanager
    def spreading_experts(self, model: nn.Module) -> Iterator[None]:
        """Inside the block the layers of the model with experts solve them together with the other processes of the
        expert group, so every process of it must call the model alike; outside, alone.

        A layer with experts has an attribute ``expert_group``. Raises ``ConfigError`` if there is none to spread.
        """
        if self.mesh is None:
            yield
            return
        layers = [module for module in model.modules() if hasattr(module, "expert_group")]
        if not layers:
            raise ConfigError(
                f"parallel.expert is {self.experts}, but the model has no layer with experts (the constraint "
                "mixture-of-experts is one, the operator neuralstagger with mode independent another); leave "
                "parallel.expert out: more processes then share the batch"
            )
        group: Group = self.mesh.get_group("expert")
        try:
            for layer in layers:
                layer.expert_group = group
            yield
        finally:
            for layer in layers:
                layer.expert_group = None

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, with gradients averaged over the processes (those of an expert group have the same ones)."""
        if self.size == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        self.wrapped.append(nn.parallel.DistributedDataParallel(module, device_ids=ids))
        return self.wrapped[-1]

    def unwrap(self) -> None:
        """Let go of the process group; what ``wrap`` has made cannot be called any more.

        Otherwise the group ends with the last of these modules. The thread that ends it then waits, with the
        interpreter's lock, for the group's threads, of which one may wait for that lock to release a tensor: the
        process hangs (https://github.com/pytorch/pytorch/issues/56297).
        """
        for module in self.wrapped:
            module.reducer = module.logger = module.process_group = None  # type: ignore[assignment]
        self.wrapped.clear()

    def agree(self, values: list[float]) -> list[float]:
        """The main process's values, on every process: clocks and signals differ between them."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return tensor.tolist()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        if self.size == 1:
            return flag
        tensor = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return bool(tensor.item() > 0)

    def merged(self, values: dict[Any, Any]) -> dict[Any, Any]:
        """The entries of every process's dictionary, on each of them."""
        if self.size == 1:
            return values
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, values)
        return {key: value for each in found for key, value in each.items()}

    def barrier(self) -> None:
        """Wait for every process."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process runs the block before the others do (to generate data once, say)."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()


@contextmanager
def world(device: str = "auto", expert: int = 1) -> Iterator[World]:
    """Join the processes that ``torchrun`` started, or be alone. ``expert``: how many share the experts of a sample.

    Raises ``ConfigError`` for a device that is not there, or a number of processes that ``expert`` does not divide.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' was asked for, but torch sees no CUDA device; use --device cpu or auto")
    kind = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    size = int(os.environ.get("WORLD_SIZE", "1"))
    check_mesh(size, expert)
    if size == 1:
        yield World(0, 1, torch.device(kind, 0) if kind == "cuda" else torch.device(kind))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(chosen)
    # Its functions take the process group as a default argument, bound at import. torch imports it at the first
    # DistributedDataParallel: the group would outlive its end, and now and then abort the process at exit.
    importlib.import_module("torch.distributed.nn")
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        mesh = None
        if expert > 1:
            from torch.distributed.device_mesh import init_device_mesh

            # Ranks count along the last axis first: an expert group, which talks most, is on one node.
            mesh = init_device_mesh(kind, (size // expert, expert), mesh_dim_names=("data", "expert"))
        here = World(dist.get_rank(), size, chosen, mesh)
        try:
            yield here
        finally:
            here.unwrap()
    finally:
        dist.destroy_process_group()


def check_mesh(size: int, expert: int) -> None:
    """Raise ``ConfigError`` unless so many processes make whole expert groups."""
    if size % expert:
        fits = max(1, size // expert) * expert
        raise ConfigError(
            f"parallel.expert is {expert}, but there {'is 1 process' if size == 1 else f'are {size} processes'}; "
            f"start a multiple of {expert}, e.g. torchrun --nproc-per-node {fits} -m sciml train ..., or change it"
        )
