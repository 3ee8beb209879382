"""The force on a body from the fields around it, against flows whose force is known."""

import math

import pytest
import torch

from sciml.errors import DataError
from sciml.physics.momentum_balance import force_on_body

RADIUS, DENSITY = 0.5, 3.0


def past_a_disc(n, speed, rate, circulation, frames=7):
    """Potential flow past a disc in the middle of a box of side 8, pressure by Bernoulli with the potential's rate.

    The speed along x grows by ``rate``; a vortex in the disc turns anticlockwise. Known force (Milne-Thomson 1968):
    drag = 2 rho pi R^2 dU/dt in a stream that speeds up, lift = -rho U Gamma.
    """
    time = torch.linspace(0.0, 0.3, frames, dtype=torch.float64)
    centres = (torch.arange(n, dtype=torch.float64) + 0.5) * 8.0 / n - 4.0
    x, y = torch.meshgrid(centres, centres, indexing="ij")
    r2 = x**2 + y**2
    u_now = (speed + rate * time)[:, None, None]
    u = u_now * (1 + RADIUS**2 * (y**2 - x**2) / r2**2) - circulation * y / (2 * math.pi * r2)
    v = -2 * u_now * RADIUS**2 * x * y / r2**2 + circulation * x / (2 * math.pi * r2)
    potential_rate = rate * x * (1 + RADIUS**2 / r2)
    pressure = -DENSITY * (potential_rate + 0.5 * (u**2 + v**2))
    solid = r2 < RADIUS**2
    velocity = torch.stack([u, v], 1).masked_fill(solid, 0.0)
    distance = r2.sqrt() - RADIUS
    s = ((2.5 - distance) / 2.0).clamp(0, 1)
    weight = s**2 * (3 - 2 * s)
    return velocity[None], pressure.masked_fill(solid, 0.0)[None], time[None], weight[None]


def force(n, speed, rate, circulation, frames=7):
    velocity, pressure, time, weight = past_a_disc(n, speed, rate, circulation, frames)
    lengths = torch.full((1, 2), 8.0)
    numbers = {"density": torch.tensor([DENSITY]), "viscosity": torch.zeros(1)}
    return force_on_body(velocity, pressure, time, weight=weight, lengths=lengths, **numbers)[0]


def test_a_steady_stream_has_no_drag_and_a_vortex_lifts():
    found = force(160, 1.0, 0.0, 0.0)
    assert float(found.abs().max()) < 2e-3
    found = force(160, 1.0, 0.0, -0.7)
    torch.testing.assert_close(found[:, 1], torch.full((7,), DENSITY * 0.7).double(), rtol=5e-3, atol=0)


def test_a_stream_that_speeds_up_pushes_with_twice_the_displaced_mass():
    """At every frame, the first and the last too; the error falls with the grid as that of the disc's staircase."""
    exact = 2 * DENSITY * math.pi * RADIUS**2 * 0.8
    errors = [float((force(n, 1.0, 0.8, 0.0)[:, 0] / exact - 1).abs().max()) for n in (80, 320)]
    assert errors[1] < 0.01 and errors[1] < 0.5 * errors[0], errors
    assert float((force(320, 1.0, 0.8, 0.0, frames=3)[:, 0] / exact - 1).abs().max()) < 0.01


def test_the_rate_in_time_is_of_fourth_order():
    """A uniform acceleration field sin(w t) on an empty box, weighted by one everywhere: F = -rho dU/dt times area."""
    errors = []
    for frames in (9, 17):
        time = torch.linspace(0, 1, frames, dtype=torch.float64)[None]
        velocity = torch.zeros(1, frames, 2, 4, 4, dtype=torch.float64) + torch.sin(3 * time).reshape(1, -1, 1, 1, 1)
        found = force_on_body(
            velocity,
            torch.zeros(1, frames, 4, 4),
            time,
            weight=torch.ones(1, 4, 4),
            lengths=torch.ones(1, 2),
            density=torch.ones(1),
            viscosity=torch.ones(1),
        )
        errors.append(float((found[0, :, 0] + 3 * torch.cos(3 * time[0])).abs().max()))
    assert errors[0] / errors[1] > 11, errors


def test_too_few_frames_are_refused():
    with pytest.raises(DataError, match="2 frames; the force needs at least 3"):
        force(16, 1.0, 0.0, 0.0, frames=2)
