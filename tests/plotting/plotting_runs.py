"""Run directories with synthetic predictions of every kind and dimension."""

import json

import numpy as np


def random_field(grid, seed=0, decay=2.0):
    """A smooth periodic field of zero mean and unit deviation on cells of a box."""
    rng = np.random.default_rng(seed)
    noise = np.fft.fftn(rng.standard_normal(grid))
    waves = np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in grid), indexing="ij")
    k = np.sqrt(sum(wave**2 for wave in waves))
    field = np.fft.ifftn(noise * np.where(k > 0, (1 + k**2) ** -decay, 0)).real
    return field / field.std()


def trajectory(grid, components, frames=5, cases=2, seed=0):
    """Truth that decays, and a prediction that drifts away: ``(cases, frames, components, *grid)``."""
    truth = np.empty((cases, frames, components, *grid))
    for case in range(cases):
        for channel in range(components):
            field = random_field(grid, seed + 31 * case + channel)
            for frame in range(frames):
                truth[case, frame, channel] = np.roll(field, frame, 0) * 0.95**frame
    drift = np.arange(frames).reshape(-1, *(1,) * (len(grid) + 1)) / frames
    wrong = np.stack([random_field(grid, seed + 1000 + case) for case in range(cases)])
    return truth, truth + 0.1 * drift * wrong[:, None, None]


def channel_flow(nx=64, ny=16, frames=5, cases=1):
    """A plug that develops into Poiseuille's profile."""
    x, y = np.meshgrid((np.arange(nx) + 0.5) / nx, (np.arange(ny) + 0.5) / ny, indexing="ij")
    truth = np.zeros((cases, frames, 2, nx, ny))
    for frame in range(frames):
        part = np.minimum(1, 2 * x) * (frame + 1) / frames
        truth[:, frame, 0] = (1 - part) * 1.0 + part * 6 * y * (1 - y)
        truth[:, frame, 1] = 0.02 * np.sin(2 * np.pi * y) * np.exp(-4 * x)
    return truth, truth + 0.02 * random_field((nx, ny))


def write_predictions(directory, problem, fields, truth, prediction, lengths, *, units, frame=0.1, **extra):
    """A run directory with the ``predictions.npz`` of a problem; ``fields`` maps name to components."""
    directory.mkdir(parents=True, exist_ok=True)
    cases, frames = truth.shape[:2]
    rng = np.random.default_rng(0)
    arrays = {
        "problem": np.array(problem),
        "kind": np.array("step"),
        "fields": np.array(list(fields)),
        "components": np.array(list(fields.values())),
        "units": np.array(units),
        "truth": truth.astype(np.float32),
        "prediction": prediction.astype(np.float32),
        "time": np.tile(frame * np.arange(frames), (cases, 1)),
        "lengths": np.array(lengths, dtype=float) * np.ones((cases, 1)),
        "origin": np.zeros(truth.ndim - 3),
        "subset": np.array(["one", "two"] * cases)[:cases],
        "case": np.arange(cases),
        "subsets": np.array(["one"] * 7),
        "parameter_viscosity": np.full(cases, 1e-3),
        **{
            f"{name}rollout_relative_l2": rng.uniform(0.01, 0.1, (7, max(frames - 1, 1)))
            for name in ("", "persistence_")
        },
    }
    arrays |= extra
    np.savez(directory / "predictions.npz", **{name: value for name, value in arrays.items() if value is not None})
    (directory / "summary.json").write_text(json.dumps({"operator": "fno"}))
    return directory


def write_map(directory, grid=(24, 24), cases=4, observed=0, problem="darcy", lengths=None, **extra):
    """A run on a static problem."""
    dim = len(grid)
    lengths = lengths or (1.0,) * dim
    coefficient = np.stack([np.where(random_field(grid, i) > 0, 12.0, 3.0) for i in range(cases)])
    truth, _ = trajectory(grid, 1, frames=1, cases=cases)
    truth = 0.02 + 0.004 * truth
    rng = np.random.default_rng(1)
    wrong = 0.0005 * np.stack([random_field(grid, 90 + case) for case in range(cases)])[:, None, None]
    values = {
        "truth": truth,
        "prediction": truth + wrong,
        "lengths": lengths,
        "units": ["1"],
        "kind": np.array("map"),
        "inputs": np.array(["permeability"]),
        "input_units": np.array(["m^2"]),
        "input": coefficient[:, None],
        "points": rng.uniform(0, 1, (cases, observed, dim)) * lengths if observed else None,
        "rollout_relative_l2": None,
        "persistence_rollout_relative_l2": None,
        "relative_l2": rng.lognormal(-4, 0.5, 50),
        "mean_relative_l2": rng.lognormal(-1, 0.3, 50),
        "lookup_relative_l2": rng.lognormal(-2, 0.3, 50),
    }
    return write_predictions(directory, problem, {"pressure": 1}, **(values | extra))
