"""Particles that the package did not make: a problem without a solver, for training on files of one's own."""

from __future__ import annotations

from typing import Any

import torch

from sciml.errors import ConfigError
from sciml.problems.cases import CaseFamily
from sciml.problems.particles.recipes import particle_recipe


class OwnParticles(CaseFamily):
    """What its files say it is: kinds, parameters, bounds, gravity and the time between frames are theirs."""

    name = "particles"
    title = "Particles of your own: give the files, 'sciml convert' makes them"
    dims = (2, 3)
    parameters = ()
    subsets = ()
    frames = 300
    frame_interval = 1.0

    def draw(self, subset: str, generator: torch.Generator, resolution: int) -> dict[str, float]:
        """Raises ``ConfigError``: there is nothing to draw from."""
        raise ConfigError("problem 'particles' is your own data and has no solver: give --data FILE.h5")

    def recipe(self, operator: str | None = None) -> dict[str, Any]:
        """The default training configuration, as a plain dictionary of the training schema."""
        return particle_recipe(self.name, operator, self.dim)
