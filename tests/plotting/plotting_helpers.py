"""A flow to draw."""

import numpy as np


def flow(frames=3, nx=12, ny=8, seed=0):
    """A smooth vortex that grows, and a prediction that is a little off."""
    x, y = np.meshgrid((np.arange(nx) + 0.5) / nx, (np.arange(ny) + 0.5) / ny, indexing="ij")
    u = np.sin(np.pi * x) ** 2 * np.sin(2 * np.pi * y)
    v = -np.sin(2 * np.pi * x) * np.sin(np.pi * y) ** 2
    truth = np.stack([np.stack([u, v]) * (t + 1) for t in range(frames)])
    return truth, truth + 0.01 * np.random.default_rng(seed).standard_normal(truth.shape)
