"""The surrogate of particles: integration, walls, fixed particles, batches, symmetry, points brought along, storage."""

import itertools
from dataclasses import replace

import pytest
import tiny_particles
import torch

import sciml
from sciml.errors import CheckpointError, DataError, SolverError
from sciml.operators import GIOROM
from sciml.operators.particles.upsampler import KernelUpsampler
from sciml.surrogate import OutOfRangeWarning
from sciml.surrogate.particles import ParticleNormaliser, ParticleSurrogate, Scene, join, scene_of
from sciml.surrogate.particles.companions import choose

STATISTICS = {
    "interval": tiny_particles.INTERVAL,
    "noise": 1e-4,
    "velocity_std": 3e-3,
    "velocity_gravity": 5.0,
    "acceleration_std": 2e-4,
    "acceleration_gravity": 0.8,
    "parameter_mean": [0.5],
    "parameter_std": [0.1],
    "parameter_log": [False],
}


def surrogate(points=40, symmetry="none", **changes) -> ParticleSurrogate:
    torch.manual_seed(0)
    stepper = GIOROM(
        2,
        radius=0.08,
        n_kinds=2,
        n_parameters=1,
        hidden_channels=16,
        latent_channels=16,
        n_layers=[1, 1],
        n_blocks=1,
        symmetry=symmetry,
    )
    for parameter in stepper.parameters():  # the untrained decoder is near zero
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    upsampler = None if points is None else KernelUpsampler(2)
    made = ParticleSurrogate(
        stepper,
        upsampler,
        {**STATISTICS, **changes},
        problem="particles",
        kinds=("stuff", "ground"),
        parameters={"bounce": "1"},
        points=points,
        ranges={"bounce": (0.2, 0.8)},
    )
    return made.eval()


def scene(number=0, frame=0, particles=None) -> Scene:
    return scene_of(tiny_particles.trajectory(number), tiny_particles.info(), slice(frame, frame + 6), particles)


class Still(torch.nn.Module):
    """A stepper that predicts a given normalised acceleration."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value, self.dim, self.history, self.radius = value, 2, 5, 0.05
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, data):
        return torch.full_like(data.pos, self.value)


def test_a_step_is_semi_implicit_euler_in_frames():
    model = surrogate()
    model.operator.stepper = Still(0.5)
    start = scene()
    std = (2e-4**2 + 1e-4**2) ** 0.5
    gravity = torch.tensor([0.0, -9.81])
    expected = start.position + start.displacements[-1] + 0.8 * gravity * 5e-3**2 + 0.5 * std
    moved = model.step(start).position
    free = ~start.fixed
    torch.testing.assert_close(moved[free], expected[free])
    assert torch.equal(moved[~free], start.position[~free])  # the ground stays


def test_free_particles_stop_at_the_walls_and_fixed_ones_go_where_they_are_told():
    model = surrogate()
    model.operator.stepper = Still(1e4)
    start = scene()
    told = start.position + 5.0
    moved = model.moved(start, model(start), told)
    assert float(moved[~start.fixed].max()) == 1.0
    assert torch.equal(moved[start.fixed], told[start.fixed])
    free = replace(start, bounds=None)
    assert float(model.moved(free, model(free)).max()) > 1.0


def test_two_scenes_together_are_two_scenes_alone():
    model, first, second = surrogate(), scene(0), scene(3, 10)
    together = model.step(join([first, second])).position
    alone = torch.cat([model.step(each).position for each in (first, second)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-7)


def test_moving_the_whole_scene_moves_the_outcome():
    model, start = surrogate().double(), scene().double()
    shift = torch.tensor([3.0, -7.0], dtype=torch.float64)
    moved = replace(start, history=start.history + shift, bounds=start.bounds + shift[:, None])
    torch.testing.assert_close(model.step(moved).position, model.step(start).position + shift, rtol=0, atol=1e-12)


def test_the_order_of_the_particles_does_not_matter():
    model, start = surrogate().double(), scene().double()
    order = torch.randperm(len(start), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        model.step(start.select(order)).position, model.step(start).position[order], rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("flip", [(1, 1), (-1, 1)])
@pytest.mark.parametrize("swap", [False, True])
def test_a_turned_scene_has_a_turned_outcome(flip, swap):
    """With ``symmetry="all"`` exactly, gravity being turned too: normalisation does not prefer an axis."""
    model, start = surrogate(symmetry="all").double(), scene().double()
    sign = torch.tensor(flip, dtype=torch.float64)

    def turn(x):
        return (x.flip(-1) if swap else x) * sign

    ends = torch.stack([turn(start.bounds[..., 0]), turn(start.bounds[..., 1])], -1)
    turned = replace(
        start, history=turn(start.history), gravity=turn(start.gravity), bounds=ends.sort(-1).values.contiguous()
    )
    torch.testing.assert_close(model.step(turned).position, turn(model.step(start).position), rtol=0, atol=1e-12)


def test_every_particle_stepped_is_a_rollout():
    model, start = surrogate(), scene()
    rolled = torch.stack(list(model.rollout(start, 5)))
    assert rolled.shape == (5, len(start), 2)
    once, steps = start, []
    for _ in range(5):
        once = model.step(once)
        steps.append(once.position)
    assert torch.equal(rolled, torch.stack(steps))


def test_points_brought_along_follow_a_rigid_motion_exactly():
    model, start = surrogate(), scene().double()
    stepped = model.choose(start)
    free = ~start.fixed
    angles = torch.linspace(0, 0.5, 8, dtype=torch.float64)
    middle = start.position.mean(0)
    paths = []
    for angle in angles:
        turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
        paths.append(torch.where(free[:, None], (start.position - middle) @ turn.T + middle, start.position))
    model.anchor_every = 3
    made = list(model.upsampled(start, [path[stepped] for path in paths], stepped))
    torch.testing.assert_close(torch.stack(made), torch.stack(paths), rtol=0, atol=1e-10)
    assert len(stepped) < 0.5 * len(start)


def test_a_held_correction_is_made_anew_every_so_many_frames():
    """Held for one frame it is the correction of every frame; for three, that of the frames 1 and 4."""
    model, start = surrogate(), scene(2)
    torch.nn.init.normal_(model.upsampler.network[-1].weight, std=1.0)
    stepped = model.choose(start, seed=4)
    x = start.position[stepped]
    paths = [x + 0.02 * frame * torch.sin(20 * x.flip(1)) for frame in range(1, 6)]
    fresh = list(model.upsampled(start, paths, stepped))
    model.correct_every = 3
    held = list(model.upsampled(start, paths, stepped))
    same = [torch.allclose(a, b, rtol=0, atol=1e-6) for a, b in zip(fresh, held, strict=True)]
    assert same == [True, False, False, True, False]


def test_a_dense_rollout_holds_the_stepped_points_and_the_ground():
    model, start = surrogate(), scene(2)
    stepped = model.choose(start, seed=4)
    sparse = list(model.rollout(start.select(stepped), 4))
    for number, frame in enumerate(model.dense_rollout(start, 4, stepped=stepped)):
        assert frame.position.shape == start.position.shape
        torch.testing.assert_close(frame.sparse, sparse[number])
        torch.testing.assert_close(frame.position[stepped], sparse[number])
        assert torch.equal(frame.position[start.fixed], start.position[start.fixed])


def test_prescribed_obstacles_move_as_told():
    model, start = surrogate(), scene()
    told = start.position + 0.01 * torch.arange(1, 4)[:, None, None]
    for number, frame in enumerate(model.dense_rollout(start, 3, prescribed=told)):
        torch.testing.assert_close(frame.position[start.fixed], told[number][start.fixed])


def test_a_rollout_keeps_nothing():
    frames = surrogate().dense_rollout(scene(), 10**9)
    assert len(list(itertools.islice(frames, 3))) == 3


def test_every_kind_gets_its_share_of_points():
    both = join([scene(0), scene(5)])
    for sampling in ("farthest", "random"):
        chosen = choose(both, 30, sampling, 1)
        assert torch.equal(chosen, chosen.sort().values)
        assert len(chosen.unique()) == len(chosen)
        for number in (0, 1):
            own = both.batch[chosen] == number
            assert abs(int(own.sum()) - 30) <= 1
            assert int((both.kind[chosen][own] == 1).sum()) == 3 + (number == 0)
    assert not torch.equal(choose(both, 30, "farthest", 1), choose(both, 30, "farthest", 2))
    assert len(choose(both, None, "farthest", 0)) == len(both)


def test_particles_of_a_kind_that_nobody_steps_are_refused():
    start = scene()
    start = replace(start, fixed=torch.zeros_like(start.fixed))
    only_stuff = (start.kind == 0).nonzero()[:20, 0]
    with pytest.raises(DataError, match="of a kind of which none is stepped"):
        next(surrogate().dense_rollout(start, 1, stepped=only_stuff))


def test_particles_may_join_between_steps():
    model, start = surrogate(), join([scene(0), scene(1)])
    more = start.select(torch.tensor([0, 1, len(start) - 1]))
    more = replace(more, history=more.history + 0.2)
    joined = start.with_particles(more)
    assert torch.equal(joined.batch, joined.batch.sort().values)
    assert torch.bincount(joined.batch).tolist() == (torch.bincount(start.batch) + torch.tensor([2, 1])).tolist()
    assert model.step(joined).position.shape == joined.position.shape
    with pytest.raises(DataError, match="frames, axes, parameters"):
        start.with_particles(replace(more, history=more.history[1:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: replace(s, history=s.history[1:]), "5 frames; expected 6"),
        (lambda s: replace(s, parameters=s.parameters[:, :0]), "0 parameters; expected 1"),
        (lambda s: replace(s, kind=s.kind + 7), "of kind 7 to 8; expected 0 to 1: stuff, ground"),
        (lambda s: s.select(torch.zeros(0, dtype=torch.int64)), "is empty"),
        (lambda s: replace(s, history=s.history + torch.nan), "positions that are not finite"),
        (lambda s: replace(s, history=s.history + 2), "are outside their box"),
    ],
)
def test_scenes_that_cannot_be_stepped(change, message):
    with pytest.raises(DataError, match=message):
        surrogate().step(change(scene()))


def test_a_rollout_that_diverges_says_when():
    model = surrogate()
    model.operator.stepper = Still(float("nan"))
    with pytest.raises(SolverError, match=r"diverged at step 1 of 3"):
        list(model.rollout(scene(), 3))


def test_a_material_outside_the_training_range_is_warned_of():
    start = scene()
    with pytest.warns(OutOfRangeWarning, match=r"bounce is 3; .* trained on 0\.2 to 0\.8"):
        next(surrogate().rollout(replace(start, parameters=torch.full_like(start.parameters, 3.0)), 1))


def test_stepping_few_needs_an_upsampler():
    model, start = surrogate(points=None), scene()
    assert len(model.choose(start)) == len(start)
    with pytest.raises(DataError, match="without an upsampler"):
        next(model.dense_rollout(start, 1, stepped=torch.arange(5)))


def test_normalising_is_undone():
    normaliser = ParticleNormaliser({**STATISTICS, "parameter_log": [True], "parameter_mean": [0.0]})
    gravity = torch.randn(7, 2, dtype=torch.float64)
    acceleration = torch.randn(7, 2, dtype=torch.float64)
    seen = normaliser.normalised(acceleration, gravity)
    torch.testing.assert_close(normaliser.acceleration(seen, gravity), acceleration)
    values = torch.tensor([[1.0], [torch.e]])
    torch.testing.assert_close(normaliser.parameters_of(values), torch.tensor([[0.0], [10.0]]), rtol=1e-5, atol=1e-5)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    model, start = surrogate(), scene()
    model.anchor_every = 2
    loaded = sciml.load(model.save(tmp_path / "surrogate"))
    assert isinstance(loaded, ParticleSurrogate)
    for ours, theirs in zip(model.dense_rollout(start, 4), loaded.dense_rollout(start, 4), strict=True):
        assert torch.equal(ours.position, theirs.position)
    assert "| `bounce` (1) | 0.2 | 0.8 |" in (tmp_path / "surrogate" / "README.md").read_text()
    (tmp_path / "surrogate" / "upsampler" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        sciml.load(tmp_path / "surrogate")
