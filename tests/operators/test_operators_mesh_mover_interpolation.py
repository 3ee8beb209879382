"""Interpolation with learned weights: what it can learn and what it cannot break."""

import math

import pytest
import torch
from moved_meshes import BOXES, cells_for, jumping, lengths_of, noisy, wavy

from sciml.constraints.mesh_mover import Box, centres_of, interpolate, locate
from sciml.errors import ConfigError, DataError
from sciml.operators.mesh_mover.interpolation import CorrectedInterpolation

MESHES = {"wavy": wavy, "jumping": jumping, "noisy": noisy}


def targets_in(box, *shape):
    draw = torch.Generator().manual_seed(3)
    return torch.rand(*shape, box.dim, generator=draw, dtype=torch.float64) * lengths_of(box)


def learned(dim):
    """One whose weights are anything but those of the start."""
    torch.manual_seed(0)
    layer = CorrectedInterpolation(hidden=8, dim=dim).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


def nodes_of(corners, location):
    return centres_of(corners) if location == "cell" else corners


@pytest.mark.parametrize("location", ["cell", "node"])
@pytest.mark.parametrize("kind", MESHES)
@pytest.mark.parametrize("name", BOXES)
def test_nothing_learned_breaks_linear_fields(name, kind, location):
    box = BOXES[name]
    cells = (13, 11) if box.dim == 2 else (12, 8, 9)
    nodes, targets = nodes_of(MESHES[kind](box, cells, 3), location), targets_in(box, 3, 200)
    layer = learned(box.dim)
    xi = locate(nodes, targets, box, location)
    found = layer(
        torch.cat([nodes, torch.ones_like(nodes[..., :1])], -1).movedim(-1, 1), nodes, targets, box, xi, location
    )
    found = found.movedim(1, -1)
    torch.testing.assert_close(found[..., -1], torch.ones(3, 200).double(), rtol=0, atol=1e-12)
    # positions are linear, but jump at the seam of a periodic axis
    periods, reach = torch.tensor(cells), 1 + box.dim - sum(box.periodic)
    away = ((xi > reach) & (xi < periods - 1 - reach) | ~torch.tensor(box.periodic)).all(-1)
    assert away.any()
    turns = (found[..., :-1] - targets)[away] / lengths_of(box)
    assert (turns - turns.round() * torch.tensor(box.periodic)).abs().max() < 1e-12
    noise = torch.randn(3, 1, *nodes.shape[1:-1], dtype=torch.float64)
    plain = interpolate(noise, nodes, targets, box, xi, location)
    assert (layer(noise, nodes, targets, box, xi, location) - plain).abs().max() > 0.5


@pytest.mark.parametrize("name", BOXES)
def test_starts_as_the_isoparametric_one(name):
    box = BOXES[name]
    nodes, targets = centres_of(wavy(box, cells_for(box), 3)), targets_in(box, 3, 5, 8)
    values = torch.randn(3, 2, *nodes.shape[1:-1], dtype=torch.float64)
    result = CorrectedInterpolation(dim=box.dim).double()(values, nodes, targets, box)
    assert result.shape == (3, 2, 5, 8)
    torch.testing.assert_close(result, interpolate(values, nodes, targets, box), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["periodic", "mixed 3d"])
def test_rolling_the_grid_along_a_periodic_axis_changes_nothing(name):
    box = BOXES[name]
    nodes, targets = centres_of(wavy(box, cells_for(box), 2)), targets_in(box, 2, 80)
    values = torch.randn(2, 2, *nodes.shape[1:-1], dtype=torch.float64)
    cut = 3
    shift = torch.zeros(box.dim, dtype=torch.float64)
    shift[0] = box.lengths[0]
    rolled = torch.cat([nodes[:, cut:], nodes[:, :cut] + shift], 1)
    layer = learned(box.dim)
    torch.testing.assert_close(
        layer(values.roll(-cut, 2), rolled, targets, box), layer(values, nodes, targets, box), rtol=0, atol=1e-11
    )


@pytest.mark.parametrize("name", ["walls", "periodic", "mixed 3d"])
def test_derivatives(name):
    box = BOXES[name]
    layer = learned(box.dim)
    with torch.no_grad():
        layer.network[2].weight.mul_(0.1)
    nodes = centres_of(wavy(box, (5, 4, 4)[: box.dim], 2, least=0.3)).detach().requires_grad_()
    values = torch.randn(2, 2, *nodes.shape[1:-1], dtype=torch.float64, requires_grad=True)
    targets = targets_in(box, 2, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda v, x, t: layer(v, x, t, box), (values, nodes, targets), fast_mode=True)


def test_size_of_the_box_does_not_matter():
    small, large = Box((1.0, 1.7)), Box((1000.0, 1700.0))
    nodes, targets = centres_of(wavy(small, (9, 8), 2)), targets_in(small, 2, 50)
    values = torch.randn(2, 1, 9, 8, dtype=torch.float64)
    layer = learned(2)
    torch.testing.assert_close(
        layer(values, 1000 * nodes, 1000 * targets, large), layer(values, nodes, targets, small), rtol=0, atol=1e-9
    )


def test_learns_to_be_better_than_linear():
    """On waves and meshes that it was not fitted to, after 400 steps."""
    torch.manual_seed(1)
    box = Box((1.0, 1.0))
    layer = CorrectedInterpolation(hidden=32)
    fixed = box.centres((16, 16))[None].expand(8, -1, -1, -1)

    def fields(x, waves, phases):
        return torch.sin((x.flatten(1, 2)[:, None] * waves).sum(-1) + phases).unflatten(2, x.shape[1:3])

    def draw():
        waves = 2 * math.pi * (2 * torch.rand(8, 4, 1, 2) - 1) * 2.0
        return waves, 2 * math.pi * torch.rand(8, 4, 1)

    def meshes(seed):
        nodes = centres_of(wavy(box, (16, 16), 8, seed=seed, least=0.2)).float()
        return nodes, locate(nodes, fixed, box)

    known = [meshes(seed) for seed in range(6)]
    optimizer = torch.optim.Adam(layer.parameters(), lr=3e-3)
    for step in range(400):
        nodes, xi = known[step % 6]
        case = draw()
        loss = (layer(fields(nodes, *case), nodes, fixed, box, xi) - fields(fixed, *case)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    nodes, xi = meshes(77)
    case = draw()
    values, truth = fields(nodes, *case), fields(fixed, *case)
    with torch.no_grad():
        better = (layer(values, nodes, fixed, box, xi) - truth).square().mean().sqrt()
    plain = (interpolate(values, nodes, fixed, box, xi) - truth).square().mean().sqrt()
    assert better < 0.6 * plain, (float(better), float(plain))


def test_what_is_refused():
    with pytest.raises(ConfigError, match=r"hidden=0, dim=2"):
        CorrectedInterpolation(hidden=0)
    with pytest.raises(ConfigError, match=r"made for 2 dimensions \(dim=\) cannot serve a box of 3"):
        box = BOXES["walls 3d"]
        CorrectedInterpolation()(torch.ones(1, 1, 4, 4, 4), torch.ones(1, 4, 4, 4, 3), torch.ones(1, 2, 3), box)
    box = BOXES["walls"]
    with pytest.raises(DataError, match=r"values of shape \(1, 1, 4, 5\) do not fit nodes"):
        CorrectedInterpolation()(torch.ones(1, 1, 4, 5), box.centres((4, 4))[None], torch.ones(1, 2, 2), box)
