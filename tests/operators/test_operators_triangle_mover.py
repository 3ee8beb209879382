"""The network that moves triangulations: trained by the functional alone, valid whatever its weights."""

import pytest
import torch

from sciml.constraints.mesh_mover.triangles import (
    Triangulation,
    displacement_energy,
    folded_triangles,
    huang_functional,
    sample_triangles,
    signed_areas,
    triangle_curvature_monitor,
    triangle_gradient_monitor,
)
from sciml.errors import CheckpointError, ConfigError, DataError, SolverError
from sciml.operators.mesh_mover.random_shapes import random_shapes
from sciml.operators.mesh_mover.triangle_mover import TriangleMover
from sciml.operators.mesh_mover.triangle_stress import displacement_of_stress
from sciml.operators.mesh_mover.triangle_training import fit_triangle_mover, shapes_at_nodes, triangle_mover_loss
from sciml.physics.weak.channel_mesh import channel_mesh, channel_with_disc

DOUBLE = torch.float64
CENTRE = torch.tensor([0.5, 0.6], dtype=DOUBLE)


@pytest.fixture(scope="module")
def channel() -> Triangulation:
    return Triangulation.of(channel_with_disc(0.09), circles=[(0.5, 0.6, 0.1)])


@pytest.fixture(scope="module")
def trained(channel) -> tuple[TriangleMover, list[float]]:
    torch.manual_seed(0)
    mover = TriangleMover()
    return mover, fit_triangle_mover(mover, shapes_at_nodes(channel), channel, steps=80, seed=1).losses


def unseen(triangulation: Triangulation, count: int = 100):
    low, high = triangulation.points.aminmax(dim=0)
    return random_shapes(count, low, high, torch.Generator().manual_seed(12345))


def restless(n_layers: int = 2, **options) -> TriangleMover:
    """Weights as large as training never makes them."""
    torch.manual_seed(3)
    mover = TriangleMover(n_layers=n_layers, **options)
    torch.nn.init.normal_(mover.decoder.weight, std=1.0)
    return mover.double()


def check_valid(points: torch.Tensor, triangulation: Triangulation, digits: float) -> None:
    assert int(folded_triangles(points.double(), triangulation).sum()) == 0
    fixed = triangulation.points.to(points)
    side = (triangulation.points == 0) | (triangulation.points == triangulation.points.amax(0))
    assert bool((points[:, side] == fixed[side]).all()) and int(side.sum()) > 40
    if len(triangulation.motion.turning):
        radii = (points.double()[:, triangulation.motion.turning] - CENTRE).norm(dim=-1)
        assert float((radii - 0.1).abs().max()) < digits


# ------------------------------------------------------------------------------------------------------------- training


def test_trained_without_meshes_it_gains_on_unseen_fields(channel, trained):
    mover, _ = trained
    function, fixed = unseen(channel), channel.points.unsqueeze(0)
    generator = torch.Generator().manual_seed(0)
    probes = torch.rand(6000, 2, dtype=DOUBLE, generator=generator) * torch.tensor([2.0, 1.0])
    probes = probes[(probes - CENTRE).norm(dim=1) > 0.1].unsqueeze(0)
    u = function(fixed)
    with torch.no_grad():
        moved = mover(u.float(), channel)
    check_valid(moved.points, channel, 1e-7)

    def errors(points):
        found = sample_triangles(function(points), channel, points, probes)
        return (found - function(probes)).square().mean((1, 2)).sqrt()

    gain = errors(fixed) / errors(moved.points.double())
    assert float(gain.mean()) > 1.3 and float(gain.log().mean().exp()) > 1.3
    assert float((gain > 1).double().mean()) >= 0.95
    monitor = moved.monitor.double()
    untouched = huang_functional(fixed.expand(100, -1, -1), channel, monitor)
    torch.manual_seed(0)
    with torch.no_grad():
        untrained = huang_functional(TriangleMover()(u.float(), channel).points.double(), channel, monitor)
    values = huang_functional(moved.points.double(), channel, monitor)
    assert float(values.mean()) < float(untrained.mean()) < float(untouched.mean())
    assert float((moved.scale == 1).double().mean()) > 0.9


def test_training_depends_on_the_seed_alone(channel):
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        mover = TriangleMover(hidden_channels=8, n_layers=1, stages=1)
        fitted = fit_triangle_mover(mover, shapes_at_nodes(channel), channel, steps=2, seed=seed, batch_size=2)
        losses.append(fitted.losses)
    assert losses[0] == losses[1] != losses[2]


def test_training_for_a_time(channel):
    mover = TriangleMover(hidden_channels=8, n_layers=1, stages=1)
    fitted = fit_triangle_mover(mover, shapes_at_nodes(channel), channel, minutes=0.01, batch_size=1)
    assert fitted.losses and fitted.seconds < 5


def test_loss_reaches_every_parameter(channel):
    mover = restless()
    with torch.no_grad():
        mover.decoder.weight *= 1e-3
    u = unseen(channel, 2)(channel.points.unsqueeze(0))
    triangle_mover_loss(mover, u, channel).backward()
    for name, parameter in mover.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), name


def test_gradient_of_the_loss_against_finite_differences(channel):
    mover = restless(stages=1)  # later stages take the step downhill as it is
    with torch.no_grad():
        mover.decoder.weight *= 1e-2
    u = unseen(channel, 2)(channel.points.unsqueeze(0))
    loss = triangle_mover_loss(mover, u, channel)
    (gradient,) = torch.autograd.grad(loss, mover.decoder.weight)
    direction = torch.randn(gradient.shape, dtype=DOUBLE)
    ends = []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            mover.decoder.weight += step * direction
            ends.append(float(triangle_mover_loss(mover, u, channel)))
    assert float((gradient * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4)


# ------------------------------------------------------------------------------------------------------------- validity


def test_no_weights_fold_a_triangle_or_leave_the_boundary(channel):
    u = unseen(channel, 8)(channel.points.unsqueeze(0))
    with torch.no_grad():
        moved = restless()(u, channel)
    assert float(moved.scale.min()) < 1
    check_valid(moved.points, channel, 1e-15)
    assert float((signed_areas(moved.points, channel) / channel.mesh.areas).min()) > 0.05
    assert bool(torch.isfinite(huang_functional(moved.points, channel, moved.monitor)).all())


def test_constant_field_keeps_the_fixed_mesh_untrained(channel):
    u = torch.full((2, 1, channel.n_nodes), 7.0, dtype=DOUBLE)
    moved = TriangleMover().double()(u, channel)
    torch.testing.assert_close(moved.points, channel.points.expand(2, -1, -1), rtol=0, atol=1e-9)


def test_another_triangulation_than_the_one_of_its_training(trained):
    mover, _ = trained
    square = Triangulation.of(channel_mesh(0.06, lengths=(1.0, 1.0)))
    fixed = square.points.unsqueeze(0)
    u = unseen(square, 20)(fixed)
    with torch.no_grad():
        moved = mover(u.float(), square)
    check_valid(moved.points, square, 0.0)
    monitor = moved.monitor.double()
    before = huang_functional(fixed.expand(20, -1, -1), square, monitor)
    assert float(huang_functional(moved.points.double(), square, monitor).mean()) < float(before.mean()) - 0.01


def test_samples_of_a_batch_and_units_do_not_matter(channel):
    mover = TriangleMover(stages=2).double()
    torch.nn.init.normal_(mover.decoder.weight, std=0.02)
    u = unseen(channel, 3)(channel.points.unsqueeze(0))
    with torch.no_grad():
        together = mover(u, channel).points
        torch.testing.assert_close(mover(u[1:2], channel).points, together[1:2], rtol=0, atol=1e-10)
        torch.testing.assert_close(mover(-100 * u + 5, channel).points, together, rtol=0, atol=1e-6)
        long = Triangulation(1000 * channel.points, channel.triangles, circles=[(500.0, 600.0, 100.0)])
        torch.testing.assert_close(mover(u, long).points / 1000, together, rtol=0, atol=1e-6)


def test_monitors_by_name_and_of_ones_own(channel):
    mover = TriangleMover(stages=1, monitor="gradient", share=0.3).double()
    u = unseen(channel, 2)(channel.points.unsqueeze(0))
    moved = mover(u, channel)
    assert torch.equal(moved.monitor, triangle_gradient_monitor(u, channel, share=0.3))

    def own(field, triangulation):
        return 5 * triangle_curvature_monitor(field, triangulation)

    moved = mover(u, channel, monitor=own)
    torch.testing.assert_close(moved.points, mover.move(own(u, channel) / 5, channel).points, rtol=0, atol=1e-12)


def test_displacement_of_stress_solves_its_equation(channel):
    """int grad d : grad v = int S : grad v for an admissible v, from the gradients on each triangle."""
    generator = torch.Generator().manual_seed(0)
    stress = torch.randn(2, 3, channel.n_nodes, dtype=DOUBLE, generator=generator)
    found = displacement_of_stress(stress, channel)
    torch.testing.assert_close(channel.expand(channel.reduce(found)), found, rtol=1e-13, atol=1e-15)  # admissible
    tables = channel.tables(found)
    inverse = torch.linalg.inv(tables.edge_matrices)
    slopes = torch.einsum("vk,tki->tvi", torch.tensor([[-1.0, -1], [1, 0], [0, 1]], dtype=DOUBLE), inverse)
    test = channel.expand(torch.randn(1, len(tables.dof_nodes), dtype=DOUBLE, generator=generator))
    by_triangle = [torch.einsum("btvi,tvj->btij", v[:, tables.triangles], slopes) for v in (found, test)]
    left = (by_triangle[0] * by_triangle[1]).sum((2, 3)) @ tables.areas
    mean = stress[:, :, tables.triangles].mean(-1)  # of a linear function over each triangle
    matrices = torch.stack([torch.stack([mean[:, 0], mean[:, 1]], -1), torch.stack([mean[:, 1], mean[:, 2]], -1)], -1)
    right = (matrices * by_triangle[1]).sum((2, 3)) @ tables.areas
    torch.testing.assert_close(left, right)
    assert displacement_energy(channel, stress) is displacement_energy(channel, found)


# ------------------------------------------------------------------------------------------------ storing and bad input


def test_saved_and_loaded(tmp_path, channel):
    mover = restless(stages=2, hidden_channels=12)
    mover.save_pretrained(tmp_path)
    again = TriangleMover.from_pretrained(tmp_path)
    u = unseen(channel, 2)(channel.points.unsqueeze(0))
    with torch.no_grad():
        torch.testing.assert_close(again(u, channel).points, mover(u, channel).points, rtol=0, atol=1e-12)
    (tmp_path / "config.json").write_text('{"operator": "fno", "config": {}}')
    with pytest.raises(CheckpointError, match=r"holds an operator 'fno'; expected 'triangle_mover'"):
        TriangleMover.from_pretrained(tmp_path)


def test_bad_options():
    with pytest.raises(ConfigError, match=r"unknown monitor 'curvatur'; did you mean 'curvature'"):
        TriangleMover(monitor="curvatur")
    with pytest.raises(ConfigError, match=r"stages is 0; expected a whole number above 0"):
        TriangleMover(stages=0)
    with pytest.raises(ConfigError, match=r"share is 0.99 and least 0.05"):
        TriangleMover(share=0.99)
    with pytest.raises(ConfigError, match=r"reference is 'box' and alignment 0.1"):
        TriangleMover(reference="box")


def test_bad_input(channel):
    mover = TriangleMover(stages=1)
    u = torch.rand(1, 1, channel.n_nodes)
    with pytest.raises(DataError, match=r"the field has shape \(1, 1, 5\)"):
        mover(torch.rand(1, 1, 5), channel)
    with pytest.raises(DataError, match=r"field of sample 0 has 1 NaN"):
        mover(torch.where(torch.arange(channel.n_nodes) == 2, torch.nan, u), channel)
    with pytest.raises(DataError, match=r"monitor of sample 0 is zero everywhere"):
        mover(u, channel, monitor=lambda field, triangulation: 0 * field[:, 0])
    draw = shapes_at_nodes(channel)
    for options in ({}, {"steps": 1, "minutes": 1.0}, {"steps": 0}, {"steps": 1, "rate": 0.0}):
        with pytest.raises(ConfigError, match=r"expected either minutes or steps, and all above 0"):
            fit_triangle_mover(mover, draw, channel, **options)
    with torch.no_grad():
        mover.decoder.bias += torch.nan
    with pytest.raises((SolverError, DataError), match=r"not finite"):
        fit_triangle_mover(mover, draw, channel, steps=1)
