"""Back from moved meshes: where a target lies in them, and consistent interpolation there."""

import itertools
import math

import pytest
import torch
from moved_meshes import BOXES, cells_for, jumping, lengths_of, noisy, wavy

from sciml.constraints.mesh_mover import Box, cell_volumes, centres_of, folded, interpolate, locate, sample
from sciml.constraints.mesh_mover import inverse_map as inverse
from sciml.constraints.mesh_mover.lattice import close_nodes, ghosts
from sciml.constraints.mesh_mover.multilinear import multilinear
from sciml.constraints.mesh_mover.search import search
from sciml.errors import ConfigError, DataError, SolverError

SLOPE = (1.3, -0.7, 0.4)
MESHES = {"wavy": wavy, "jumping": jumping, "noisy": noisy}


def nodes_of(corners, location):
    return centres_of(corners) if location == "cell" else corners


def targets_in(box, *shape, seed=0):
    """The first ones on the corners and the walls of the box."""
    draw = torch.Generator().manual_seed(seed)
    part = torch.rand(*shape, box.dim, generator=draw, dtype=torch.float64)
    part[..., 0, :], part[..., 1, :], part[..., 2, 0], part[..., 3, 1] = 0.0, 1.0, 0.0, 1.0
    return part * lengths_of(box)


def linear(x, box):
    """Linear across walls, constant along periodic axes."""
    slope = [0.0 if periodic else s for s, periodic in zip(SLOPE, box.periodic, strict=False)]
    return x @ torch.tensor(slope).double() + 2.0


def wave(x, box):
    factors = [2 * math.pi if periodic else 2.3 for periodic in box.periodic]
    return math.prod(
        torch.sin(k * x[..., axis] / length + axis + 1)
        for axis, (k, length) in enumerate(zip(factors, box.lengths, strict=True))
    )


@pytest.mark.parametrize("location", ["cell", "node"])
@pytest.mark.parametrize("kind", MESHES)
@pytest.mark.parametrize("name", BOXES)
def test_constants_and_linear_fields_are_exact(name, kind, location):
    box = BOXES[name]
    nodes = nodes_of(MESHES[kind](box, cells_for(box), 4), location)
    targets = targets_in(box, 4, 60)
    values = torch.stack([linear(nodes, box), torch.full(nodes.shape[:-1], 3.0).double()], 1)
    result = interpolate(values, nodes, targets, box, location=location)
    expected = torch.stack([linear(targets, box), torch.full((4, 60), 3.0).double()], 1)
    torch.testing.assert_close(result, expected, rtol=0, atol=2e-14)


@pytest.mark.parametrize("location", ["cell", "node"])
@pytest.mark.parametrize("kind", MESHES)
@pytest.mark.parametrize("name", ["periodic", "mixed", "periodic 3d", "mixed 3d"])
def test_positions_are_exact_on_periodic_axes(name, kind, location):
    box = BOXES[name]
    nodes = nodes_of(MESHES[kind](box, cells_for(box), 4), location)
    targets = targets_in(box, 4, 200) + lengths_of(box) * torch.tensor(box.periodic)
    xi = locate(nodes, targets, box, location)
    found = interpolate(nodes.movedim(-1, 1), nodes, targets, box, xi, location).movedim(1, -1)
    lengths = lengths_of(box)
    off = found - targets
    off = off - lengths * (off / lengths).round()
    if location == "cell":
        # positions jump at the seam, so near it they are no linear field; each wall's gradients reach a node further
        last, reach = torch.tensor(nodes.shape[1:-1]) - 1, box.dim - sum(box.periodic)
        off = off[((xi > reach) & (xi < last - reach) | ~torch.tensor(box.periodic)).all(-1)]
    assert off.shape[0] > 0
    assert off.abs().max() < 2e-14


@pytest.mark.parametrize("location", ["cell", "node"])
@pytest.mark.parametrize("name", BOXES)
def test_the_fixed_grid_comes_back(name, location):
    box, cells = BOXES[name], cells_for(BOXES[name])
    nodes = nodes_of(box.corners(cells, dtype=torch.float64)[None], location)
    xi = locate(nodes, nodes, box, location)
    index = torch.stack(torch.meshgrid(*(torch.arange(n) for n in nodes.shape[1:-1]), indexing="ij"), -1).double()
    period = torch.tensor([n if p else 1e9 for n, p in zip(cells, box.periodic, strict=True)]).double()
    off = (xi[0] - index) / period
    assert ((off - off.round()) * period).abs().max() < 1e-12
    values = torch.randn(3, 2, *nodes.shape[1:-1], dtype=torch.float64)
    if location == "cell":
        torch.testing.assert_close(interpolate(values, nodes, nodes, box), values, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("dim", "batch", "cells"), [(2, 100, (24, 20)), (3, 20, (9, 8, 10))])
@pytest.mark.parametrize("kind", MESHES)
def test_every_target_is_found_on_hundreds_of_meshes(dim, batch, cells, kind):
    for name, box in BOXES.items():
        if box.dim != dim:
            continue
        corners = MESHES[kind](box, cells, batch, seed=7)
        assert not folded(corners).any()
        if kind == "jumping":
            volume = cell_volumes(corners).log()
            assert volume.diff(dim=1).abs().max() > math.log(100)
        targets = targets_in(box, batch, 200, seed=3)
        for location in ("cell", "node"):
            nodes = nodes_of(corners, location)
            index = locate(nodes, targets, box, location) + torch.tensor(ghosts(box, location))
            found = multilinear(close_nodes(nodes, box, location).movedim(-1, 1), index).movedim(1, -1)
            off = (found - targets) / lengths_of(box)
            assert (off - off.round() * torch.tensor(box.periodic)).abs().max() < 1e-13, (name, location)


@pytest.mark.parametrize("name", ["walls", "periodic", "mixed"])
def test_few_targets_have_to_be_searched_for(name, monkeypatch):
    box, searched = BOXES[name], []

    def counted(maps, points, *rest):
        searched.append(points.shape[1])
        return search(maps, points, *rest)

    monkeypatch.setattr(inverse, "search", counted)
    targets = targets_in(box, 10, 1000)
    locate(centres_of(wavy(box, (48, 40), 10)), targets, box)
    assert not searched
    locate(centres_of(jumping(box, (48, 40), 10)), targets, box)
    assert sum(searched) < 100


@pytest.mark.parametrize("name", ["walls", "mixed", "mixed 3d"])
def test_the_search_finds_what_newton_would(name, monkeypatch):
    box = BOXES[name]
    nodes = centres_of(jumping(box, cells_for(box), 3))
    targets = targets_in(box, 3, 50)
    expected = locate(nodes, targets, box)
    monkeypatch.setattr(inverse, "ITERATIONS", 1)
    turns = torch.tensor(
        [n if p else 1e9 for n, p in zip(nodes.shape[1:-1], box.periodic, strict=True)], dtype=torch.float64
    )
    off = (locate(nodes, targets, box) - expected) / turns
    assert ((off - off.round()) * turns).abs().max() < 1e-9


@pytest.mark.parametrize("name", ["walls", "periodic", "mixed 3d"])
def test_round_trip_is_of_second_order(name):
    box = BOXES[name]
    errors = []
    for n in (12, 24, 48) if box.dim == 2 else (8, 16, 32):
        cells = (n,) * box.dim
        # one smooth map at every resolution
        grid = box.corners(cells, dtype=torch.float64)
        lengths = lengths_of(box)
        unit = grid / lengths
        bend = torch.sin(2 * math.pi * unit) * (1 + 0.5 * torch.cos(2 * math.pi * unit.roll(1, -1)))
        nodes = centres_of((grid + 0.08 * bend * lengths)[None])
        fixed = box.centres(cells, dtype=torch.float64)[None]
        there = sample(wave(fixed, box)[:, None], nodes, box)
        back = interpolate(there, nodes, fixed, box)
        errors.append(float((back[:, 0] - wave(fixed, box)).abs().max()))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert orders[0] > 1.3, errors
    assert orders[1] > 1.8, errors


@pytest.mark.parametrize("location", ["cell", "node"])
@pytest.mark.parametrize("name", BOXES)
def test_derivatives_of_values_nodes_and_targets(name, location):
    box = BOXES[name]
    nodes = nodes_of(wavy(box, (4, 3, 3)[: box.dim], 2, least=0.3), location).detach().requires_grad_()
    values = torch.randn(2, 2, *nodes.shape[1:-1], dtype=torch.float64, requires_grad=True)
    draw = torch.Generator().manual_seed(1)
    targets = torch.rand(2, 5, box.dim, generator=draw, dtype=torch.float64) * lengths_of(box)
    targets.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v, x, t: interpolate(v, x, t, box, location=location), (values, nodes, targets), fast_mode=box.dim == 3
    )


def test_given_index_coordinates_are_used_again():
    box = BOXES["mixed"]
    nodes, targets = centres_of(wavy(box, cells_for(box), 2)), targets_in(box, 2, 3, 7)
    values = torch.randn(2, 4, *nodes.shape[1:-1], dtype=torch.float64)
    xi = locate(nodes, targets, box)
    assert xi.shape == targets.shape
    torch.testing.assert_close(
        interpolate(values, nodes, targets, box, xi), interpolate(values, nodes, targets, box), rtol=0, atol=0
    )
    assert not torch.equal(
        interpolate(values, nodes, targets, box, xi + 0.3), interpolate(values, nodes, targets, box, xi)
    )


def test_one_sample_serves_all():
    box = BOXES["walls"]
    nodes, targets = centres_of(wavy(box, cells_for(box), 3)), targets_in(box, 3, 20)
    values = torch.randn(3, 2, *nodes.shape[1:-1], dtype=torch.float64)
    every = interpolate(values, nodes[:1].expand(3, -1, -1, -1), targets[:1].expand(3, -1, -1), box)
    torch.testing.assert_close(interpolate(values, nodes[:1], targets[:1], box), every, rtol=0, atol=1e-14)
    one = interpolate(values[:1], nodes, targets[:1], box)
    assert one.shape == (3, 2, 20)
    torch.testing.assert_close(one[2:], interpolate(values[:1], nodes[2:], targets[:1], box), rtol=0, atol=1e-14)
    last = interpolate(values, nodes[:1], targets, box)[2:]
    torch.testing.assert_close(last, interpolate(values[2:], nodes[:1], targets[2:], box), rtol=0, atol=1e-14)


def test_single_precision():
    box = BOXES["mixed"]
    nodes = centres_of(wavy(box, (48, 48), 2)).float()
    targets = box.centres((48, 48))[None].expand(2, -1, -1, -1)
    targets = torch.cat([targets, targets.clone().fill_(1 + 1e-7)], 1)
    result = interpolate(linear(nodes.double(), box).float()[:, None], nodes, targets, box)
    assert result.dtype == torch.float32
    assert (result[:, 0] - linear(targets.double(), box)).abs().max() < 3e-6


def test_transposing_transposes():
    box, turned = Box((1.0, 1.7), (False, True)), Box((1.7, 1.0), (True, False))
    nodes, targets = centres_of(wavy(box, (9, 12), 2)), targets_in(box, 2, 30)
    values = torch.randn(2, 1, 9, 12, dtype=torch.float64)
    there = interpolate(values.mT, nodes.transpose(1, 2).flip(-1), targets.flip(-1), turned)
    torch.testing.assert_close(there, interpolate(values, nodes, targets, box), rtol=0, atol=1e-12)


def test_a_target_without_a_cell_is_named():
    box = BOXES["walls"]
    corners = wavy(box, (8, 8), 3)
    # sample 1 does not reach its walls
    corners[1] = 0.5 * corners[1]
    targets = torch.tensor([[0.2, 0.3], [0.9, 1.6]], dtype=torch.float64).expand(3, 2, 2)
    with pytest.raises(SolverError, match=r"holds 1 of the targets, in the samples \[1\]; .*target 1 of sample 1, at"):
        locate(corners, targets, box, "node")


def test_a_mesh_folded_inside_still_has_a_cell_for_every_target():
    box = BOXES["walls"]
    corners = box.corners((8, 8), dtype=torch.float64)[None].clone()
    # a line of nodes behind the next but one
    corners[:, 4, 1:-1, 0] += 0.3
    nodes, targets = corners, targets_in(box, 1, 300)
    found = interpolate(nodes.movedim(-1, 1), nodes, targets, box, location="node").movedim(1, -1)
    assert (found - targets).abs().max() < 1e-8


def test_what_is_refused():
    box = BOXES["walls"]
    nodes, targets = centres_of(wavy(box, (5, 5), 2)), targets_in(box, 2, 6)
    values = torch.ones(2, 1, 5, 5, dtype=torch.float64)
    with pytest.raises(ConfigError, match=r"location is 'edge'"):
        interpolate(values, nodes, targets, box, location="edge")
    with pytest.raises(DataError, match=r"values of shape \(2, 1, 5, 4\) do not fit nodes"):
        interpolate(values[..., :4], nodes, targets, box)
    with pytest.raises(DataError, match=r"no mesh of a box of 2 dimensions"):
        locate(nodes[0], targets, box)
    with pytest.raises(DataError, match=r"are not points of a box of 2 dimensions"):
        locate(nodes, targets[..., :1], box)
    with pytest.raises(DataError, match=r"meshes of 2 samples do not fit targets of 3"):
        locate(nodes, targets_in(box, 3, 6), box)
    with pytest.raises(DataError, match=r"of 3, 2 and 2 samples"):
        interpolate(values[:1].expand(3, -1, -1, -1), nodes, targets, box)
    with pytest.raises(DataError, match=r"some nodes are not finite"):
        locate(nodes * torch.nan, targets, box)
    with pytest.raises(DataError, match=r"xi of shape \(2, 3, 2\) does not fit"):
        interpolate(values, nodes, targets, box, locate(nodes, targets, box)[:, :3])
    outside = targets.clone()
    outside[1, 4, 1] = 1.8
    with pytest.raises(DataError, match=r"1 targets lie beyond the walls y = 0 and 1.7 .*target 4 of sample 1, at y"):
        locate(nodes, outside, box)
