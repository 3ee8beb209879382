"""Synthetic particle runs: a drop that falls, hits the floor and spreads, and rollouts that drift away from it."""

import json

import numpy as np


def drop(dim=2, particles=400, frames=40, interval=0.02, seed=0, sides=None):
    """Positions ``(T, N, d)`` of a ball in a box ``sides`` that falls, bounces a little and flattens."""
    rng = np.random.default_rng(seed)
    sides = np.ones(dim) if sides is None else np.asarray(sides, dtype=float)
    direction = rng.standard_normal((particles, dim))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    radius = 0.16 * sides.min()
    ball = radius * direction * rng.uniform(0, 1, (particles, 1)) ** (1 / dim)
    time = interval * np.arange(frames)[:, None]
    height = np.abs(0.6 * sides[-1] * np.cos(4 * time)) * np.exp(-2 * time)
    spread = np.tanh(np.clip((time - 0.3) / 0.5, 0, None))
    position = np.empty((frames, particles, dim))
    flat = 0.5 * sides[:-1] + 0.2 * np.sin(time * np.arange(1, dim))
    position[..., :-1] = flat[:, None] + ball[None, :, :-1] * (1 + 1.8 * spread[..., None])
    position[..., -1] = np.maximum(height + radius + ball[None, :, -1] / (1 + 3 * spread), 0.01 * sides[-1])
    return np.clip(position, 0.0, sides).astype(np.float32), np.stack([np.zeros(dim), sides], axis=1)


def particle_arrays(
    dim=2, particles=400, frames=16, cases=1, keep=0.2, given=6, kinds=("water",), walls=0, sides=None, **extra
):
    """The arrays of a ``predictions.npz``; ``keep``: the share of sparse points, ``walls``: fixed particles."""
    arrays = {
        "interval": np.array(0.02),
        "kinds": np.array(kinds),
        "cases": np.arange(cases) + 3,
        "subsets": np.array(["ball"] * cases),
        "gravity": np.array([*[0.0] * (dim - 1), -9.81]),
    }
    for number in range(cases):
        truth, bounds = drop(dim, particles, frames, seed=number, sides=sides)
        rng = np.random.default_rng(100 + number)
        drift = np.clip(np.arange(frames) - given + 1, 0, None)[:, None, None] / frames
        wrong = rng.standard_normal((1, particles, dim)) * 0.05 + 0.05
        fixed = np.arange(particles) < walls
        if walls:
            lattice = np.linspace(0.2, 0.8, walls)
            truth[:, :walls] = (bounds[:, 1] * 0.05)[None, None]
            truth[:, :walls, 0] = lattice * bounds[0, 1]
        dense = np.where(fixed[:, None], truth, truth + drift * wrong).astype(np.float32)
        index = np.sort(rng.choice(particles, max(1, round(keep * particles)), replace=False))
        arrays |= {
            "bounds": bounds,
            f"truth_{number}": truth,
            f"dense_{number}": dense,
            f"sparse_{number}": dense[:, index],
            f"sparse_index_{number}": index,
            f"kind_{number}": np.arange(particles) * len(kinds) // particles,
            f"fixed_{number}": fixed,
        }
    grown = np.clip(np.arange(frames) - given + 1, 0, None) / frames
    sizes = {"sparse": 0.1, "dense": 0.15, "upsampled_truth": 0.05}
    arrays |= {f"curve_{name}": size * grown for name, size in sizes.items()}
    arrays |= {"curve_constant_velocity": 2 * grown**1.5, "curve_constant_acceleration": 20 * grown**2}
    return arrays | extra


def write_particle_run(directory, records=20, **options):
    """A run directory with ``predictions.npz`` (``options`` as of ``particle_arrays``; None drops a key)."""
    directory.mkdir(parents=True, exist_ok=True)
    arrays = particle_arrays(**options)
    np.savez(directory / "predictions.npz", **{name: value for name, value in arrays.items() if value is not None})
    lines = [json.dumps({"step": s, "loss": 1 / s, "learning_rate": 1e-3}) for s in range(1, records + 1)]
    (directory / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (directory / "summary.json").write_text(json.dumps({"operator": "giorom"}))
    (directory / "config.yaml").write_text("problem: water\noperator: {name: giorom}\n")
    return directory
