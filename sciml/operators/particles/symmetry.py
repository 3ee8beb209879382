"""Exact symmetry of a network on particles: its average over signed permutations of the axes.

The group of the cube and the square: 48 matrices in 3D, 8 in 2D, with one entry of 1 or -1 in every row and column.
For ``g`` in the group, a network ``f`` and a scene ``x``, the average of ``g^-1 f(g x)`` over a subgroup commutes with
every element of it. The cost is that of as many passes as the subgroup has elements.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from sciml.operators.particles.scenes import Scenes

SYMMETRIES = ("none", "gravity", "all")


@functools.cache
def signed_permutations(dim: int) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Axes and signs of every element: component i of the image is ``sign[i] * x[axis[i]]``; the identity is first."""
    return tuple(
        (axes, signs) for axes in itertools.permutations(range(dim)) for signs in itertools.product((1, -1), repeat=dim)
    )


def turned(vectors: Tensor, axes: tuple[int, ...], signs: tuple[int, ...]) -> Tensor:
    """The image of vectors ``(*, d)``."""
    return vectors[..., list(axes)] * vectors.new_tensor(signs)


def turned_back(vectors: Tensor, axes: tuple[int, ...], signs: tuple[int, ...]) -> Tensor:
    """What ``turned`` takes to ``vectors``."""
    return (vectors * vectors.new_tensor(signs))[..., [axes.index(i) for i in range(len(axes))]]


def turned_scenes(scenes: Scenes, axes: tuple[int, ...], signs: tuple[int, ...]) -> Scenes:
    """The scenes with their boxes and gravity turned about the origin."""
    ends = scenes.bounds[:, list(axes)] * scenes.bounds.new_tensor(signs).unsqueeze(1)
    return dataclasses.replace(
        scenes,
        position=turned(scenes.position, axes, signs),
        velocity=turned(scenes.velocity, axes, signs),
        gravity=turned(scenes.gravity, axes, signs),
        bounds=torch.stack((ends.amin(-1), ends.amax(-1)), -1),
    )


def averaged(network: Callable[[Scenes], Tensor], scenes: Scenes, symmetry: str) -> Tensor:
    """The network's vectors ``(N, d)``, averaged over the symmetries of each scene (see ``ParticleOperator``)."""
    if symmetry == "none":
        return network(scenes)
    group = signed_permutations(scenes.position.shape[1])
    kept = torch.ones(len(group), len(scenes.gravity), dtype=torch.bool, device=scenes.gravity.device)
    if symmetry == "gravity":
        kept = torch.stack([(turned(scenes.gravity, *element) == scenes.gravity).all(1) for element in group])
    weights = kept.to(scenes.position) / kept.sum(0)
    total = torch.zeros_like(scenes.position)
    for element, weight, wanted in zip(group, weights, kept.any(1).tolist(), strict=True):
        if wanted:
            turned_output = network(turned_scenes(scenes, *element))
            total = total + weight[scenes.batch].unsqueeze(1) * turned_back(turned_output, *element)
    return total
