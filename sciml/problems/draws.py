"""Random numbers of a sample, from an explicit generator."""

import math

import torch


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """Uniform between ``low`` and ``high``."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def log_uniform(generator: torch.Generator, low: float, high: float) -> float:
    """Its logarithm is uniform between those of ``low`` and ``high``."""
    return math.exp(uniform(generator, math.log(low), math.log(high)))


def draw_number(generator: torch.Generator) -> float:
    """A number for a parameter that is a ``draw``."""
    return float(torch.randint(2**31, (), generator=generator))
