"""Weak forms: test functions, residuals and their dual norms. Torch only, batched, differentiable.

    space = HatSpace((28, 28), (1.0, 1.0))                      # or WendlandSpace, or TimeSlices of one of them
    form = WeakForm(space, flux=lambda x, u, du, a: a.unsqueeze(-1) * du[:, 0], source=lambda x, u, du, a: -f(x))
    loss = form.square(fields, space.at_points(a)).mean()       # fields: u and grad u at space.points

A user's own equation takes no more than that. ``darcy_form``, ``burgers_form`` and ``stokes_form`` are ready made.
"""

from sciml.physics.weak.burgers import burgers_form
from sciml.physics.weak.centres import grid_centres, random_centres
from sciml.physics.weak.channel_mesh import channel_mesh, channel_with_disc
from sciml.physics.weak.darcy import darcy_balance_form, darcy_flux_mismatch, darcy_form
from sciml.physics.weak.fields import Fields
from sciml.physics.weak.hats import HatSpace
from sciml.physics.weak.mesh import TriangleMesh
from sciml.physics.weak.space import FunctionSpace
from sciml.physics.weak.stokes import divergence_square, stokes_form
from sciml.physics.weak.taylor_hood import TaylorHood
from sciml.physics.weak.time_slices import TimeSlices
from sciml.physics.weak.triangles import TriangleSpace
from sciml.physics.weak.weak_form import WeakForm
from sciml.physics.weak.wendland import WendlandSpace
from sciml.physics.weak.wendland_function import wendland

__all__ = [
    "Fields",
    "FunctionSpace",
    "HatSpace",
    "TaylorHood",
    "TimeSlices",
    "TriangleMesh",
    "TriangleSpace",
    "WeakForm",
    "WendlandSpace",
    "burgers_form",
    "channel_mesh",
    "channel_with_disc",
    "darcy_balance_form",
    "darcy_flux_mismatch",
    "darcy_form",
    "divergence_square",
    "grid_centres",
    "random_centres",
    "stokes_form",
    "wendland",
]
