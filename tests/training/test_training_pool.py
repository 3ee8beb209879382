"""Flows that the network itself advances in training: the pool, and scenes of particles in it."""

import subprocess
import sys
from dataclasses import replace

import pytest
import tiny_particles
import torch
from torch import nn

import sciml
from sciml.errors import ConfigError
from sciml.problems import get_problem
from sciml.progress import Progress
from sciml.training import resolve_config, train
from sciml.training.loop import Trainer
from sciml.training.parallel import World
from sciml.training.particles.build import build_surrogate
from sciml.training.particles.data import SparseWindows, prepare
from sciml.training.particles.own_scenes import OwnScenesLoss
from sciml.training.particles.pool import ScenePool
from sciml.training.pool import Flow, Pool

ALONE = World(0, 1, torch.device("cpu"))


class Counter(Pool[int]):
    """The state of a flow is how often it was advanced."""

    def start(self, number: int) -> Flow[int]:
        return Flow(number, number * 10, 0, torch.zeros(()))

    def use(self, step: int) -> list[int]:
        places = self.indices(self.per_step, step, 0)
        flows = self.occupied(places)
        numbers = [flow.number for flow in flows]
        for place, flow in zip(places, flows, strict=True):
            assert flow.state == flow.age and flow.given == 10 * flow.number
            self.advance(place, flow.state + 1, True)
        return numbers


def test_places_are_used_in_turn_and_no_case_twice():
    pool = Counter(size=10, batch=4, lifetime=5)
    assert pool.size == 12, "whole batches"
    seen = [set(pool.use(step)) for step in range(60)]
    assert seen[0] == {0, 1, 2, 3} and seen[1] == {4, 5, 6, 7}
    lives: dict[int, int] = {}
    for numbers in seen:
        for number in numbers:
            lives[number] = lives.get(number, 0) + 1
    over = [count for number, count in lives.items() if number + pool.size in lives]
    assert min(over) >= 3 and max(over) == 5, "between half of the lifetime and all of it"
    assert len({flow.age for flow in pool.flows.values()}) >= 3, "flows of several ages side by side"


def test_short_lives_at_first():
    pool = Counter(size=4, batch=4, lifetime=100)
    pool.limit_to(0.001)
    first, second = pool.use(0), pool.use(1)
    assert set(first).isdisjoint(second), "one call and no more"
    pool.limit_to(1.7)
    assert pool.limit == 100 and pool.use(2) == second == pool.use(3)


def test_a_flow_that_is_lost_is_replaced():
    pool = Counter(size=2, batch=2, lifetime=50)
    pool.use(0)
    pool.advance(1, torch.zeros(()), False)
    assert pool.use(1) == [0, 3]


def test_memory_brings_a_pool_back():
    pool = Counter(size=6, batch=2, lifetime=4)
    for step in range(7):
        pool.use(step)
    again = Counter(size=6, batch=2, lifetime=4)
    again.recall(pool.memory(ALONE))
    assert [again.use(step) for step in range(7, 20)] == [pool.use(step) for step in range(7, 20)]
    half = World(1, 2, torch.device("cpu"))
    kept: dict = {}
    object.__setattr__(half, "merged", kept.update)
    pool.memory(half)
    assert sorted(kept) == [1, 3, 5], "each process keeps the places that it advances"


# ------------------------------------------------------------------------------------------------------------ particles


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tiny_particles.write(tmp_path_factory.mktemp("particles") / "mine.h5")


def config(file, *more: str):
    words = ["data.cases.train=3", "data.cases.validation=1", "data.cases.test=2", "data.points=30", "data.draws=4"]
    words += ["operator.hidden_channels=8", "operator.latent_channels=8", "operator.n_layers=[1,1]", "task.queries=20"]
    words += ["task.noise=0.05", "task.anchor_every=4", "task.lifetime=6", "task.pool=6", "batch_size=2"]
    words += ["validate_every=4", "checkpoint.every_steps=4", "budget.steps=12", "device=cpu"]
    # soap's first steps have the size of the learning rate whatever the gradient: they would magnify round-off
    words += ["optimizer.method=adamw", "optimizer.learning_rate=2e-3", *more]
    return resolve_config("particles", "giorom", None, [f"data.files=[{file}]", *words], {})


def setting(file, noise=0.0, relaxation=15.0):
    made = config(file, f"task.relaxation={relaxation}", "task.huber=null")
    part = prepare(made.data, get_problem("particles"), "cpu", Progress()).train
    model = build_surrogate(made, part)
    windows = SparseWindows(part, made.data, made.task, 6, 0)
    options = {"noise": noise, "mirror": False, "seed": 0, "lost": 0.1, "size": 4, "batch": 2, "lifetime": 6}
    return made, model, ScenePool(windows, **options)


class Exact(nn.Module):
    """Predicts a given acceleration instead of its own."""

    def __init__(self, surrogate):
        super().__init__()
        self.surrogate, self.normaliser, self.stepper = surrogate, surrogate.normaliser, surrogate.stepper
        self.upsampler, self.acceleration = surrogate.upsampler, None

    def moved(self, *given):
        return self.surrogate.moved(*given)

    def forward(self, scene):
        return self.normaliser.normalised(self.acceleration, scene.gravity[scene.batch])


def test_on_the_true_path_the_target_is_the_true_acceleration(file):
    made, model, pool = setting(file)
    exact = Exact(model)
    loss = OwnScenesLoss(exact, made.task, pool)
    for _ in range(3):
        batch = pool.batch([0, 1])
        before, now, later = batch.truth
        torch.testing.assert_close(batch.scene.position, now, atol=1e-6, rtol=0)
        exact.acceleration = later - 2 * now + before
        assert float(loss(replace(batch, following=None), torch.Generator())) < 1e-4
    assert [flow.age for flow in pool.flows.values()] == [3, 3]


def test_off_the_path_the_target_leads_back_like_a_damped_spring(file):
    """Free particles that take the target each time come back as x'' = -2 x' / T - x / T^2 says, stepped alike."""
    made, model, pool = setting(file, relaxation=4.0)
    exact = Exact(model)
    loss = OwnScenesLoss(exact, made.task, pool)
    flow = pool.occupied([1])[0]
    flow.state = flow.state + 1e-3
    distance, speed = 1e-3, 0.0
    for _ in range(5):
        batch = pool.batch([1])
        before, now, later = batch.truth
        away = (batch.scene.position - now)[~batch.scene.fixed].abs()
        assert float(away.max()) == pytest.approx(distance, rel=0.02)
        slower = now - before - batch.scene.displacements[-1]
        exact.acceleration = later - 2 * now + before + slower / 2 + (now - batch.scene.position) / 16
        assert float(loss(replace(batch, following=None), torch.Generator())) < 1e-3
        speed -= speed / 2 + distance / 16
        distance += speed
    assert distance < 0.6e-3


def test_a_scene_that_is_lost_is_given_up(file):
    made, model, pool = setting(file)
    exact = Exact(model)
    exact.acceleration = torch.tensor([0.3, 0.0])
    OwnScenesLoss(exact, made.task, pool)(pool.batch([0, 1]), torch.Generator())
    assert [flow.age for flow in pool.flows.values()] == [6, 6]
    assert [flow.number for flow in pool.occupied([0, 1])] == [4, 5]


def weights(run) -> dict[str, torch.Tensor]:
    return sciml.load(run).state_dict()


@pytest.fixture(scope="module")
def straight(file, tmp_path_factory):
    return train(config(file), tmp_path_factory.mktemp("runs") / "straight").directory


def equal(a, b) -> bool:
    left, right = weights(a), weights(b)
    return all(torch.equal(left[key], right[key]) for key in left)


def test_stopped_and_resumed_it_has_the_same_bits(file, straight, tmp_path, monkeypatch):
    step = Trainer.one_step

    def failing(self, fraction):
        if self.position.step == 9:
            raise RuntimeError("made to fail")
        return step(self, fraction)

    monkeypatch.setattr(Trainer, "one_step", failing)
    with pytest.raises(RuntimeError, match="made to fail"):
        train(config(file), tmp_path / "run")
    monkeypatch.setattr(Trainer, "one_step", step)
    train(config(file), resume=str(tmp_path / "run"))
    assert equal(straight, tmp_path / "run")


def test_two_ranks_are_one_and_resume_exactly(file, straight, tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(
        "import sys, torch\nfrom sciml.training import make_config, train\nfrom sciml.training.loop import Trainer\n"
        "torch.set_num_threads(1)\nstop, step = int(sys.argv[2]), Trainer.one_step\n"
        "def failing(self, fraction):\n"
        "    if self.position.step == stop: raise RuntimeError('made to fail')\n"
        "    return step(self, fraction)\n"
        "Trainer.one_step = failing\n"
        f"train(make_config({config(file).model_dump(mode='json')!r}), sys.argv[1], resume='auto')\n"
    )

    def run(name, stop):
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
        words = [sys.executable, *launch, str(tmp_path / name), str(stop)]
        return subprocess.run(words, capture_output=True, text=True, timeout=300)

    assert "made to fail" in run("stopped", 9).stderr
    for name in ("stopped", "two"):
        done = run(name, -1)
        assert done.returncode == 0, done.stderr[-2000:]
    assert equal(tmp_path / "stopped", tmp_path / "two")
    one, two = weights(straight), weights(tmp_path / "two")
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 2e-2


def test_unrolled_or_followed_but_not_both(file):
    with pytest.raises(ConfigError, match=r"task\.unroll is 2 and task\.lifetime 6"):
        config(file, "task.unroll=2")
