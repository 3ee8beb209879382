"""The particle problems: sampling, solving, what the materials do, and generated files, on coarse grids."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from sciml.cli.main import app
from sciml.datasets.particles import ParticleFile, check_trajectory, particle_statistics
from sciml.errors import ConfigError, DataError, SolverError
from sciml.problems import PARTICLE_PROBLEMS, get_problem
from sciml.problems.particles import Body, Scene, balance, solve_scene, solve_scenes
from sciml.problems.particles.generate import generate, generate_timed
from sciml.problems.particles.layouts import LAYOUTS
from sciml.problems.particles.shapes import Block, ball
from sciml.progress import Progress
from sciml.solvers.mpm import Coulomb, DruckerPrager, FixedCorotated, Fluid, MPMSolver

EVERY = [pytest.param(name, dim, id=f"{name}-{dim}d") for name in PARTICLE_PROBLEMS for dim in (2, 3)]
KINDS = list(LAYOUTS)


def times(frames, interval=5e-3):
    return interval * torch.arange(frames, dtype=torch.float64)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


# ---------------------------------------------------------------------------------------------------------- sampling


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_a_case_depends_on_the_seed_and_its_number_only(name, dim):
    problem = get_problem(name, dim)
    for subset in (*problem.subsets, *problem.hard_subsets, "all", "outside"):
        long, short, other = (problem.sample(n, subset, seed) for n, seed in ((7, 5), (3, 5), (7, 6)))
        assert long.subsets[:3] == short.subsets
        assert all(torch.equal(values[:3], short.parameters[key]) for key, values in long.parameters.items())
        assert any(not torch.equal(values, other.parameters[key]) for key, values in long.parameters.items())
        assert [KINDS[int(scene)] for scene in long.parameters["scene"]] == list(long.subsets)
    assert set(problem.sample(10, "all").subsets) == set(problem.subsets)
    assert not set(problem.hard_subsets) & set(problem.subsets)
    sample = problem.sample(40, "all")
    for key, values in problem.ranges.items():
        assert values.low <= sample.parameters[key].min() and sample.parameters[key].max() <= values.high
        assert sample.parameters[key].max() > 0.5 * values.high


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_a_solved_case_is_what_the_problem_says(name, dim):
    problem = get_problem(name, dim)
    sample = problem.sample(len(problem.subsets), "all", 3, 16)
    solved = problem.solve(sample.parameters, 16, times(4))
    info = problem.particle_info(5e-3)
    assert len({trajectory.n_particles for trajectory in solved}) > 1  # ragged
    for case, trajectory in enumerate(solved):
        check_trajectory(trajectory, info)
        assert trajectory.position.shape == (4, trajectory.n_particles, dim) and trajectory.velocity is not None
        assert trajectory.subset == sample.subsets[case]
        expected = {key: float(values[case]) for key, values in sample.parameters.items()}
        assert trajectory.case_parameters == expected
        columns = torch.tensor([expected[p.name] for p in problem.material_parameters])
        assert torch.equal(trajectory.parameters, columns.expand(trajectory.n_particles, -1))
        assert torch.equal(trajectory.fixed, trajectory.kind == 1)
        assert bool(trajectory.fixed.any()) == (trajectory.subset == "obstacle")
        assert torch.allclose(trajectory.mass, problem.density * trajectory.volume)
        assert (trajectory.position[:, trajectory.fixed].diff(dim=0) == 0).all()
        moved = trajectory.position[-1] - trajectory.position[0]
        assert (moved[~trajectory.fixed].norm(dim=1) > 1e-6).float().mean() > 0.5


def test_three_dimensional_problems_are_smaller_by_default():
    flat, solid = get_problem("water"), get_problem("water", 3)
    assert (flat.dim, flat.resolution, flat.frames) == (2, 64, 300) and (solid.resolution, solid.frames) == (32, 200)
    assert flat.gravity == (0.0, -9.81) and solid.gravity == (0.0, -9.81, 0.0)
    assert flat.kinds == ("water", "obstacle") and flat.bounds == ((0.0, 1.0),) * 2


@pytest.mark.parametrize("dim", (2, 3))
def test_the_same_case_at_two_resolutions(dim):
    """Until it hits anything, a body is where it is at any resolution, up to where its particles lie."""
    problem = get_problem("jelly", dim)
    sample = problem.sample(4, "drop", 0)
    coarse, fine = (problem.solve(sample.parameters, n, times(5)) for n in ((32, 64) if dim == 2 else (16, 32)))
    for a, b in zip(coarse, fine, strict=True):
        assert b.n_particles == pytest.approx(2**dim * a.n_particles, rel=0.1)
        assert float(b.mass.sum()) == pytest.approx(float(a.mass.sum()), rel=0.06)
        centres = [balance.centre_of_mass(each.position, each.mass) for each in (a, b)]
        assert (centres[0] - centres[1]).abs().max() < 0.01


def test_solving_together_is_solving_alone():
    problem = get_problem("water")
    sample = problem.sample(4, "all", 0, 24)
    together = problem.solve(sample.parameters, 24, times(6), together=4, dtype=torch.float64)
    for case, trajectory in enumerate(together):
        (alone,) = problem.solve(sample.select([case]).parameters, 24, times(6), dtype=torch.float64)
        assert torch.equal(alone.position[0], trajectory.position[0])
        assert (alone.position - trajectory.position).abs().max() < 1e-3  # the time steps are shared
    default = problem.solve(sample.parameters, 24, times(6))
    again = problem.solve(sample.select([2]).parameters, 24, times(6))[0]
    assert torch.equal(default[2].position, again.position)  # bit for bit where each has its own


class TestPhysics:
    def test_water_at_rest_stays(self):
        pool = Body(Block(double(0.0, 0.0), double(1.0, 0.25)), Fluid(20.0, 1.0), 1000.0)
        trajectory = solve_scene(Scene([pool]), 32, times(61))
        moved = (trajectory.position - trajectory.position[0]).norm(dim=2)
        assert moved.max() < 0.5 / 32 and trajectory.velocity[-10:].norm(dim=2).mean() < 0.05
        top = [float(frame[:, 1].quantile(0.98)) for frame in trajectory.position[[0, -1]]]
        assert top[1] == pytest.approx(top[0], abs=0.25 / 32)

    @pytest.mark.parametrize("dim", (2, 3))
    def test_free_flight(self, dim):
        """A spinning jelly keeps its angular momentum, and gravity adds g t to its velocity."""
        problem = get_problem("jelly", dim)
        case = {"young": 2e5, "poisson": 0.3, "scene": 0.0, "draw": 4.0}
        (trajectory,) = problem.solve(case, 16, times(8), dtype=torch.float64)
        assert trajectory.position.amin() > 0.1  # it has not landed
        x, m = trajectory.position, trajectory.mass
        velocity = balance.momentum(x, m, 5e-3) / float(m.sum())
        fall = torch.zeros(7, dim, dtype=torch.float64)
        fall[:, 1] = -9.81 * 5e-3 * torch.arange(7)
        assert (velocity - velocity[0] - fall).abs().max() < 1e-3
        spin = balance.angular_momentum(x, m, 5e-3)
        assert (spin - spin[0]).norm(dim=1).max() < 0.02 * spin[0].norm()

    def test_sand_piles_up_steeper_with_more_friction(self):
        problem = get_problem("sand")
        spread = []
        for angle in (20.0, 45.0):
            case = {"friction_angle": angle, "scene": float(KINDS.index("column")), "draw": 1.0}
            (trajectory,) = problem.solve(case, 32, times(150))
            assert balance.kinetic_energy(trajectory.position[-5:], trajectory.mass, 5e-3).max() < 0.5  # it rests
            x = trajectory.position[:, :, 0]
            spread.append(float((x[-1] - x[0].mean()).abs().quantile(0.95)))
        assert spread[0] > 1.25 * spread[1]

    @pytest.mark.parametrize("name", PARTICLE_PROBLEMS)
    def test_nothing_leaves_the_box_or_enters_the_obstacle(self, name):
        problem = get_problem(name)
        sample = problem.sample(2, "obstacle", 2, 24)
        for trajectory, scene in zip(
            problem.solve(sample.parameters, 24, times(100)), problem.scenes(sample.parameters), strict=True
        ):
            assert (trajectory.position >= 0).all() and (trajectory.position <= 1).all()
            disk = scene.obstacles[0]
            distance = (trajectory.position[:, ~trajectory.fixed] - disk.centre).norm(dim=2)
            assert distance.min() > disk.radius - 0.5 / 24
            assert (trajectory.position[:, trajectory.fixed] - disk.centre).norm(dim=2).max() <= disk.radius
            assert distance.min() < disk.radius + 2 / 24  # it has been hit

    @pytest.mark.parametrize("name", PARTICLE_PROBLEMS)
    def test_energy_does_not_grow(self, name):
        problem = get_problem(name)
        sample = problem.sample(1, "drop", 5, 24)
        (trajectory,) = problem.solve(sample.parameters, 24, times(80))
        x, m = trajectory.position, trajectory.mass
        kinetic, potential = balance.kinetic_energy(x, m, 5e-3), balance.potential_energy(x, m, problem.gravity)
        total = kinetic + (potential[1:] + potential[:-1]) / 2
        assert total.max() < 1.01 * total[0] and kinetic.max() > 1.2 * kinetic[0]

    def test_water_and_sand_in_one_scene(self):
        """Sand that falls into water sinks, and both keep their kind, density and parameters."""
        water = Body(Block(double(0.0, 0.0), double(1.0, 0.2)), Fluid(20.0, 0.5), 1000.0, 0, (0.5, 0.0))
        sand = Body(ball(double(0.5, 0.4), 0.1), DruckerPrager(5e5, 0.3, 30.0), 2500.0, 1, (0.0, 30.0))
        trajectory = solve_scene(Scene([water, sand]), 32, times(160), walls=Coulomb(0.3))
        is_sand = trajectory.kind == 1
        assert trajectory.parameters[is_sand].unique(dim=0).tolist() == [[0.0, 30.0]]
        assert (trajectory.mass / trajectory.volume)[is_sand].unique().tolist() == [2500.0]
        height = trajectory.position[:, :, 1]
        assert height[0, is_sand].mean() > 0.35 and height[-1, is_sand].mean() < height[-1, ~is_sand].mean()
        assert height[-1, ~is_sand].mean() > height[0, ~is_sand].mean()

    def test_materials_of_one_kind_with_other_constants(self):
        """They are solved as one group, and each part has its own stiffness."""
        blocks = [
            Body(Block(double(x, 0.0), double(x + 0.25, 0.5)), FixedCorotated(young, 0.3), 1000.0)
            for x, young in ((0.125, 2e4), (0.625, 2e6))
        ]
        trajectory = solve_scene(Scene(blocks), 16, times(30))
        left = trajectory.position[0, :, 0] < 0.5
        sagged = (trajectory.position[0] - trajectory.position.amin(0))[:, 1]
        assert sagged[left].max() > 10 * sagged[~left].max()


# ------------------------------------------------------------------------------------------------------------- files


class Stop(Progress):
    """Ends a generation after some cases, as Ctrl-C does."""

    def __init__(self, after):
        self.left = after

    def advance(self, amount=1, note=""):
        self.left -= 1 if note else 0
        if not self.left:
            raise KeyboardInterrupt


def test_an_interrupted_generation_gives_the_same_bits(tmp_path):
    options = {"cases": 5, "resolution": 16, "frames": 5, "seed": 3}
    whole = generate("water", tmp_path / "whole.h5", **options)
    with pytest.raises(KeyboardInterrupt):
        generate("water", tmp_path / "parts.h5", progress=Stop(2), **options)
    assert not (tmp_path / "parts.h5").exists()
    made = generate_timed("water", tmp_path / "parts.h5", **options)
    assert (made.cases, made.solved) == (5, 3)
    assert whole.read_bytes() == made.path.read_bytes()
    shard = ParticleFile(generate("water", tmp_path / "shard.h5", shard=(2, 2), **options))
    assert [shard.trajectory(i).subset for i in range(len(shard))] == ["column", "pool"]
    assert torch.equal(shard.trajectory(1).position, ParticleFile(whole).trajectory(3).position)


def test_a_file_has_sane_statistics(tmp_path):
    file = ParticleFile(generate("sand", tmp_path / "sand.h5", cases=5, resolution=16, frames=40, interval=0.01))
    assert file.info.interval == 0.01 and file.info.parameters == {"friction_angle": "degree"} and file.frames(0) == 40
    assert len({file.count(i) for i in range(5)}) == 5 and set(file.subsets) == set(get_problem("sand").subsets)
    statistics = particle_statistics([(file, i) for i in range(5)])
    assert -0.05 < statistics.velocity_mean[1] < 0  # it falls, by less than 5 m/s
    assert all(0 < a < v for v, a in zip(statistics.velocity_std, statistics.acceleration_std, strict=True))
    assert 20 < statistics.parameter_mean[0] < 45


def test_workers_give_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr("sciml.problems.workers.WARM_SECONDS", 0.0)
    monkeypatch.setattr("sciml.problems.workers.WORTH_SECONDS", 0.0)
    options = {"cases": 4, "resolution": 16, "frames": 4}
    alone, together = (generate_timed("jelly", tmp_path / f"{n}.h5", workers=n, **options) for n in (1, 2))
    assert together.processes == 2 and alone.path.read_bytes() == together.path.read_bytes()


def test_a_case_that_fails_is_named_and_the_others_are_kept(tmp_path, monkeypatch):
    run = MPMSolver.run

    def failing(self, state, *args):
        if self.obstacles:
            raise SolverError("scene 0: 3 particles became NaN")
        return run(self, state, *args)

    monkeypatch.setattr(MPMSolver, "run", failing)
    with pytest.raises(SolverError, match=r"case 4: 3 particles became NaN.*the 4 of 5 cases that are finished"):
        generate("water", tmp_path / "a.h5", cases=5, resolution=16, frames=3)
    monkeypatch.undo()
    assert generate_timed("water", tmp_path / "a.h5", cases=5, resolution=16, frames=3).solved == 1


@pytest.mark.parametrize("dim", (2, 3))
def test_sciml_generate(tmp_path, dim):
    line = f"generate -p goop --dim {dim} --cases 2 --resolution 16 --frames 4 --seed 1 -o {tmp_path}/goop.h5 --json"
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    file = ParticleFile(content["file"])
    assert (content["cases"], len(file), file.info.dim, file.info.problem) == (2, 2, dim, "goop")
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code != 0 and "exists already" in result.stderr


def test_sciml_problems():
    content = json.loads(CliRunner().invoke(app, ["problems", "sand", "--dim", "3", "--json"]).stdout)
    assert content["kinds"] == ["sand", "obstacle"] and content["particle_parameters"] == ["friction_angle"]
    assert content["gravity"] == [0.0, -9.81, 0.0] and content["hard_subsets"] == ["ring", "cross"]
    for name in PARTICLE_PROBLEMS:
        result = CliRunner().invoke(app, ["problems", name])
        assert result.exit_code == 0 and "y points up" in result.stdout and "column" in result.stdout


# --------------------------------------------------------------------------------------------------------- bad input


def test_bad_input(tmp_path):
    water = get_problem("water")
    good = {"viscosity": 1.0, "scene": 0.0, "draw": 0.0}
    for bad, message in (
        ({**good, "viscosity": 0.0}, "must be positive"),
        ({**good, "scene": 99.0}, r"no scene 99; expected 0 \(drop\)"),
        ({**good, "viscosity": [[1.0, 2.0, 3.0]]}, "does not change in time"),
        ({"viscosity": 1.0}, "needs the parameters scene, draw"),
        ({**good, "viscosty": 1.0}, "viscosity"),
    ):
        with pytest.raises(ConfigError, match=message):
            water.solve(bad, 16, times(3))
    with pytest.raises(ConfigError, match="no scene 1; expected"):
        get_problem("jelly").solve({"young": 1e5, "poisson": 0.3, "scene": 1.0, "draw": 0.0}, 16, times(3))
    with pytest.raises(ConfigError, match="poisson must lie in"):
        get_problem("jelly").solve({"young": 1e5, "poisson": 0.6, "scene": 0.0, "draw": 0.0}, 16, times(3))
    with pytest.raises(ConfigError, match="cells along the box >= 16"):
        water.solve(good, 8, times(3))
    with pytest.raises(ConfigError, match="start at 0"):
        water.solve(good, 16, times(3) + 1)
    with pytest.raises(ConfigError, match="different times"):
        water.solve({**good, "draw": [0.0, 1.0]}, 16, torch.stack([times(3), 2 * times(3)]))
    with pytest.raises(ConfigError, match="together is 0"):
        water.solve(good, 16, times(3), together=0)
    with pytest.raises(ConfigError, match="frames is 2"):
        generate("water", tmp_path / "a.h5", frames=2)
    with pytest.raises(ConfigError, match="interval between frames is -1"):
        generate("water", tmp_path / "a.h5", interval=-1.0)
    with pytest.raises(ConfigError, match="shard 3/3 of 2 cases is empty"):
        generate("water", tmp_path / "a.h5", cases=2, shard=(3, 3))
    with pytest.raises(ConfigError, match="does not exist in 1D; it exists in 2D and 3D"):
        get_problem("water", 1)
    with pytest.raises(ConfigError, match="drop"):
        water.sample(1, "drops")


def test_bad_scenes():
    body = Body(ball(double(0.5, 0.5), 0.2), Fluid(20.0), 1000.0)
    with pytest.raises(DataError, match="outside the box"):
        solve_scene(Scene([Body(ball(double(0.5, 0.1), 0.2), Fluid(20.0), 1000.0)]), 16, times(3))
    with pytest.raises(DataError, match="inside obstacle 0"):
        solve_scene(Scene([body], [ball(double(0.5, 0.5), 0.1)]), 16, times(3))
    solid = Body(ball(double(0.5, 0.5, 0.5), 0.2), Fluid(20.0), 1000.0)
    with pytest.raises(ConfigError, match="2 and 3 dimensions"):
        solve_scenes([Scene([body]), Scene([solid])], 16, times(3))
