"""Solve groups of cases: in this process while that is quicker, otherwise over worker processes.

Starting a worker takes seconds (a new interpreter that imports torch), so it pays for long work only. Which process
solves a group changes no bit of the result: all of them compute with one thread.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.errors import SolverError
from sciml.problems import get_problem

WARM_SECONDS = 1.0
"""Before this the time of a group says little: the first one also imports the solver and plans its transforms."""
WORTH_SECONDS = 8.0
"""Work that takes this process longer is worth workers, which start in 2 to 4 s."""


@dataclass(frozen=True)
class Group:
    """Cases that are solved together; ``cost`` in units of the problem's own."""

    problem: str
    dim: int
    parameters: Mapping[str, Tensor]
    times: Tensor
    shape: tuple[int, ...] | int
    device: str
    cost: float


@dataclass(frozen=True)
class Outcome:
    """The group at ``position`` is solved, or failed with ``error``; ``processes`` that solve by now.

    ``trajectory``: what the problem's ``solve`` returned, as ``as_arrays`` turns it.
    """

    position: int
    trajectory: Any
    error: SolverError | None
    processes: int


def solve_groups(groups: Sequence[Group], workers: int) -> Iterator[Outcome]:
    """Every group once, in the order in which they are ready; a group that fails does not stop the others.

    With several ``workers`` this process solves groups itself, the cheapest full one first, until it knows that the
    rest takes long enough. Raises ``SolverError`` when a worker process dies.
    """
    rest = list(range(len(groups)))
    if workers > 1:
        full = max((len(group.times) for group in groups), default=0)
        rest.sort(key=lambda position: (len(groups[position].times) < full, -position))
    spent = 0.0
    while rest:
        position = rest.pop(0)
        started = time.perf_counter()
        outcome = _outcome(position, groups[position], 1)
        seconds = time.perf_counter() - started
        yield outcome
        spent += seconds
        left = seconds / groups[position].cost * sum(groups[each].cost for each in rest)
        if min(workers, len(rest)) > 1 and spent > WARM_SECONDS and left > WORTH_SECONDS:
            yield from _over_workers(groups, sorted(rest), min(workers, len(rest)))
            return


def _over_workers(groups: Sequence[Group], positions: Sequence[int], workers: int) -> Iterator[Outcome]:
    # spawn, not fork: a forked child of a process whose OpenMP threads have run hangs in its first parallel region.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        futures = {pool.submit(_outcome, position, groups[position], workers) for position in positions}
        try:
            for future in as_completed(futures):
                futures.discard(future)  # its result would stay in memory to the end
                yield future.result()
        except BrokenProcessPool:
            raise SolverError(
                "a worker process died: out of memory, or, in a script, the call is not under "
                "if __name__ == '__main__'; try fewer workers"
            ) from None
        finally:
            for future in futures:
                future.cancel()


def as_arrays(values: Any) -> Any:
    """Tensors as arrays and dataclasses as dictionaries, in dictionaries and lists of such: between processes tensors
    travel as shared memory, which ends with the process that made it.
    """
    if isinstance(values, Tensor):
        return values.cpu().numpy()
    if isinstance(values, Mapping):
        return {name: as_arrays(value) for name, value in values.items()}
    if isinstance(values, list):
        return [as_arrays(value) for value in values]
    if is_dataclass(values):
        return {field.name: as_arrays(getattr(values, field.name)) for field in fields(values)}
    return values


def _start_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent deals with it


def _outcome(position: int, group: Group, processes: int) -> Outcome:
    threads = torch.get_num_threads()
    if group.device == "cpu":
        torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            solved = get_problem(group.problem, group.dim).solve(
                group.parameters, group.shape, group.times, device=group.device
            )
        return Outcome(position, as_arrays(solved), None, processes)
    except SolverError as error:
        return Outcome(position, {}, error, processes)
    finally:
        torch.set_num_threads(threads)
