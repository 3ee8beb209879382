"""Plane channel flow: what a solver is judged by."""

from __future__ import annotations

import torch
from torch import Tensor


def poiseuille_velocity(y: Tensor, height: Tensor | float, mean_velocity: Tensor | float) -> Tensor:
    """The fully developed profile ``6 U (y / H) (1 - y / H)`` between walls at 0 and H, U the mean velocity."""
    eta = y / height
    return 6 * mean_velocity * eta * (1 - eta)


def poiseuille_pressure_gradient(
    viscosity: Tensor | float, height: Tensor | float, mean_velocity: Tensor | float
) -> Tensor | float:
    """``dp/dx = -12 mu U / H^2`` of the same flow, mu the dynamic viscosity."""
    return -12 * viscosity * mean_velocity / height**2


def entrance_length(reynolds: Tensor | float) -> Tensor:
    """Development length over height of a channel with uniform inflow, Re = U H / nu on the full height.

        L / H = (0.631^1.6 + (0.0442 Re)^1.6)^(1/1.6)

    after which the centreline velocity is 99 % of 1.5 U: Durst, Ray, Unsal and Bayoumi, J. Fluids Eng. 127 (2005)
    1154.
    """
    value = torch.as_tensor(reynolds)
    return (0.631**1.6 + (0.0442 * value) ** 1.6) ** (1 / 1.6)
