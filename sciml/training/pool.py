"""Training on what the network itself makes of a flow: the pool of flows that it advances, and its place in a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor

from sciml.training.parallel import World

Given = TypeVar("Given")
GOLDEN = (5**0.5 - 1) / 2
"""Its multiples modulo 1 are spread evenly, in an order without pattern."""


@dataclass
class Flow(Generic[Given]):
    """A flow in the pool: the number of its case, what follows from that alone, calls of the network since its start,
    and where it is now.
    """

    number: int
    given: Given
    age: int
    state: Tensor


class Pool(Generic[Given]):
    """Training samples: flows that start as a case does and go on as the network predicts.

    A place holds one flow. Each time it is used, the flow is advanced by one call of the network; after ``lifetime``
    calls a new one takes its place. So the network meets the states that it will meet in a rollout, at no extra cost
    (Wandel, Weinmann, Klein 2021, "Learning incompressible fluid dynamics from scratch"). At first lives are short
    (``limit_to``): what an untrained network makes of a flow teaches little. Lives last between half of the limit and
    all of it, so that flows of all ages are in the pool.

    A step uses the next ``batch`` places in turn. Which case a place holds is a function of the place and of how often
    it was refilled; the states depend on the whole training and belong to a checkpoint. A subclass defines ``start``
    and ``batch``.

    Args:
        size: places, rounded up to whole batches.
        batch: places that a step uses, of all processes together.
        lifetime: most calls of the network after which a flow is replaced.
    """

    def __init__(self, *, size: int, batch: int, lifetime: int) -> None:
        self.per_step, self.lifetime = batch, lifetime
        self.size = math.ceil(size / batch) * batch
        self.limit = lifetime
        self.flows: dict[int, Flow[Given]] = {}

    def start(self, number: int) -> Flow[Given]:
        """The flow of a case, at its beginning."""
        raise NotImplementedError

    def limit_to(self, share: float) -> None:
        """Flows live this share of the lifetime, at least one call."""
        self.limit = max(1, round(min(1.0, share) * self.lifetime))

    def life(self, number: int) -> int:
        """How many calls the flow of a case lives."""
        return max(1, math.ceil((0.5 + 0.5 * (number * GOLDEN % 1)) * self.limit))

    def indices(self, size: int, step: int, seed: int) -> list[int]:
        """The places of a step; the seed of the configuration is in the cases."""
        return [(step * size + position) % self.size for position in range(size)]

    def occupied(self, places: Sequence[int]) -> list[Flow[Given]]:
        """The flows of these places; where a life is over, or there was none, a new one."""
        for place in places:
            flow = self.flows.get(place)
            if flow is None:
                self.flows[place] = self.start(place)
            elif flow.age >= self.life(flow.number):
                self.flows[place] = self.start(flow.number + self.size)
        return [self.flows[place] for place in places]

    def advance(self, place: int, state: Tensor, sound: bool) -> None:
        """Where a flow is after a call of the network; one that is not ``sound`` is replaced when its turn comes."""
        flow = self.flows[place]
        flow.state, flow.age = state, flow.age + 1 if sound else self.lifetime

    # -------------------------------------------------------------------------------------------------------- resume

    def memory(self, world: World) -> dict[int, Any]:
        """All that ``recall`` needs, from all processes: every one of them has to call this."""
        mine = {
            place: [flow.number, flow.age, flow.state]
            for place, flow in self.flows.items()
            if place % self.per_step % world.data_size == world.data_rank
        }
        return world.merged(mine)

    def recall(self, memory: dict[int, Any]) -> None:
        """Go on from a checkpoint."""
        self.flows = {}
        for place, (number, age, state) in memory.items():
            flow = self.start(number)
            flow.age, flow.state = age, state
            self.flows[place] = flow
