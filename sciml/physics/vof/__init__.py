"""Geometric volume of fluid in two dimensions: where the water is, moved exactly. Torch only, batched.

    fraction, (water_x, water_y) = advect(fraction, (u, v), dt, spacing, first=step % 2, inflow={"x_low": 1.0})

``fraction (B, nx, ny)`` is the share of water in each cell of the MAC grid.
"""

from sciml.physics.vof.advection import LARGEST_COURANT_NUMBER, advect, courant_number
from sciml.physics.vof.interface import interface_normals
from sciml.physics.vof.line import area_below, line_constant
from sciml.physics.vof.shapes import disc, half_plane, rectangle

__all__ = [
    "LARGEST_COURANT_NUMBER",
    "advect",
    "area_below",
    "courant_number",
    "disc",
    "half_plane",
    "interface_normals",
    "line_constant",
    "rectangle",
]
