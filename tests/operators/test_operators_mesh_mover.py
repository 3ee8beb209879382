"""The learned mesh mover: its series, its guarantees, what it has learned, clouds of points, bad input."""

import math

import pytest
import torch

from sciml.constraints.mesh_mover import (
    Box,
    cell_volumes,
    corner_jacobians,
    curvature_monitor,
    equidistribution_spread,
    folded,
    monge_ampere,
)
from sciml.errors import CheckpointError, ConfigError, DataError, SolverError
from sciml.operators.mesh_mover import (
    CloudReader,
    MeshMover,
    fit_mesh_mover,
    mover_loss,
    pretrained_mover,
    random_monitors,
)
from sciml.operators.mesh_mover.random_monitors import random_box
from sciml.operators.mesh_mover.series import series

SQUARE = Box((1.0, 1.0))


def fields(count, cells, box, seed=77):
    """Monitors that training never saw: another seed, and the default share."""
    return random_monitors(count, cells, box, torch.Generator().manual_seed(seed), largest_share=0.5)


@pytest.fixture(scope="module")
def mover():
    return pretrained_mover(2)


@pytest.mark.parametrize("periodic", [(False, False), (True, False), (True, True)])
def test_series_solves_poisson_and_gives_its_gradient(periodic):
    box, cells = Box((1.0, 0.5), periodic), (16, 8)
    basis = series(box, cells, torch.float64, "cpu")
    x, y = box.centres(cells, dtype=torch.float64).unbind(-1)
    k, q = (2 * math.pi if periodic[0] else math.pi), (4 * math.pi if periodic[1] else 2 * math.pi)
    shift, turn = (0.3, 0.7) if all(periodic) else (0.0, 0.0)  # cosines alone obey walls
    source = torch.cos(k * x + shift) * torch.cos(q * y + turn)
    coefficients = basis.coefficients(source.unsqueeze(0) + 5.0)
    at = box.corners((6, 10), dtype=torch.float64)
    a, b = at.unbind(-1)
    share = -1 / (k**2 + q**2)
    exact = torch.stack(
        [
            -k * share * torch.sin(k * a + shift) * torch.cos(q * b + turn),
            -q * share * torch.cos(k * a + shift) * torch.sin(q * b + turn),
        ],
        -1,
    )
    assert torch.allclose(basis.corners(coefficients, (6, 10))[0] - at, exact, atol=1e-12)
    potential = share * torch.cos(k * a + shift) * torch.cos(q * b + turn)
    assert torch.allclose(basis.potential(coefficients, (6, 10))[0], potential, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_walls_are_kept_exactly_whatever_the_network_says(seed):
    torch.manual_seed(seed)
    mover = MeshMover(2, cells=16, n_stages=2, hidden_channels=4)
    torch.nn.init.normal_(mover.stages[-1].out.weight, std=3e4)  # untrained, and wild
    box = Box((2.0, 1.0), (False, seed % 2 == 1))
    mesh = mover(fields(3, (20, 12), box), box, (24, 10))
    corners, uniform = mesh.corners, box.corners((24, 10))
    assert torch.equal(corners[:, 0, :, 0], torch.zeros(3, 11)) and torch.equal(
        corners[:, -1, :, 0], torch.full((3, 11), 2.0)
    )
    if box.periodic[1]:
        assert torch.allclose(corners[:, :, -1, 1], corners[:, :, 0, 1] + 1.0, atol=1e-6)
    else:
        assert torch.equal(corners[:, :, -1, 1], torch.ones(3, 25))
    assert not folded(corners).any() and (mesh.scale < 1).any()
    least = corner_jacobians(corners).flatten(1).amin(1) / (cell_volumes(uniform[None]).mean())
    assert (least > 0.049).all()


def test_constant_monitor_is_the_identity(mover):
    mesh = mover(torch.full((2, 30, 30), 3.0), SQUARE)
    assert torch.allclose(mesh.corners, SQUARE.corners((30, 30)).expand_as(mesh.corners), atol=1e-6)
    assert torch.equal(mesh.scale, torch.ones(2))


@pytest.mark.parametrize(
    "box", [SQUARE, Box((1.0, 0.6)), Box((0.7, 1.0), (True, False)), Box((1.0, 1.0), (True, True))], ids=str
)
def test_learned_meshes_equidistribute(mover, box):
    cells = tuple(round(48 * length) for length in box.lengths)
    monitors = fields(12, cells, box)
    mesh, classical = mover(monitors, box), monge_ampere(monitors, cells, box)
    own, reference = (equidistribution_spread(each.corners, monitors, box) for each in (mesh, classical))
    uniform = equidistribution_spread(box.corners(cells).expand_as(mesh.corners), monitors, box)
    assert own.mean() <= 1.5 * reference.mean() + 0.02 and own.mean() < 0.1 * uniform.mean()
    finer = mover(monitors, box, [4 * n for n in cells])
    assert not folded(finer.corners).any() and torch.equal(mesh.scale, torch.ones(12))


@pytest.mark.parametrize("n", [20, 64, 101])
def test_sizes_that_it_was_not_trained_on(mover, n):
    monitors = fields(6, (n, n), SQUARE)
    own = equidistribution_spread(mover(monitors, SQUARE).corners, monitors, SQUARE)
    reference = equidistribution_spread(monge_ampere(monitors, (n, n), SQUARE).corners, monitors, SQUARE)
    assert own.mean() <= 1.5 * reference.mean() + 0.03


def test_boxes_are_free_of_scale(mover):
    monitors = fields(3, (32, 24), Box((4.0, 3.0)))
    small, large = mover(monitors, Box((4.0, 3.0))), mover(monitors, Box((4e3, 3e3)))
    assert torch.allclose(1e3 * small.corners, large.corners, rtol=1e-5)


def test_periodic_shift_moves_the_mesh_along(mover):
    box = Box((1.0, 1.0), (True, True))
    monitors = fields(2, (48, 48), box)
    there = mover(monitors.roll(8, 1), box).corners
    here = mover(monitors, box).corners
    displacement = (here - box.corners((48, 48)))[:, :-1, :-1]
    shifted = (there - box.corners((48, 48)))[:, :-1, :-1]
    assert torch.allclose(displacement.roll(8, 1), shifted, atol=1e-5)


def test_polish_brings_the_classical_accuracy(mover):
    monitors = fields(6, (48, 48), SQUARE)
    plain, polished = mover(monitors, SQUARE), mover(monitors, SQUARE, polish=8)
    spread = [equidistribution_spread(mesh.corners, monitors, SQUARE).mean() for mesh in (plain, polished)]
    assert spread[1] < spread[0]


def test_three_dimensions():
    mover, box = pretrained_mover(3), Box((1.0, 1.0, 1.0))
    monitors = fields(4, (16, 16, 16), box)
    mesh = mover(monitors, box, (20, 16, 12))
    assert mesh.corners.shape == (4, 21, 17, 13, 3) and not folded(mesh.corners).any()
    uniform = box.corners((20, 16, 12)).expand_as(mesh.corners)
    own, before = (equidistribution_spread(c, monitors, box).mean() for c in (mesh.corners, uniform))
    assert own < 0.25 * before


def test_gradient_with_respect_to_the_monitor():
    torch.manual_seed(0)
    mover = MeshMover(2, cells=16, n_stages=2, hidden_channels=4).double()
    torch.nn.init.normal_(mover.stages[0].out.weight, std=0.1)
    monitors = fields(1, (16, 16), SQUARE).double().requires_grad_()
    direction = torch.randn(1, 17, 17, 2, dtype=torch.float64)

    def read(m):
        return (mover(m, SQUARE).corners * direction).sum()

    (gradient,) = torch.autograd.grad(read(monitors), monitors)
    along = torch.randn_like(monitors)
    step = 1e-6
    with torch.no_grad():
        difference = (read(monitors + step * along) - read(monitors - step * along)) / (2 * step)
    assert torch.allclose(difference, (gradient * along).sum(), rtol=1e-5)


def test_fitting_lowers_the_loss_and_repeats_itself():
    def fitted():
        torch.manual_seed(0)
        mover = MeshMover(2, cells=16, n_stages=2, hidden_channels=4)
        return mover, fit_mesh_mover(mover, steps=120, batch_size=4)

    mover, losses = fitted()
    again, same = fitted()
    assert losses == same and all(
        torch.equal(a, b) for a, b in zip(mover.parameters(), again.parameters(), strict=True)
    )
    held_out = fields(16, (16, 16), SQUARE)
    torch.manual_seed(0)
    assert mover_loss(mover, held_out, SQUARE) < 0.7 * mover_loss(
        MeshMover(2, cells=16, n_stages=2, hidden_channels=4), held_out, SQUARE
    )


def test_fitting_to_fields_of_ones_own():
    mover = MeshMover(2, cells=16, n_stages=1, hidden_channels=4)
    mine = fields(4, (16, 16), SQUARE)
    losses = fit_mesh_mover(mover, steps=60, draw=lambda generator: (mine, SQUARE))
    assert losses[-1] < 0.7 * losses[0]
    with pytest.raises(SolverError, match="lower learning_rate"):
        fit_mesh_mover(mover, steps=2, draw=lambda generator: (mine * torch.nan, SQUARE))
    with pytest.raises(ConfigError, match="minutes or steps"):
        fit_mesh_mover(mover)


def test_saved_and_loaded(mover, tmp_path):
    mover.save_pretrained(tmp_path / "mover")
    again = MeshMover.from_pretrained(tmp_path / "mover")
    monitors = fields(1, (16, 16), SQUARE)
    assert torch.equal(again(monitors, SQUARE).corners, mover(monitors, SQUARE).corners)
    with pytest.raises(CheckpointError):
        MeshMover.from_pretrained(tmp_path)


def test_a_cloud_of_points(mover):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(2500, 2, generator=generator)
    targets = torch.rand(7, 3, 2, generator=generator) * 0.9 + 0.05
    read = CloudReader(points, targets, SQUARE)
    linear = 1 + 2 * points[:, 0] - 3 * points[:, 1]
    assert torch.allclose(read(linear[None, None])[0, 0], 1 + 2 * targets[..., 0] - 3 * targets[..., 1], atol=1e-4)

    def bump(x):
        return torch.exp(-((x - 0.4) ** 2).sum(-1) / 0.02)

    cloud = mover.move_cloud(bump(points)[None, None], points, SQUARE, (40, 40))
    grid = mover.move(bump(SQUARE.centres((50, 50)))[None, None], SQUARE, (40, 40))
    moved = (grid.corners - SQUARE.corners((40, 40))).abs().max()
    assert (cloud.corners - grid.corners).abs().max() < 0.15 * moved
    periodic = CloudReader(points, torch.tensor([[0.0, 0.5], [1.0, 0.5]]), Box((1.0, 1.0), (True, True)))
    waves = torch.cos(2 * math.pi * points[:, 0])[None, None]
    assert torch.allclose(periodic(waves), torch.ones(1, 1, 2), atol=2e-2)


def test_random_boxes_cover_what_they_should():
    generator = torch.Generator().manual_seed(0)
    boxes = [random_box(3, generator) for _ in range(60)]
    assert all(max(box.lengths) == 1.0 and min(box.lengths) >= 0.4 for box in boxes)
    assert 10 < sum(len(set(box.lengths)) == 1 for box in boxes) < 50
    assert 10 < sum(any(box.periodic) for box in boxes) < 55


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m(torch.ones(1, 8, 8, 8), SQUARE), DataError, r"expected \(B, n, n\)"),
        (lambda m: m(torch.ones(1, 8, 8, 8), Box((1.0, 1.0, 1.0))), ConfigError, "moves meshes in 2D"),
        (lambda m: m(torch.full((1, 16, 16), torch.nan), SQUARE), DataError, "NaN"),
        (lambda m: m(torch.zeros(1, 16, 16), SQUARE), DataError, "zero|positive"),
        (lambda m: m.move(torch.ones(1, 1, 16, 16), SQUARE, monitor="curvatur"), ConfigError, "curvature"),
        (lambda m: m.move(torch.randn(1, 1, 32, 32), SQUARE), DataError, "smooth"),
        (lambda m: m(torch.ones(1, 16, 16), SQUARE, (16,)), ConfigError, "cells"),
        (lambda m: MeshMover(2, cells=18), ConfigError, "multiple of 4"),
        (lambda m: MeshMover(1), ConfigError, "2 or 3"),
        (lambda m: pretrained_mover(4), ConfigError, "2 and one in 3"),
        (lambda m: CloudReader(torch.rand(5, 2), torch.rand(3, 2), SQUARE), DataError, "too few"),
        (lambda m: CloudReader(2 * torch.rand(50, 2), torch.rand(3, 2), SQUARE), DataError, "triangulation"),
        (
            lambda m: m.move_cloud(torch.full((1, 1, 50), torch.nan), torch.rand(50, 2), SQUARE),
            DataError,
            "remove those points",
        ),
        (lambda m: m.move_cloud(torch.ones(1, 1, 49), torch.rand(50, 2), SQUARE), DataError, r"\(B, C, 50\)"),
    ],
)
def test_bad_input(mover, call, error, message):
    with pytest.raises(error, match=message):
        call(mover)


def test_moves_a_field_by_its_curvature(mover):
    x, y = SQUARE.centres((48, 48)).unbind(-1)
    front = torch.tanh((x - 0.5 + 0.15 * torch.sin(2 * math.pi * y)) / 0.05)[None, None]
    mesh = mover.move(front, SQUARE, share=0.6)
    direct = mover(curvature_monitor(front, SQUARE, share=0.6), SQUARE)
    assert torch.equal(mesh.corners, direct.corners)
    assert cell_volumes(mesh.corners).min() < 0.5 / 48**2
