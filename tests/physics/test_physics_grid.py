"""Axes, grids and boundary conditions: coordinates, refusals that name the culprit."""

import pytest
import torch

from sciml.errors import ConfigError
from sciml.physics import (
    Axis,
    Grid,
    Inlet,
    MovingWall,
    Outlet,
    Periodic,
    Wall,
    boundary_values,
    box,
    stretched_axis,
    uniform_axis,
)

WALLS = {"x_low": Wall(), "x_high": Wall(), "y_low": Wall(), "y_high": Wall()}


def test_uniform_axis():
    axis = uniform_axis(4)
    assert axis.uniform and axis.n == 4 and axis.n_faces == 5
    torch.testing.assert_close(axis.centres, torch.tensor([0.125, 0.375, 0.625, 0.875]).double())
    torch.testing.assert_close(axis.centre_distances, torch.full((5,), 0.25).double())


@pytest.mark.parametrize("ends", ["both", "low", "high"])
def test_stretched_axis_clusters_at_the_named_ends(ends):
    widths = stretched_axis(20, 2.0, ends=ends).widths
    assert (widths > 0).all() and abs(widths.sum() - 1) < 1e-14
    assert (widths[0] < 0.5 / 20) == (ends in ("both", "low"))
    assert (widths[-1] < 0.5 / 20) == (ends in ("both", "high"))
    if ends == "both":
        torch.testing.assert_close(widths, widths.flip(0))


def test_coordinates_scale_with_the_length_of_each_case():
    grid = box((4, 3), torch.tensor([[1.0, 2.0], [2.0, 5.0]]), periodic=(True, False))
    assert grid.shape == (4, 3) and grid.face_shape(0) == (4, 3) and grid.face_shape(1) == (4, 4)
    torch.testing.assert_close(grid.faces(0)[1], torch.tensor([0.0, 0.5, 1.0, 1.5]))
    torch.testing.assert_close(grid.faces(1)[1], torch.tensor([0.0, 5 / 3, 10 / 3, 5.0]))
    torch.testing.assert_close(grid.centres(1)[0], torch.tensor([1 / 3, 1.0, 5 / 3]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Axis(torch.tensor([0.0, 0.5, 0.4, 1.0])), "rise"),
        (lambda: Axis(torch.tensor([0.0, 1.0])), "two cells"),
        (lambda: stretched_axis(8, 0.0), "positive"),
        (lambda: stretched_axis(8, 2.0, ends="hihg"), "high"),
        (lambda: box((4, 4), torch.tensor([[1.0, 1.0], [1.0, -2.0]])), "case 1 is -2"),
        (lambda: box((4, 4), torch.ones(3)), r"\(batch, 2\)"),
        (lambda: box((4, 4), torch.ones(1, 2), periodic=(True,)), "1 entries for 2 axes"),
        (lambda: Grid((uniform_axis(3),) * 4, torch.ones(1, 4)), "1 to 3 axes"),
    ],
)
def test_bad_grids_are_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y_hihg": Wall()}, "did you mean 'y_high'"),
        ({"x_low": None}, "lack the side"),
        ({"x_low": "wall"}, "is a str"),
        ({"x_low": Periodic()}, "not periodic"),
        ({"y_high": MovingWall((1.0,))}, "1 components"),
        ({"y_high": MovingWall((1.0, 0.5))}, "through itself"),
        ({"y_high": MovingWall((torch.ones(3), 0.0))}, "3 values for a batch of 2"),
        ({"x_low": Inlet((torch.ones(2, 7), 0.0))}, r"\(2, 7\)"),
        ({"x_low": Inlet((torch.tensor([1.0, float("nan")]), 0.0))}, "not finite in case 1"),
    ],
)
def test_bad_boundaries_are_refused(change, words):
    grid = box((4, 5), torch.ones(2, 2))
    boundaries = {k: v for k, v in {**WALLS, **change}.items() if v is not None}
    with pytest.raises(ConfigError, match=words):
        boundary_values(grid, boundaries, dtype=torch.float64)


def test_periodic_axis_needs_periodic_sides():
    grid = box((4, 5), torch.ones(2, 2), periodic=(True, False))
    with pytest.raises(ConfigError, match="x axis of the grid is periodic"):
        boundary_values(grid, WALLS, dtype=torch.float64)


def test_values_land_on_the_right_side():
    grid = box((4, 5), torch.ones(2, 2))
    profile = torch.rand(2, 5)
    lid = torch.tensor([1.0, 3.0])
    boundaries = {
        "x_low": Inlet((profile, 0.25)),
        "x_high": Outlet(),
        "y_low": Wall(),
        "y_high": MovingWall((lid, 0.0)),
    }
    values = boundary_values(grid, boundaries, dtype=torch.float32)
    torch.testing.assert_close(values.slabs[0][0][0], profile[:, None, :])
    torch.testing.assert_close(values.slabs[1][0][0], torch.full((2, 1, 6), 0.25))
    torch.testing.assert_close(values.slabs[0][1][1], lid[:, None, None].expand(2, 5, 1))
    assert values.slabs[0][0][1] is None and values.slabs[1][0][1] is None
    assert values.outlets == ((0, 1),) and values.has_inlet
