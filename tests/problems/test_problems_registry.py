"""What every registered problem must do, in every dimension that it has, on the coarsest grid that it can be sampled
on."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import pytest
import torch

from sciml.datasets import DatasetFile
from sciml.errors import ConfigError, SolverError
from sciml.problems import PROBLEMS, Problem, Sample, get_problem
from sciml.problems.generate import generate
from sciml.training.config import make_config

EVERY = [pytest.param(name, dim, id=f"{name}-{dim}d") for name, problem in PROBLEMS.items() for dim in problem.dims]
RESOLUTIONS = (24, 32, 48, 64, 96, 128)
CASES = 3


@dataclass(frozen=True)
class Run:
    """A few solved cases of a problem."""

    problem: Problem
    resolution: int
    frames: int
    sample: Sample
    times: torch.Tensor
    trajectory: dict[str, torch.Tensor]

    def solve(self, cases, dtype=torch.float32):
        with torch.inference_mode():
            return self.problem.solve(
                self.sample.select(cases).parameters,
                self.resolution,
                None if self.problem.static else self.times[cases],
                dtype=dtype,
            )

    def scaled(self, trajectory, cases):
        """Fields in units of their scales, name -> (B, T, C, *grid)."""
        scales = self.problem.scales(self.sample.select(cases).parameters)
        shape = (len(cases), 1, -1, *(1,) * self.problem.dim)
        return {name: trajectory[name].double() / scale.double().reshape(shape) for name, scale in scales.items()}


@functools.cache
def run(name, dim) -> Run:
    problem = get_problem(name, dim)
    frames = 1 if problem.static else 3
    for resolution in RESOLUTIONS:
        try:
            sample = problem.sample(CASES, "all", 0, resolution, frames)
        except SolverError:
            continue
        times = 0.5 * problem.frame_times(sample.parameters, frames)
        made = Run(problem, resolution, frames, sample, times, {})
        return Run(**{**made.__dict__, "trajectory": made.solve(list(range(CASES)))})
    raise AssertionError(f"{name} cannot be sampled on grids up to {RESOLUTIONS[-1]}")


def rms(values):
    return values.square().mean().sqrt()


# ---------------------------------------------------------------------------------------------------------- sampling


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_samples_are_reproducible_and_prefix_stable_in_every_subset(name, dim):
    here = run(name, dim)
    for subset in (*here.problem.subsets, "all"):
        try:
            long, short, other = (
                here.problem.sample(n, subset, seed, here.resolution, here.frames)
                for n, seed in ((6, 5), (3, 5), (6, 6))
            )
        except SolverError:
            continue  # this subset needs a finer grid than the others
        assert long.subsets[:3] == short.subsets and set(long.parameters) == set(here.problem.parameter_names)
        assert all(torch.equal(values[:3], short.parameters[key]) for key, values in long.parameters.items()), subset
        assert any(not torch.equal(values, other.parameters[key]) for key, values in long.parameters.items()), subset


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_what_is_sampled_on_the_coarsest_grids_can_be_solved(name, dim):
    """Sampling refuses a grid that the solver would refuse."""
    problem = get_problem(name, dim)
    for subset in problem.subsets:
        for resolution in (8, 12, 16, 20):
            try:
                sample = problem.sample(2, subset, 1, resolution, 2)
            except SolverError:
                continue
            times = None if problem.static else problem.frame_times(sample.parameters, 2)
            problem.solve(sample.parameters, resolution, times)
            break


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_hard_subsets_and_their_complement_can_be_sampled(name, dim):
    problem = get_problem(name, dim)
    for subset in (*problem.hard_subsets, *(["outside"] if problem.hard_subsets else [])):
        assert len(problem.sample(3, subset, 0).subsets) == 3


# ---------------------------------------------------------------------------------------------------------- solving


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_trajectories_have_the_declared_shapes_and_are_finite(name, dim):
    here = run(name, dim)
    problem, trajectory, grid = here.problem, here.trajectory, here.problem.grid(here.resolution)
    info = problem.dataset_info(grid, here.frames)
    assert set(info.parameters) == set(here.sample.parameters) == set(problem.parameter_names)
    assert set(problem.scales(here.sample.parameters)) == {f.name for f in problem.fields}
    expected = {f.name: (CASES, here.frames, f.components, *grid) for f in problem.fields}
    expected |= {f.name: (CASES, here.frames, *info.face_shape(f.name)) for f in problem.face_fields}
    expected |= {f.name: (CASES, f.components, *grid) for f in problem.geometry_fields}
    expected |= dict.fromkeys(problem.series, (CASES, here.frames))
    assert {key: tuple(values.shape) for key, values in trajectory.items() if key != "time"} == expected
    for key in expected:
        assert trajectory[key].dtype == (torch.float64 if key in problem.series else torch.float32), key
        assert torch.isfinite(trajectory[key]).all(), key
    assert trajectory["time"].dtype == torch.float64
    assert torch.equal(trajectory["time"].expand_as(here.times), here.times)
    assert set(problem.learned) <= set(expected) and set(problem.given) <= set(expected)


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_solving_is_deterministic(name, dim):
    here = run(name, dim)
    again = here.solve(list(range(CASES)))
    assert all(torch.equal(values, again[key]) for key, values in here.trajectory.items())


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_batch_equals_single(name, dim):
    """To the error of the time step: a batch may share its number of steps."""
    here = run(name, dim)
    for case in (0, CASES - 1):
        single = here.scaled(here.solve([case]), [case])
        batched = here.scaled({key: values[[case]] for key, values in here.trajectory.items()}, [case])
        for key, values in single.items():
            assert rms(values - batched[key]) < 0.02 * max(rms(values), 0.01), (key, case)


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_float32_agrees_with_float64(name, dim):
    here = run(name, dim)
    cases = list(range(CASES))
    double = here.solve(cases, torch.float64)
    assert all(double[f.name].dtype == torch.float64 for f in (*here.problem.fields, *here.problem.face_fields))
    single, double = here.scaled(here.trajectory, cases), here.scaled(double, cases)
    for key, values in double.items():
        assert rms(values - single[key]) < 1e-3 * max(rms(values), 0.01), key


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_scales_make_fields_of_order_one(name, dim):
    here = run(name, dim)
    for key, values in here.scaled(here.trajectory, list(range(CASES))).items():
        size = values[:, here.problem.first_frame :].square().flatten(3).mean((1, 3)).sqrt()  # per case and component
        assert size.max() < 30 and size.max() > 0.004, (key, size)


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_conditions_are_finite_numbers_with_names(name, dim):
    here = run(name, dim)
    problem = here.problem
    interval = torch.ones(CASES, dtype=torch.float64) if problem.static else here.times[:, 1]
    conditions = problem.conditions(here.sample.parameters, interval)
    assert conditions.shape == (CASES, len(problem.condition_names)) and torch.isfinite(conditions).all()
    assert len(set(problem.condition_names)) == len(problem.condition_names) == len(problem.lookup_weights)


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_residual_is_finite_and_differentiable(name, dim):
    here = run(name, dim)
    fields = {f.name for f in (*here.problem.fields, *here.problem.face_fields)}
    trajectory = {
        key: values.clone().requires_grad_() if key in fields else values for key, values in here.trajectory.items()
    }
    residual = here.problem.residual(trajectory, here.sample.parameters)
    assert residual
    total = sum(part.square().mean() for parts in residual.values() for part in parts)
    assert torch.isfinite(total)
    total.backward()
    gradients = [trajectory[key].grad for key in fields if trajectory[key].grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_coordinates_and_cost_fit_the_cases(name, dim):
    here = run(name, dim)
    grid = here.problem.grid(here.resolution)
    sides = here.problem.lengths(here.sample.parameters).double()
    coordinates = here.problem.coordinates(here.sample.parameters, grid)
    assert sides.shape == (CASES, dim) and list(coordinates) == list("xyz"[:dim])
    for axis, (values, n) in enumerate(zip(coordinates.values(), grid, strict=True)):
        cell = sides[:, axis] / n
        torch.testing.assert_close(values[:, 0], here.problem.origin()[axis] + 0.5 * cell)
        torch.testing.assert_close(values.diff(dim=1), cell[:, None].expand(-1, n - 1))
    cost = here.problem.cost(here.sample.parameters, here.times, here.resolution)
    assert cost.shape == (CASES,) and torch.isfinite(cost).all() and (cost >= 0).all()


# -------------------------------------------------------------------------------------------------------- generation


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_generated_files_can_be_read_and_shards_hold_the_same_cases(name, dim, tmp_path):
    here = run(name, dim)
    options = {"cases": CASES, "resolution": here.resolution, "frames": None if here.problem.static else 2, "seed": 0}
    whole = DatasetFile(generate(here.problem, tmp_path / "whole.h5", **options))
    again = DatasetFile(generate(here.problem, tmp_path / "again.h5", **options))
    assert whole.info.problem == name and whole.n_cases == CASES
    assert torch.equal(whole.state(), again.state()) and torch.isfinite(whole.state()).all()
    shards = [DatasetFile(generate(here.problem, tmp_path / f"{i}.h5", shard=(i, 2), **options)) for i in (1, 2)]
    scale = whole.state().square().mean().sqrt()
    for case in range(CASES):
        shard, position = shards[case % 2], case // 2
        for key in here.problem.parameter_names:
            assert torch.equal(
                torch.as_tensor(shard.parameters[key][position]), torch.as_tensor(whole.parameters[key][case])
            )
        difference = shard.state([position]) - whole.state([case])
        assert rms(difference) < 0.02 * scale, "the number of steps that a batch shares may differ, no more"


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_recipes_are_valid_configurations(name, dim):
    problem = get_problem(name, dim)
    for operator in (None, "unet", "fno"):
        recipe = problem.recipe(operator)
        config = make_config(recipe)
        assert config.problem == name and (operator is None or config.operator.name == operator)


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_wrong_names_numbers_and_grids_are_refused(name, dim):
    here = run(name, dim)
    problem, first = here.problem, here.sample.select([0]).parameters
    missing = next(each for each in itertools.count(1) if each not in problem.dims)
    with pytest.raises(ConfigError, match=f"does not exist in {missing}D"):
        get_problem(name, missing)
    with pytest.raises(ConfigError, match="has no subset 'nonsense'"):
        problem.sample(2, "nonsense")
    with pytest.raises(ConfigError, match="at least 1"):
        problem.sample(0)
    with pytest.raises(ConfigError, match="no parameter 'nonsense'"):
        problem.solve({**first, "nonsense": 1.0}, here.resolution)
    with pytest.raises(ConfigError, match="resolution is"):
        problem.solve(first, (here.resolution,) * (dim + 1))
    with pytest.raises(ConfigError, match="resolution is"):
        problem.solve(first, 2)
    for parameter in problem.parameters:
        refused = [float("nan"), *([-1.0] if parameter.sign != "any" or parameter.draw or parameter.choices else [])]
        for value in refused:
            with pytest.raises(ConfigError, match=f"'{parameter.name}' of case 0"):
                problem.solve({**first, parameter.name: value}, here.resolution)
    if not problem.static:
        for times in ([0.0, 2.0, 1.0], [1.0, 2.0], [0.0, float("nan")]):
            with pytest.raises(ConfigError, match="must start at 0"):
                problem.solve(first, here.resolution, times)
