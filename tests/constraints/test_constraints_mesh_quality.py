"""The box, the quality of a mesh, and scaling back what is folded."""

import math

import pytest
import torch

from sciml.constraints.mesh_mover import (
    Box,
    cell_volumes,
    centres_of,
    corner_jacobians,
    equidistribution_spread,
    folded,
    mass,
    unfolded,
)
from sciml.errors import ConfigError, DataError

BOXES = [Box((1.0, 2.0)), Box((1.0, 0.5, 2.0))]
SIZES = [(6, 9), (4, 5, 7)]
CASES = list(zip(BOXES, SIZES, strict=True))
F64 = torch.float64


def shaken(box: Box, cells: tuple[int, ...], amount: float, batch: int = 2) -> torch.Tensor:
    """Meshes with every interior corner moved at random by up to ``amount`` cells; the boundary stays."""
    corners = box.corners(cells, dtype=F64).repeat(batch, *(1,) * (box.dim + 1))
    inside = (slice(None), *(slice(1, -1),) * box.dim)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(corners[inside].shape, generator=generator, dtype=F64) * 2 - 1
    corners[inside] += amount * noise * torch.tensor(box.spacing(cells), dtype=F64)
    return corners


@pytest.mark.parametrize(("box", "cells"), CASES)
def test_the_uniform_mesh(box: Box, cells: tuple[int, ...]) -> None:
    corners = box.corners(cells, dtype=F64)[None]
    assert corners.shape == (1, *(n + 1 for n in cells), box.dim)
    assert corners[0].flatten(0, -2)[-1].tolist() == list(box.lengths)  # exactly at the walls
    torch.testing.assert_close(centres_of(corners)[0], box.centres(cells, dtype=F64))
    volume = math.prod(box.spacing(cells))
    for measure in (cell_volumes(corners), corner_jacobians(corners)):
        torch.testing.assert_close(measure, torch.full((1, *cells), volume, dtype=F64))
    assert folded(corners).tolist() == [0]


@pytest.mark.parametrize(("box", "cells"), CASES)
def test_volumes_fill_the_box_whatever_the_interior_corners(box: Box, cells: tuple[int, ...]) -> None:
    """Exact volumes of multilinear cells tile the box even where the mesh is folded (signed)."""
    for amount in (0.3, 3.0):
        total = cell_volumes(shaken(box, cells, amount)).flatten(1).sum(1)
        torch.testing.assert_close(total, torch.full((2,), math.prod(box.lengths), dtype=F64))


@pytest.mark.parametrize(("box", "cells"), CASES)
def test_volumes_and_jacobians_of_a_linear_map(box: Box, cells: tuple[int, ...]) -> None:
    matrix = torch.eye(box.dim, dtype=F64) + 0.3 * torch.randn(
        box.dim, box.dim, generator=torch.Generator().manual_seed(1), dtype=F64
    )
    corners = box.corners(cells, dtype=F64)[None] @ matrix.T
    expected = (torch.linalg.det(matrix) * math.prod(box.spacing(cells))).expand(1, *cells)
    torch.testing.assert_close(cell_volumes(corners), expected)
    torch.testing.assert_close(corner_jacobians(corners), expected)


def test_a_folded_cell_is_seen_though_all_volumes_are_positive() -> None:
    corners = Box((1.0, 1.0)).corners((3, 3), dtype=F64)[None].clone()
    corners[0, 1, 1] += 0.9 / 3  # past the diagonal of its high neighbour
    assert (cell_volumes(corners) > 0).all()
    assert folded(corners).tolist() == [1]
    corners[0, 0, 0, 0] = torch.nan
    assert folded(corners).tolist() == [2]  # what is not a number is not a good cell


@pytest.mark.parametrize(("box", "cells"), CASES)
def test_mass_integrates_a_quadratic_exactly(box: Box, cells: tuple[int, ...]) -> None:
    masses = mass(shaken(box, cells, 0.3), lambda p: 1 + p[..., 0] ** 2, box)
    expected = math.prod(box.lengths) * (1 + box.lengths[0] ** 2 / 3)
    torch.testing.assert_close(masses.flatten(1).sum(1), torch.full((2,), expected, dtype=F64))


def test_mass_and_spread_of_values_on_another_grid() -> None:
    box = Box((1.0, 2.0))
    corners = box.corners((5, 5), dtype=F64)[None]
    values = 1 + box.centres((20, 20), dtype=F64)[None, ..., 0]
    masses = mass(corners, values, box)
    exact = 0.08 * (1.1 + 0.2 * torch.arange(5, dtype=F64))
    torch.testing.assert_close(masses[0, 1:4, 2], exact[1:4])
    torch.testing.assert_close(masses[0, :, 2], exact, rtol=1e-3, atol=0)  # at a wall never below the least value
    torch.testing.assert_close(equidistribution_spread(corners, values, box).item(), 0.08**0.5 / 1.5, rtol=2e-3, atol=0)


@pytest.mark.parametrize(("box", "cells"), CASES)
def test_a_folded_mesh_is_scaled_back_just_as_far_as_needed(box: Box, cells: tuple[int, ...]) -> None:
    corners = torch.cat((shaken(box, cells, 0.1), shaken(box, cells, 1.5)))
    assert (folded(corners) > 0).tolist() == [False, False, True, True]
    result, scale = unfolded(corners, box, least=0.1)
    assert torch.equal(result[:2], corners[:2])  # bit for bit
    assert scale[:2].tolist() == [1.0, 1.0] and (scale[2:] < 1).all()
    bound = 0.1 * math.prod(box.spacing(cells))
    assert (corner_jacobians(result) > bound).all()
    uniform = box.corners(cells, dtype=F64)
    further = uniform + (scale[2:].reshape(-1, *(1,) * (box.dim + 1)) + 2e-3) * (corners[2:] - uniform)
    assert (corner_jacobians(further).flatten(1).amin(1) <= bound).all()  # the largest scale, to its tolerance


def test_unfolding_alone_and_in_a_batch_and_with_gradients() -> None:
    box, cells = CASES[0]
    corners = torch.cat((shaken(box, cells, 0.1), shaken(box, cells, 1.5))).requires_grad_()
    result, scale = unfolded(corners, box)
    assert torch.equal(unfolded(corners[3:], box)[0], result[3:])
    (gradient,) = torch.autograd.grad(result.sum(), corners)
    torch.testing.assert_close(gradient, scale.reshape(-1, 1, 1, 1).expand_as(gradient))


def test_a_mesh_with_nan_becomes_the_uniform_one() -> None:
    box, cells = CASES[0]
    corners = shaken(box, cells, 0.1)
    corners[1, 2, 2] = torch.nan
    result, scale = unfolded(corners, box)
    assert scale.tolist() == [1.0, 0.0]
    assert torch.equal(result[1], box.corners(cells, dtype=F64))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match="2 or 3 lengths, not 1"):
        Box((1.0,))
    with pytest.raises(ConfigError, match="positive numbers"):
        Box((1.0, -1.0))
    with pytest.raises(ConfigError, match="3 values for a box of 2 axes"):
        Box((1.0, 1.0), (True, False, False))
    with pytest.raises(ConfigError, match="2 whole numbers of at least 3"):
        Box((1.0, 1.0)).corners((4, 2))
    with pytest.raises(ConfigError, match=r"not \(5, 5, 2\)"):
        cell_volumes(torch.zeros(5, 5, 2))
    with pytest.raises(ConfigError, match="least=1"):
        unfolded(Box((1.0, 1.0)).corners((4, 4))[None], Box((1.0, 1.0)), least=1.0)
    with pytest.raises(DataError, match="The monitor gave"):
        mass(Box((1.0, 1.0)).corners((4, 4))[None], lambda p: p, Box((1.0, 1.0)))
