"""Flows past a disc and over a block, made up: data files and runs without a solver."""

import numpy as np
import torch
from plotting_runs import write_predictions

from sciml.datasets import DatasetWriter
from sciml.problems import get_problem

CYLINDER = {
    "inlet_velocity": 1.0,
    "density": 10.0,
    "viscosity": 1e-3,
    "radius": 0.005,
    "upstream": 0.04,
    "downstream": 0.12,
    "below": 0.04,
    "above": 0.04,
}
DAM = {"inlet_velocity": 1.0, "density": 100.0, "viscosity": 0.1, "barrier_height": 0.12, "barrier_width": 0.1}
TUBE = {"inlet_velocity": 1.0, "density": 100.0, "viscosity": 0.1, "length": 0.4, "height": 0.1}
CASES = {"cylinder": (CYLINDER, (32, 16)), "dam": (DAM, (30, 8)), "two_phase_tube": (TUBE, (32, 8))}


def flow_past(problem_name, frames=5, inside=0.0):
    """Problem, parameters ``(1,)``, and the trajectory of one case on a coarse grid; ``inside``: the value of
    all fields in solids.
    """
    given, grid = CASES[problem_name]
    problem = get_problem(problem_name)
    parameters = problem.as_parameters({name: [value] for name, value in given.items()})
    centres = problem.coordinates(parameters, grid)
    x, y = np.meshgrid(*(centres[axis][0].numpy() / centres["y"].max().item() for axis in "xy"), indexing="ij")
    geometry = {}
    if problem.geometry_fields:
        geometry = {name: field.numpy() for name, field in problem.geometry(parameters, grid).items()}
    fluid = geometry["fluid"][0, 0] if geometry else np.ones(grid)
    time = problem.frame_interval * np.arange(frames)
    found = {info.name: np.zeros((1, frames, info.components, *grid)) for info in problem.fields}
    for frame in range(frames):
        wave = np.sin(4 * x - frame)
        velocity = np.stack([1 + 0.5 * wave * y, 0.3 * wave])
        filled = np.clip(8 * (0.4 + 0.1 * frame - y + 0.1 * wave), 0, 1)
        values = {"velocity": velocity, "pressure": wave[None] * y, "volume_fraction": filled[None]}
        values["superficial_velocity"] = filled * velocity
        for name, field in found.items():
            field[0, frame] = np.where(fluid > 0, values[name], inside)
    faces = {
        f"face_velocity_{axis}": np.zeros((1, frames, grid[0] + (axis == "x"), grid[1] + (axis == "y")))
        for axis in "xy"
    }
    series = {name: 0.2 + 0.1 * np.sin(k + np.arange(frames))[None] for k, name in enumerate(problem.series)}
    return problem, parameters, {**found, **faces, **geometry, **series, "time": time[None]}


def write_flow(path, problem_name, frames=5, inside=0.0):
    """A data file with one case."""
    problem, parameters, trajectory = flow_past(problem_name, frames, inside)
    grid = trajectory[problem.fields[0].name].shape[3:]
    info = problem.dataset_info(grid, frames, "bc")
    numbers = {name: values.numpy() for name, values in parameters.items()}
    with DatasetWriter(path, info, 1, numbers, ["bc"]) as writer:
        coordinates = problem.coordinates(parameters, grid)
        writer.write([0], trajectory, {axis: centres.numpy() for axis, centres in coordinates.items()})
        return writer.finish()


def write_flow_run(directory, problem_name, frames=5, **extra):
    """A run directory: the learned fields, a prediction that drifts, and the series."""
    problem, parameters, trajectory = flow_past(problem_name, frames)
    sizes = {info.name: info.components for info in problem.fields}
    units = {info.name: info.unit for info in problem.fields}
    fields = {name: sizes[name] for name in problem.learned}
    truth = np.concatenate([trajectory[name] for name in fields], 2)
    prediction = truth * (1 + 0.02 * np.arange(frames)).reshape(1, -1, 1, 1, 1)
    values = {
        "series": np.array(list(problem.series)),
        "series_units": np.array(list(problem.series.values())),
        **{f"parameter_{name}": value.numpy() for name, value in parameters.items()},
    }
    if "fluid" in trajectory:
        values["fluid"] = trajectory["fluid"][:, 0] > 0.5
    for name in problem.series:
        for source, off in (("solver", 0), ("truth", 1e-3), ("prediction", 1e-2)):
            values[f"{source}_{name}"] = trajectory[name] + off
    lengths = problem.lengths({name: torch.as_tensor(value) for name, value in parameters.items()})[0].tolist()
    values |= {"units": [units[name] for name in fields]} | extra
    return write_predictions(directory, problem_name, fields, truth, prediction, lengths, **values)
