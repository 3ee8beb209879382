"""The upsampler: what is exact, whatever the network says; where it is bounded; and that it learns."""

import itertools
import math

import pytest
import torch

from sciml.errors import ConfigError, DataError
from sciml.operators import KernelUpsampler
from sciml.operators.particles.affine_residuals import affine_basis, residuals
from sciml.operators.particles.rotations import best_rotation
from sciml.operators.particles.upsampler import CHUNK, follow

torch.manual_seed(0)


def cloud(dim, count=200, points=500, seed=0):
    """Particles and points in a unit box, float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((count, dim), (points, dim))
    return tuple(torch.rand(shape, generator=generator, dtype=torch.float64) for shape in shapes)


def upsampler_of(dim, *, trained=True, **options):
    """In float64; ``trained``: with random numbers in every layer, so that the correction is large."""
    generator = torch.Generator().manual_seed(1)
    upsampler = KernelUpsampler(dim, **options).double()
    for parameter in upsampler.parameters() if trained else ():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return upsampler


def rotation_of(dim, seed=2):
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))[0]
    return (
        q * torch.det(q)
        if dim % 2
        else q @ torch.diag(torch.tensor([1.0] * (dim - 1) + [float(torch.det(q))]).double())
    )


def bent(x):
    """A smooth motion that is not affine."""
    return x + 0.3 * torch.sin(3 * x.flip(1)) + 0.2 * x.square()


def inside(points, particles, margin=0.2):
    """Points that their neighbours surround for certain."""
    return ((points > margin) & (points < 1 - margin)).all(1)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("trained", [False, True])
def test_rigid_motion_is_exact_everywhere(dim, trained):
    sparse, points = cloud(dim)
    points = 3 * points - 1  # most of them outside
    upsampler = upsampler_of(dim, trained=trained)
    anchor = upsampler.anchor(sparse, points)
    if dim > 1:
        assert len(anchor.clamped) > 100
    rotation, shift = rotation_of(dim), torch.arange(1.0, dim + 1, dtype=torch.float64)
    moved = upsampler(anchor, sparse @ rotation.T + shift)
    torch.testing.assert_close(moved, points @ rotation.T + shift, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("trained", [False, True])
def test_affine_motion_is_exact_inside(dim, trained):
    sparse, points = cloud(dim)
    upsampler = upsampler_of(dim, trained=trained, reach=10.0)
    anchor = upsampler.anchor(sparse, points)
    matrix = torch.randn(dim, dim, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    moved, expected = upsampler(anchor, sparse @ matrix.T + 1), points @ matrix.T + 1
    reproduced = torch.ones(len(points), dtype=torch.bool).index_fill(0, anchor.clamped, False)
    assert reproduced.float().mean() > 0.97
    torch.testing.assert_close(moved[reproduced], expected[reproduced], rtol=0, atol=1e-11)


def test_affine_motion_in_single_precision():
    sparse, points = (x.float() for x in cloud(3))
    upsampler = upsampler_of(3).float()
    anchor = upsampler.anchor(sparse, points)
    keep = torch.ones(len(points), dtype=torch.bool).index_fill(0, anchor.clamped, False)
    matrix = torch.eye(3) + 0.3
    error = (upsampler(anchor, sparse @ matrix.T) - points @ matrix.T)[keep].abs().max()
    assert error < 2e-5  # weights of size 5, numbers of size 2
    assert upsampler(anchor, sparse).dtype == torch.float32


@pytest.mark.parametrize("dim", [2, 3])
def test_weights_are_a_bounded_partition_of_unity(dim):
    sparse, points = cloud(dim)
    for spread in (1.0, 3.0, 1e3):
        anchor = upsampler_of(dim, reach=2.0).anchor(sparse, spread * (points - 0.5) + 0.5)
        torch.testing.assert_close(anchor.weights.sum(0), torch.ones(len(points)).double(), rtol=0, atol=1e-12)
        assert anchor.weights.abs().sum(0).max() <= 1 + 2 * dim


def test_a_sharper_reach_is_needed_for_smaller_weights():
    sparse, points = cloud(2)
    points = 2 * points - 0.5
    largest = [upsampler_of(2, reach=r).anchor(sparse, points).weights.abs().sum(0).max() for r in (0.5, 2.0, 8.0)]
    assert largest[0] < largest[1] < largest[2]


@pytest.mark.parametrize("dim", [2, 3])
def test_points_at_particles_follow_them(dim):
    sparse, _ = cloud(dim)
    upsampler = upsampler_of(dim)
    anchor = upsampler.anchor(sparse, sparse)
    torch.testing.assert_close(upsampler(anchor, bent(sparse)), bent(sparse), rtol=0, atol=1e-13)
    assert not len(anchor.clamped)
    beside = upsampler.anchor(sparse, sparse + 1e-7)
    torch.testing.assert_close(upsampler(beside, bent(sparse)), bent(sparse), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dim", [2, 3])
def test_at_the_anchor_nothing_moves(dim):
    sparse, points = cloud(dim)
    points = 3 * points - 1
    upsampler = upsampler_of(dim)
    torch.testing.assert_close(upsampler(upsampler.anchor(sparse, points), sparse), points, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_turned_shifted_and_scaled_input(dim, mirrored):
    """Another frame for both configurations; a mirror is one too, though not for what outer points turn with."""
    sparse, points = cloud(dim)
    upsampler = upsampler_of(dim)
    turn = rotation_of(dim)
    if mirrored:
        turn = turn @ torch.diag(torch.tensor([-1.0] + [1.0] * (dim - 1)).double())

    def seen(x):
        return 2 * x @ turn.T + 3

    expected = seen(upsampler(upsampler.anchor(sparse, points), bent(sparse)))
    moved = upsampler(upsampler.anchor(seen(sparse), seen(points)), seen(bent(sparse)))
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-8)


def test_the_present_configuration_may_be_turned_alone():
    sparse, points = cloud(3)
    upsampler = upsampler_of(3)
    anchor = upsampler.anchor(sparse, points)
    turn = rotation_of(3)
    torch.testing.assert_close(upsampler(anchor, bent(sparse) @ turn.T), upsampler(anchor, bent(sparse)) @ turn.T)


def test_order_of_particles_and_of_points():
    sparse, points = cloud(2)
    upsampler = upsampler_of(2)
    expected = upsampler(upsampler.anchor(sparse, points), bent(sparse))
    a, b = torch.randperm(len(sparse)), torch.randperm(len(points))
    moved = upsampler(upsampler.anchor(sparse[a], points[b]), bent(sparse[a]))
    torch.testing.assert_close(moved, expected[b], rtol=0, atol=1e-12)


def test_pieces_do_not_show():
    sparse, points = cloud(2, points=2 * CHUNK + 5)
    points = 2 * points - 0.5  # clamped ones in every piece
    upsampler = upsampler_of(2)
    moved = upsampler(upsampler.anchor(sparse, points), bent(sparse))
    some = torch.arange(0, len(points), 100)
    torch.testing.assert_close(
        moved[some], upsampler(upsampler.anchor(sparse, points[some]), bent(sparse)), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_neighbours_on_a_plane_a_line_or_a_spot(dim, rank):
    """Rigid motion exact, affine motion along them too, and nothing blows up where one direction is nearly missing."""
    if rank >= dim:
        pytest.skip("they fill the space")
    flat, points = cloud(dim, count=30, points=100)
    flat[:, rank:] = 0
    points[:, rank:] *= 0.05
    turn = rotation_of(dim)
    upsampler = upsampler_of(dim, reach=10.0)
    on = torch.cat([points[:, :rank], 0 * points[:, rank:]], 1)
    for thickness in (0.0, 1e-12, 1e-7, 1e-3):
        sparse = (
            flat + thickness * torch.randn(flat.shape, generator=torch.Generator().manual_seed(4)).double()
        ) @ turn.T
        anchor = upsampler.anchor(sparse, points @ turn.T)
        assert anchor.weights.abs().sum(0).max() <= 1 + dim * 10
        # Off a line in space the angle about the line is open: there the points stay as they are relative to it.
        if rank == dim - 1 or thickness == 0:
            shift = torch.ones(dim).double()
            torch.testing.assert_close(upsampler(anchor, sparse + shift), points @ turn.T + shift, rtol=0, atol=1e-5)
        if rank == dim - 1:
            torch.testing.assert_close(upsampler(anchor, sparse @ turn.T), points @ turn.T @ turn.T, rtol=0, atol=1e-6)
    if rank:
        matrix = torch.randn(dim, dim, generator=torch.Generator().manual_seed(5)).double()
        anchor = upsampler.anchor(flat @ turn.T, on @ turn.T)
        # Only beyond the ends of the line or plane a point may be clamped.
        keep = inside(points[:, :rank], flat)
        assert keep.sum() > 10
        moved = upsampler(anchor, flat @ turn.T @ matrix.T)
        torch.testing.assert_close(moved[keep], (on @ turn.T @ matrix.T)[keep], rtol=0, atol=1e-9)


def test_round_off_across_a_plane_has_no_weight():
    """A tilted sheet in single precision is a sheet, not a body as thick as its round-off."""
    upsampler = upsampler_of(3)
    sheet, points = cloud(2)
    turn = rotation_of(3)
    weights = []
    for dtype in (torch.float64, torch.float32):
        particles, targets = (torch.cat([x, 0 * x[:, :1]], 1) @ turn.T for x in (sheet, points))
        weights.append(upsampler.anchor(particles.to(dtype), targets.to(dtype)).weights.double())
    inner = inside(points, sheet)
    torch.testing.assert_close(weights[1][:, inner], weights[0][:, inner], rtol=0, atol=1e-3)


def test_particles_at_the_same_place():
    sparse, points = cloud(2, count=60)
    sparse = sparse.repeat(4, 1)
    points[:10] = sparse[:10]
    upsampler = upsampler_of(2)
    anchor = upsampler.anchor(sparse, points)
    assert anchor.weights.isfinite().all()
    turn = rotation_of(2)
    torch.testing.assert_close(upsampler(anchor, sparse @ turn.T), points @ turn.T, rtol=0, atol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_fewer_particles_than_neighbours(count):
    sparse, points = cloud(3, count=count, points=20)
    upsampler = upsampler_of(3)
    anchor = upsampler.anchor(sparse, points)
    assert (anchor.weights != 0).sum(0).unique().tolist() == [count]
    torch.testing.assert_close(upsampler(anchor, sparse + 2), points + 2, rtol=0, atol=1e-9 if count != 2 else 1e-5)
    if count >= 3:  # two particles leave the angle about their line open, and round-off a trace of it
        turn = rotation_of(3)
        torch.testing.assert_close(upsampler(anchor, sparse @ turn.T), points @ turn.T, rtol=0, atol=1e-8)


def test_several_scenes_are_as_one_by_one():
    """Also where one of them has fewer particles than neighbours; scenes overlap in space."""
    upsampler = upsampler_of(2)
    scenes = [
        cloud(2, count=40, points=30),
        cloud(2, count=3, points=20, seed=1),
        cloud(2, count=50, points=10, seed=2),
    ]
    single = [upsampler(upsampler.anchor(s, q), bent(s)) for s, q in scenes]
    batch, query_batch = (
        torch.cat([torch.full((len(scene[part]),), k) for k, scene in enumerate(scenes)]) for part in (0, 1)
    )
    sparse, points = (torch.cat([scene[part] for scene in scenes]) for part in (0, 1))
    together = upsampler(upsampler.anchor(sparse, points, batch, query_batch), bent(sparse))
    torch.testing.assert_close(together, torch.cat(single), rtol=0, atol=1e-12)


def test_frames_at_once_and_prepared():
    sparse, points = cloud(2)
    upsampler = upsampler_of(2)
    anchor = upsampler.anchor(sparse, points)
    frames = torch.stack([sparse, bent(sparse), bent(bent(sparse))])
    expected = torch.stack([upsampler(anchor, frame) for frame in frames])
    torch.testing.assert_close(upsampler(anchor, frames), expected, rtol=0, atol=0)
    prepared = upsampler.prepared(anchor)
    assert len(prepared.geometry) == upsampler.config["hidden_channels"] and upsampler.prepared(prepared) is prepared
    torch.testing.assert_close(upsampler(prepared, frames), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dim", [2, 3])
@torch.no_grad()
def test_a_held_correction_is_that_of_its_frame_and_exact_for_affine_motion(dim):
    sparse, points = cloud(dim)
    upsampler = upsampler_of(dim)
    anchor = upsampler.prepared(upsampler.anchor(sparse, points))
    now = bent(sparse)
    held = upsampler.held(anchor, now)
    assert held.held and upsampler.held(held, sparse) is held
    torch.testing.assert_close(upsampler(held, now), upsampler(anchor, now), rtol=0, atol=1e-12)
    plain = upsampler_of(dim, correction=False)
    alone = plain(plain.anchor(sparse, points), now)
    learned = float((upsampler(anchor, now) - alone).abs().max())
    later = now + 0.02 * (now - sparse)
    drift = float((upsampler(held, later) - upsampler(anchor, later)).abs().max())
    assert learned > 1e-4 and drift < 0.3 * learned, "a frame later it is nearly the correction of then"
    matrix = torch.eye(dim, dtype=torch.float64) + 0.2 * torch.ones(dim, dim, dtype=torch.float64).triu()
    inside = torch.ones(len(points), dtype=torch.bool)
    inside[held.clamped] = False
    torch.testing.assert_close(upsampler(held, sparse @ matrix)[inside], (points @ matrix)[inside], rtol=0, atol=1e-10)
    assert plain.held(anchor, now) is anchor, "nothing to hold without a network"


def test_no_points():
    sparse, points = cloud(2)
    upsampler = upsampler_of(2)
    assert upsampler(upsampler.anchor(sparse, points[:0]), sparse).shape == (0, 2)


def test_affine_residuals_vanish_for_nearly_dependent_coordinates():
    generator = torch.Generator().manual_seed(0)
    offsets = torch.randn(3, 8, 50, generator=generator, dtype=torch.float64)
    present = torch.ones(8, 50, dtype=torch.bool)
    present[5:, 10:] = False
    for small in (0.0, 1e-14, 1e-9, 1e-5):
        x = offsets.clone()
        x[2] = x[0] - 2 * x[1] + small * x[2]
        full = affine_basis(x, present)
        products = torch.einsum("akm,bkm->mab", full, full)
        assert (products - torch.diag_embed(products.diagonal(dim1=1, dim2=2).round())).abs().max() < 1e-12
        motion = torch.einsum("ij,jkm->ikm", torch.randn(3, 3, generator=generator).double(), x) + 1
        left = residuals(motion, full).masked_fill(~present, 0.0)
        assert left.abs().max() < 1e-11


@pytest.mark.parametrize("dim", [2, 3])
def test_best_rotation(dim):
    generator = torch.Generator().manual_seed(0)
    moment = torch.randn(dim, dim, 20, generator=generator, dtype=torch.float64, requires_grad=True)
    found = best_rotation(moment).permute(2, 0, 1)
    torch.testing.assert_close(found @ found.mT, torch.eye(dim).double().expand_as(found))
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(20).double())
    value = (found * moment.permute(2, 0, 1)).sum((1, 2))
    for _ in range(20):  # no rotation near or far does better
        other = torch.linalg.matrix_exp(torch.randn(20, dim, dim, generator=generator).double())
        other = torch.linalg.qr(other)[0]
        other = other * torch.linalg.det(other)[:, None, None] if dim == 3 else other[torch.linalg.det(other) > 0]
        rows = moment.permute(2, 0, 1)[: len(other)]
        assert ((other * rows).sum((1, 2)) <= value[: len(other)] + 1e-9).all()
    assert torch.autograd.gradcheck(best_rotation, (moment[:, :, :3].detach().requires_grad_(),))
    sphere = torch.eye(dim, dtype=torch.float64)[..., None].requires_grad_()  # all singular values equal
    assert torch.autograd.gradcheck(best_rotation, (sphere,))
    assert best_rotation(0 * moment).permute(2, 0, 1).allclose(torch.eye(dim).double())


@pytest.mark.parametrize("dim", [2, 3])
def test_gradients(dim):
    sparse, points = cloud(dim, count=20, points=6)
    points = 3 * points - 1
    upsampler = upsampler_of(dim, neighbours=6, hidden_channels=4)
    anchor = upsampler.anchor(sparse, points)
    assert len(anchor.clamped)
    x = bent(sparse).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: upsampler(anchor, x), (x,))
    upsampler(anchor, x).square().sum().backward()
    for name, parameter in upsampler.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).any(), name


def test_gradients_are_finite_where_nothing_has_moved():
    sparse, points = cloud(3, count=40)
    upsampler = upsampler_of(3)
    x = sparse.clone().requires_grad_()
    upsampler(upsampler.anchor(sparse, 3 * points - 1), x).square().sum().backward()
    assert x.grad.isfinite().all() and all(p.grad.isfinite().all() for p in upsampler.parameters())


def test_far_outside_points_stay_near():
    """A motion that stretches by two: an extrapolated affine map would carry the point 50 away."""
    sparse, _ = cloud(2)
    upsampler = upsampler_of(2, trained=False)
    far = torch.tensor([[50.0, 0.5]], dtype=torch.float64)
    moved = upsampler(upsampler.anchor(sparse, far), 2 * sparse)
    assert (moved - far).norm() < 3


def vortex(x):
    """Taylor and Green's velocity in the unit box."""
    s, c = torch.sin(math.pi * x), torch.cos(math.pi * x)
    return torch.stack([s[:, 0] * c[:, 1], -c[:, 0] * s[:, 1]], 1)


def advected(x, step, frames):
    """Positions of every frame, by the midpoint rule, ``(frames + 1, M, 2)``."""
    frames_of = [x]
    for _ in range(frames):
        x = x + step * vortex(x + step / 2 * vortex(x))
        frames_of.append(x)
    return torch.stack(frames_of)


def relative(found, truth, start):
    """rms error over rms displacement."""
    return float((found - truth).square().mean().sqrt() / (truth - start).square().mean().sqrt())


def test_training_beats_moving_least_squares_on_another_motion():
    generator = torch.Generator().manual_seed(0)
    upsampler = KernelUpsampler(2)
    plain = KernelUpsampler(2, correction=False)
    torch.nn.init.xavier_uniform_(upsampler.network[0].weight, generator=generator)
    torch.nn.init.xavier_uniform_(upsampler.network[1].weight, generator=generator)
    cases = []
    for _ in range(8):
        x = torch.rand(2000, 2, generator=generator)
        waves = torch.randn(4, 2, generator=generator) * 4
        moved = x + 0.1 * torch.sin(x @ waves.T) @ torch.randn(4, 2, generator=generator)
        cases.append((upsampler.anchor(x[:500], x[500:]), x[500:], moved[:500], moved[500:]))
    optimiser = torch.optim.Adam(upsampler.parameters(), lr=5e-3)
    for step in range(400):
        anchor, start, sparse, truth = cases[step % len(cases)]
        loss = (upsampler(anchor, sparse) - truth).square().mean() / (truth - start).square().mean()
        optimiser.zero_grad()
        loss.sqrt().backward()
        optimiser.step()
    x = torch.rand(5000, 2, generator=generator)
    truth = advected(x, 0.02, 10)[-1]
    with torch.no_grad():
        errors = [
            relative(model(model.anchor(x[:800], x), truth[:800]), truth, x)
            for model in (plain, KernelUpsampler(2), upsampler)
        ]
    assert errors[0] == pytest.approx(errors[1], rel=1e-6)  # untrained it is moving least squares
    assert errors[2] < errors[0] / 1.2, errors


def test_anchoring_again_follows_a_vortex():
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(3000, 2, generator=generator, dtype=torch.float64)
    frames = advected(start, 0.02, 50)
    upsampler = upsampler_of(2, trained=False)
    errors = {}
    for every in (None, 20, 5, 1):
        found = torch.stack(list(follow(upsampler, frames[:, :1000], start, every)))
        torch.testing.assert_close(found[0], start)
        errors[every] = relative(found[-1].detach(), frames[-1], start)
    assert errors[5] < errors[None] / 3 and errors[5] < 1.2 * errors[1], errors


def test_anchoring_again_keeps_affine_motions_exact():
    sparse, points = cloud(2)
    points = points[inside(points, sparse, 0.05)]
    matrix = torch.tensor([[0.01, -0.04], [0.03, -0.01]], dtype=torch.float64)
    upsampler = upsampler_of(2, reach=20.0)
    path = [torch.linalg.matrix_exp(k * matrix) for k in range(12)]
    for every in (1, 3):
        found = list(follow(upsampler, (sparse @ m.T for m in path), points, every))
        assert len(found) == 12
        torch.testing.assert_close(found[-1], points @ path[-1].T, rtol=0, atol=1e-10)


def test_following_makes_the_anchors_it_says():
    """Every second frame: frames 1 and 2 from the anchor at 0, frames 3 and 4 from that at 2."""
    sparse, points = cloud(2)
    upsampler = upsampler_of(2)
    frames = [sparse]
    for _ in range(4):
        frames.append(bent(frames[-1]))
    found = list(follow(upsampler, frames, points, 2))
    first = upsampler.anchor(frames[0], points)
    torch.testing.assert_close(found[2], upsampler(first, frames[2]))
    second = upsampler.anchor(frames[2], found[2])
    torch.testing.assert_close(found[3], upsampler(second, frames[3]))
    torch.testing.assert_close(found[4], upsampler(second, frames[4]))


def test_following_takes_one_frame_at_a_time():
    sparse, points = cloud(2)
    given = []

    def frames():
        for k in itertools.count():
            given.append(k)
            yield sparse + 0.01 * k

    with torch.no_grad():
        iterator = follow(upsampler_of(2), frames(), points, 3)
        for k in range(10):
            next(iterator)
            assert len(given) == k + 1


def test_saved_and_loaded(tmp_path):
    sparse, points = cloud(3)
    upsampler = upsampler_of(3, neighbours=9)
    again = KernelUpsampler.from_pretrained(upsampler.save_pretrained(tmp_path))
    assert again.config == upsampler.config
    moved = [model(model.anchor(sparse, points), bent(sparse)) for model in (upsampler, again)]
    torch.testing.assert_close(*moved, rtol=0, atol=0)


def test_bad_input():
    sparse, points = cloud(2)
    upsampler = upsampler_of(2)
    anchor = upsampler.anchor(sparse, points)
    for options in ({"neighbours": 0}, {"width": 0.0}, {"reach": -1.0}, {"bound": 0.0}, {"hidden_channels": 1.5}):
        with pytest.raises(ConfigError):
            KernelUpsampler(2, **options)
    with pytest.raises(ConfigError, match="1, 2 or 3"):
        KernelUpsampler(4)
    with pytest.raises(ConfigError, match=r"expected \(200, 2\)"):
        upsampler(anchor, sparse[:-1])
    with pytest.raises(ConfigError, match=r"expected \(N, 2\)"):
        upsampler.anchor(sparse, torch.rand(3, 3))
    with pytest.raises(ConfigError, match="without"):
        upsampler.anchor(sparse, points, batch=torch.zeros(len(sparse), dtype=torch.int64))
    with pytest.raises(DataError, match="not finite"):
        upsampler.anchor(sparse.where(sparse < 0.9, torch.nan), points)
    with pytest.raises(DataError, match="no particle"):
        upsampler.anchor(sparse[:0], points)
    with pytest.raises(DataError, match="no particle"):
        upsampler.anchor(sparse, points, torch.zeros(len(sparse)).long(), torch.ones(len(points)).long())
    with pytest.raises(ConfigError, match="every"):
        next(follow(upsampler, sparse[None], points, 0))
