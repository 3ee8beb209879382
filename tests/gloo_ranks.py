"""Four gloo processes, started once, that run functions of a test module: a mesh of 2 x 2 (data, expert)."""

from __future__ import annotations

import io
import os
import queue
import socket
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as mp

from sciml.training.parallel import World, world

RANKS, EXPERTS = 4, 2
TIMEOUT = 60.0


class Ranks:
    """``Ranks()(function, *arguments)``: the results of ``function(world, *arguments)`` of each rank; an exception is
    returned in its place. A rank that does not answer ends the test."""

    def __init__(self) -> None:
        context = mp.get_context("spawn")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.results = context.Queue()
        self.jobs = [context.Queue() for _ in range(RANKS)]
        self.processes = [
            context.Process(target=_serve, args=(rank, port, self.jobs[rank], self.results), daemon=True)
            for rank in range(RANKS)
        ]
        for process in self.processes:
            process.start()

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        for jobs in self.jobs:
            jobs.put((function, arguments))
        found: dict[int, Any] = {}
        end = time.monotonic() + TIMEOUT
        while len(found) < RANKS:
            try:
                rank, result = self.results.get(timeout=1)
                found[rank] = torch.load(io.BytesIO(result), weights_only=False)
            except queue.Empty:
                silent = sorted(set(range(RANKS)) - set(found))
                dead = [rank for rank in silent if not self.processes[rank].is_alive()]
                assert not dead and time.monotonic() < end, f"no answer of the ranks {silent}; dead: {dead}"
        return [found[rank] for rank in range(RANKS)]

    def close(self) -> None:
        for jobs in self.jobs:
            jobs.put(None)
        for process in self.processes:
            process.join(10)
            process.kill()


def _serve(rank: int, port: int, jobs: Any, results: Any) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(RANKS))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with world("cpu", EXPERTS) as here:
        while (job := jobs.get()) is not None:
            results.put((rank, _answer(here, *job)))


def _answer(here: World, function: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    try:
        result = function(here, *arguments)
    except Exception as error:
        result = error
    answer = io.BytesIO()  # by value: tensors in shared memory would outlive their process
    torch.save(result, answer)
    return answer.getvalue()
