"""Shapes of bodies, where they start, and what positions alone tell about momentum, energy and volume."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from sciml.errors import ConfigError, DataError
from sciml.problems.particles import balance
from sciml.problems.particles.layouts import CONTENT, GAP, LAYOUTS, SPEED, SPIN, layout
from sciml.problems.particles.scene import Body, Scene, fill, rigid_velocity
from sciml.problems.particles.shapes import (
    HARD_OUTLINES,
    OUTLINES,
    Ball,
    Block,
    Box,
    Cross,
    Ellipsoid,
    Ring,
    ball,
    lattice,
    measure,
    named_outline,
    random_placed,
    random_rotation,
)
from sciml.solvers.mpm import Fluid

DIMS = (2, 3)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("outline", "dim", "exact"),
    [
        (Ball(), 2, math.pi),
        (Ball(), 3, 4 / 3 * math.pi),
        (Box(double(0.8, 0.6)), 2, 4 * 0.48),
        (Ellipsoid(double(1.0, 0.5, 0.6)), 3, 4 / 3 * math.pi * 0.3),
        (Ring(0.5), 2, math.pi * 0.75),
        (Ring(0.4), 3, 2 * math.pi**2 * 0.7 * 0.3**2),
        (Cross(0.25), 2, 4 * (2 * 0.25 - 0.25**2) / (1 + 0.25**2)),
    ],
)
def test_measure_of_shapes_of_known_size(outline, dim, exact):
    assert measure(outline, dim) == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("name", [*OUTLINES, *HARD_OUTLINES])
def test_random_outlines_lie_in_the_unit_ball_and_are_not_thin(name, dim):
    for seed in range(5):
        outline = named_outline(name, dim, rng(seed))
        directions = torch.randn(4000, dim, generator=rng(1), dtype=torch.float64)
        outside = directions / directions.norm(dim=1, keepdim=True) * 1.001
        assert not outline.inside(outside).any() and not outline.inside(1.5 * outside).any()
        assert measure(outline, dim) > 0.15 * measure(Ball(), dim)
    kinds = {measure(named_outline(name, dim, rng(seed)), dim) for seed in range(3)}
    assert len(kinds) == (1 if name in ("ball", *HARD_OUTLINES) else 3)


@pytest.mark.parametrize("dim", DIMS)
def test_rotations_are_rotations(dim):
    for seed in range(5):
        q = random_rotation(dim, rng(seed))
        assert torch.allclose(q @ q.T, torch.eye(dim, dtype=torch.float64)) and torch.linalg.det(q) > 0.99


def test_a_placed_shape_is_turned_scaled_and_moved():
    placed = random_placed(Box(double(0.8, 0.6)), 0.1, rng(3), 2)
    assert placed.radius == pytest.approx(math.sqrt(0.1 / 1.92), rel=0.01)
    corner = placed.centre + placed.radius * 0.999 * placed.axes @ double(0.8, 0.6)
    other = placed.centre + placed.radius * 1.001 * placed.axes @ double(0.8, 0.6)
    assert placed.inside(torch.stack([corner, other])).tolist() == [True, False]


def test_the_lattice_fills_a_block_evenly_and_is_jittered():
    block = Block(double(0.0, 0.0), double(0.5, 0.25))
    points = lattice(block, 1 / 32, rng())
    assert len(points) == 16 * 8 and block.inside(points).all()
    cells = torch.floor(points * 32).long()
    assert len(torch.unique(cells, dim=0)) == 16 * 8  # one in each
    offset = points * 32 - cells - 0.5
    assert offset.abs().max() <= 0.25 and offset.std() == pytest.approx(0.5 / math.sqrt(12), rel=0.1)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kind", LAYOUTS)
def test_bodies_are_in_the_box_and_apart(kind, dim):
    spacing = 1 / 48 if dim == 2 else 1 / 24
    for number in range(12 if dim == 2 else 4):
        start = layout(kind, number, dim)
        scene = Scene(
            [Body(m.shape, Fluid(10.0), 1e3, 0, (), m.velocity, m.spin) for m in start.bodies], start.obstacles
        )
        particles = fill(scene, spacing)
        assert (particles.position > 0).all() and (particles.position < 1).all()
        shapes = [*(motion.shape for motion in start.bodies), *start.obstacles]
        points = [lattice(shape, spacing / 2, rng()) for shape in shapes]
        for a, b in itertools.combinations(points, 2):
            assert torch.cdist(a, b).min() > 0.8 * GAP, (kind, number)
        for motion in start.bodies:
            assert motion.velocity.norm() <= SPEED and motion.spin.norm() <= SPIN and motion.velocity[1] <= 0
        content = sum(len(p) for p in points[: len(start.bodies)]) * (spacing / 2) ** dim
        if kind != "pool":
            assert 0.93 * CONTENT[dim][0] < content < 1.07 * CONTENT[dim][1]
        assert bool(start.obstacles) == (kind == "obstacle")


@pytest.mark.parametrize("kind", LAYOUTS)
def test_layouts_follow_from_their_number(kind):
    places = [torch.cat([m.shape.lower for m in layout(kind, number, 2).bodies]) for number in (1, 1, 2)]
    assert torch.equal(places[0], places[1])
    assert places[0].shape != places[2].shape or not torch.equal(places[0], places[2]) or kind == "pool"


def test_rigid_velocity():
    body = Body(ball(double(0.5, 0.5), 0.1), Fluid(10.0), 1e3, velocity=double(1.0, 0.0), spin=double(2.0))
    assert torch.allclose(rigid_velocity(body, double(0.5, 0.6)[None]), double(0.8, 0.0)[None])
    body = Body(ball(double(0.0, 0.0, 0.0), 0.1), Fluid(10.0), 1e3, spin=double(0.0, 0.0, 2.0))
    assert torch.allclose(rigid_velocity(body, double(0.1, 0.0, 0.3)[None]), double(0.0, 0.2, 0.0)[None])


def test_scenes_that_cannot_be_filled():
    with pytest.raises(ConfigError, match="no body"):
        fill(Scene([]), 0.01)
    with pytest.raises(ConfigError, match="body 0 of the scene has no particle"):
        fill(Scene([Body(ball(double(0.5, 0.5), 1e-3), Fluid(10.0), 1e3)]), 0.1)


class TestBalance:
    """A spinning square in free fall, of which all is known."""

    interval, masses = 0.01, torch.full((4,), 0.5)

    def positions(self, dim=2):
        time = self.interval * torch.arange(11, dtype=torch.float64)
        angle = 3.0 * time
        corners = [angle + k * math.pi / 2 for k in range(4)]
        square = torch.stack([torch.stack([0.1 * a.cos(), 0.1 * a.sin()], 1) for a in corners], 1)
        centre = torch.stack([0.5 + 2.0 * time, 0.5 - 4.905 * time**2], 1)
        plane = square + centre[:, None]
        return plane if dim == 2 else torch.cat([plane, torch.full((11, 4, 1), 0.25, dtype=torch.float64)], 2)

    @pytest.mark.parametrize("dim", DIMS)
    def test_known_motion(self, dim):
        x, gravity = self.positions(dim), (0.0, -9.81, 0.0)[:dim]
        p = balance.momentum(x, self.masses, self.interval)
        middle = self.interval * (torch.arange(10, dtype=torch.float64) + 0.5)
        assert torch.allclose(p[:, 0], torch.full((10,), 4.0, dtype=torch.float64))
        assert torch.allclose(p[:, 1], -2 * 9.81 * middle)
        turning = balance.angular_momentum(x, self.masses, self.interval)
        assert turning.shape == (10, 1 if dim == 2 else 3)
        assert torch.allclose(turning[:, -1], torch.full((10,), 2 * 0.01 * 3.0, dtype=torch.float64), rtol=1e-3)
        energy = balance.kinetic_energy(x, self.masses, self.interval)
        expected = 0.5 * 2 * (4 + (9.81 * middle) ** 2) + 0.5 * 0.02 * 9
        assert torch.allclose(energy, expected, rtol=1e-3)
        height = balance.potential_energy(x, self.masses, gravity)
        total = energy + (height[1:] + height[:-1]) / 2
        assert (total - total[0]).abs().max() < 1e-3
        assert torch.allclose(balance.centre_of_mass(x, self.masses)[:, 0] - 0.5, 0.02 * torch.arange(11).double())

    def test_occupied_volume(self):
        filled = lattice(ball(double(0.5, 0.5), 0.2), 1 / 128, rng())[None]
        volume = balance.occupied_volume(filled, 1 / 64)
        assert volume.item() == pytest.approx(math.pi * 0.2**2, abs=1.2 * 2 * math.pi * 0.2 / 128)
        spread = balance.occupied_volume(torch.cat([filled, 1.5 * filled]), 1 / 32)
        assert spread[1] > 1.5 * spread[0]

    def test_bad_input(self):
        x = self.positions()
        with pytest.raises(DataError, match=r"masses have the shape \(3,\); expected \(4,\)"):
            balance.momentum(x, self.masses[:3], 0.01)
        with pytest.raises(DataError, match="interval is 0"):
            balance.kinetic_energy(x, self.masses, 0.0)
        with pytest.raises(DataError, match="cell is -1"):
            balance.occupied_volume(x, -1.0)
        with pytest.raises(DataError, match="expected"):
            balance.centre_of_mass(x[0], self.masses)
