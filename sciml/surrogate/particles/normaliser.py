"""The units in which a network sees particles: isotropic, so that turning a scene turns what it sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class ParticleNormaliser(nn.Module):
    """Velocities and accelerations in frame differences (metres a frame, metres a frame squared) to unit variance.

    One standard deviation for all axes, and a mean that is a multiple of the scene's gravity g: with ``dt`` the time
    between frames,

        v* = (v - c_v g dt^2) / sqrt(s_v^2 + noise^2),        a = c_a g dt^2 + sqrt(s_a^2 + noise^2) a*

    A network reads the newest velocity and the accelerations before it, which say the same as all velocities: between
    frames velocities hardly differ, and what differs is what it needs to know

    (Sanchez-Gonzalez et al. 2020, "Learning to simulate complex physics with graph networks", where mean and deviation
    are those of each axis). ``noise``: the standard deviation in metres of the noise that training adds to velocities.
    Material parameters are standardised, those of ``parameter_log`` as logarithms.

    Args:
        statistics: ``velocity_std``, ``acceleration_std``, ``velocity_gravity`` (c_v), ``acceleration_gravity`` (c_a),
            ``noise``, ``interval`` (dt in seconds): numbers; ``parameter_mean``, ``parameter_std``, ``parameter_log``:
            lists of P.
    """

    def __init__(self, statistics: Mapping[str, Any]) -> None:
        super().__init__()
        self.statistics = dict(statistics)
        get = statistics.__getitem__
        self.interval = float(get("interval"))
        noise = float(get("noise"))
        self.velocity_std = (float(get("velocity_std")) ** 2 + noise**2) ** 0.5
        self.acceleration_std = (float(get("acceleration_std")) ** 2 + noise**2) ** 0.5
        self.velocity_gravity = float(get("velocity_gravity")) * self.interval**2
        self.acceleration_gravity = float(get("acceleration_gravity")) * self.interval**2
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(get(f"parameter_{name}"), dtype=torch.float32), persistent=False)
        self.register_buffer("log", torch.tensor(get("parameter_log"), dtype=torch.bool), persistent=False)

    mean: Tensor
    std: Tensor
    log: Tensor

    def motion(self, displacements: Tensor, gravity: Tensor) -> Tensor:
        """Frame differences ``(F, N, d)`` with gravity ``(N, d)`` to F normalised vectors ``(N, F, d)``: their F - 1
        differences, then the newest of them.
        """
        newest = (displacements[-1:] - self.velocity_gravity * gravity) / self.velocity_std
        return torch.cat([self.normalised(displacements.diff(dim=0), gravity), newest]).transpose(0, 1)

    def acceleration(self, normalised: Tensor, gravity: Tensor) -> Tensor:
        """``(N, d)`` of the network to metres a frame squared."""
        return self.acceleration_gravity * gravity + self.acceleration_std * normalised

    def normalised(self, acceleration: Tensor, gravity: Tensor) -> Tensor:
        """The inverse of ``acceleration``."""
        return (acceleration - self.acceleration_gravity * gravity) / self.acceleration_std

    def parameters_of(self, parameters: Tensor) -> Tensor:
        """Material parameters ``(N, P)`` in their units to what the network sees."""
        if not len(self.mean):
            return parameters
        values = torch.where(self.log, parameters.clamp(min=1e-30).log(), parameters)
        return ((values - self.mean) / self.std).to(parameters.dtype)
