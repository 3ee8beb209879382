"""Reading fields of the uniform grid anywhere in the box."""

import math

import pytest
import torch
from moved_meshes import BOXES, cells_for, lengths_of

from sciml.constraints.mesh_mover import Box, sample
from sciml.errors import ConfigError, DataError

SLOPE = (1.3, -0.7, 0.4)


def points_in(box, *shape, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, box.dim, generator=draw, dtype=torch.float64) * lengths_of(box)


def grid_of(box, cells, location):
    axes = [
        length * ((torch.arange(n).double() + 0.5) / n if location == "cell" else torch.arange(n + 1).double() / n)
        for n, length in zip(cells, box.lengths, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def wave(x, box, turns=1):
    """Smooth; periodic where the box is."""
    factors = [2 * math.pi * turns if periodic else 1.3 for periodic in box.periodic]
    return sum(
        torch.sin(k * x[..., axis] / length + axis)
        for axis, (k, length) in enumerate(zip(factors, box.lengths, strict=True))
    )


@pytest.mark.parametrize("location", ["cell", "node"])
@pytest.mark.parametrize("name", BOXES)
def test_linear_fields_are_exact_up_to_the_walls(name, location):
    box = BOXES[name]
    slope = torch.tensor([0.0 if p else s for s, p in zip(SLOPE, box.periodic, strict=False)]).double()
    field = (grid_of(box, cells_for(box), location) @ slope + 2.0)[None, None]
    points = points_in(box, 3, 40)
    points[0, :5] *= 0
    points[1, :5] = lengths_of(box)
    result = sample(field, points, box, location)
    assert result.shape == (3, 1, 40)
    torch.testing.assert_close(result[:, 0], points @ slope + 2.0, rtol=0, atol=1e-14)


@pytest.mark.parametrize("location", ["cell", "node"])
@pytest.mark.parametrize("name", BOXES)
def test_values_on_the_grid_come_back(name, location):
    box, shape = BOXES[name], cells_for(BOXES[name])
    grid = grid_of(box, shape, location)
    field = torch.randn(2, 3, *grid.shape[:-1], dtype=torch.float64)
    if location == "node":
        for axis, periodic in enumerate(box.periodic, 2):
            if periodic:
                field.narrow(axis, shape[axis - 2], 1).copy_(field.narrow(axis, 0, 1))
    torch.testing.assert_close(sample(field, grid[None], box, location), field, rtol=0, atol=1e-12)
    turns = torch.tensor([2.0 if periodic else 0.0 for periodic in box.periodic]).double()
    moved = grid - turns * lengths_of(box)
    torch.testing.assert_close(sample(field, moved[None], box, location), field, rtol=0, atol=1e-12)


@pytest.mark.parametrize("location", ["cell", "node"])
@pytest.mark.parametrize("name", ["walls", "periodic", "mixed 3d"])
def test_smooth_fields_are_of_second_order(name, location):
    box = BOXES[name]
    points = points_in(box, 1, 500)
    errors = []
    for n in (16, 32):
        field = wave(grid_of(box, (n,) * box.dim, location), box)[None, None]
        errors.append(float((sample(field, points, box, location)[0, 0] - wave(points[0], box)).abs().max()))
    assert errors[1] < 0.3 * errors[0]


@pytest.mark.parametrize("name", ["walls", "periodic", "mixed 3d"])
def test_derivatives_of_field_and_points(name):
    box = BOXES[name]
    field = torch.randn(2, 2, *(4, 5, 3)[: box.dim], dtype=torch.float64, requires_grad=True)
    points = points_in(box, 2, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda f, p: sample(f, p, box), (field, points))
    assert torch.autograd.gradgradcheck(lambda f, p: sample(f, p, box), (field, points))


def test_transposing_transposes():
    box, turned = Box((1.0, 1.7), (False, True)), Box((1.7, 1.0), (True, False))
    field, points = torch.randn(2, 1, 6, 9, dtype=torch.float64), points_in(box, 2, 7, 5)
    here = sample(field, points, box)
    assert here.shape == (2, 1, 7, 5)
    torch.testing.assert_close(sample(field.mT, points.flip(-1), turned), here)


def test_dtype_of_the_field_and_nan_points():
    box = BOXES["walls"]
    points = points_in(box, 1, 3)
    points[0, 1] = torch.nan
    result = sample(torch.ones(1, 1, 4, 4), points, box)
    assert result.dtype == torch.float32
    assert result.isnan().flatten().tolist() == [False, True, False]


def test_what_is_refused():
    box, points = BOXES["walls"], points_in(BOXES["walls"], 2, 5)
    with pytest.raises(ConfigError, match=r"location is 'face'; choose 'cell'"):
        sample(torch.ones(2, 1, 4, 4), points, box, "face")
    with pytest.raises(DataError, match=r"\(2, 4, 4\) does not fit a box of 2"):
        sample(torch.ones(2, 4, 4), points, box)
    with pytest.raises(DataError, match=r"3 fields cannot be read at the points of 2"):
        sample(torch.ones(3, 1, 4, 4), points, box)
    with pytest.raises(DataError, match=r"at least 2 are needed"):
        sample(torch.ones(2, 1, 4, 1), points, box)
    with pytest.raises(DataError, match=r"\(2, 5, 3\) are not points"):
        sample(torch.ones(2, 1, 4, 4), torch.ones(2, 5, 3), box)
