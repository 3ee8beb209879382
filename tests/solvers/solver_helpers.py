"""Flows that several solver tests share."""

import json
import math
from pathlib import Path

import torch

from sciml.physics import Grid, Inlet, MovingWall, Outlet, Periodic, Wall, box
from sciml.solvers import FlowState, IncompressibleSolver

TRUTH = json.loads((Path(__file__).parents[1] / "truth" / "incompressible_flow.json").read_text())


def walls(**changes):
    return {**dict.fromkeys(("x_low", "x_high", "y_low", "y_high"), Wall()), **changes}


def cavity(n, reynolds, *, dtype=torch.float64, lid=None, lengths=None, grid=None, **options) -> IncompressibleSolver:
    """Lid-driven cavities of unit size and lid speed unless given otherwise."""
    reynolds = torch.as_tensor(reynolds, dtype=torch.float64)
    batch = len(reynolds)
    lid = torch.ones(batch, dtype=torch.float64) if lid is None else lid
    lengths = torch.ones(batch, 2, dtype=torch.float64) if lengths is None else lengths
    grid = box((n, n) if isinstance(n, int) else n, lengths) if grid is None else grid
    return IncompressibleSolver(grid, walls(y_high=MovingWall((lid, 0.0))), 1 / reynolds, dtype=dtype, **options)


def channel(shape, length, viscosity, profile=1.0, *, dtype=torch.float64) -> IncompressibleSolver:
    """Channel of height 1, inlet at the left, outlet at the right."""
    lengths = torch.tensor([[length, 1.0]] * len(viscosity), dtype=torch.float64)
    boundaries = walls(x_low=Inlet((profile, 0.0)), x_high=Outlet())
    return IncompressibleSolver(box(shape, lengths), boundaries, viscosity, dtype=dtype)


def periodic_solver(n, viscosity, *, dtype=torch.float64, **options) -> IncompressibleSolver:
    grid = box((n, n), torch.full((len(viscosity), 2), 2 * math.pi, dtype=torch.float64), periodic=True)
    sides = dict.fromkeys(("x_low", "x_high", "y_low", "y_high"), Periodic())
    return IncompressibleSolver(grid, sides, viscosity, dtype=dtype, **options)


def taylor_green(grid: Grid, viscosity, time):
    """-cos x sin y, sin x cos y, decaying as exp(-2 nu t), on the faces (Taylor and Green 1937, 2D form)."""
    decay = torch.exp(-2 * viscosity * time).reshape(-1, 1, 1)
    fx, cx = grid.faces(0)[:, :, None], grid.centres(0)[:, :, None]
    fy, cy = grid.faces(1)[:, None], grid.centres(1)[:, None]
    return -torch.cos(fx) * torch.sin(cy) * decay, torch.sin(cx) * torch.cos(fy) * decay


def smooth_start(solver: IncompressibleSolver, amplitude=1.0) -> FlowState:
    """Two counter-rotating eddies at rest on all walls, from psi = sin^2(pi x) sin(pi y) sin(2 pi y)."""
    grid = solver.grid
    x, y = grid.faces(0)[:, :, None], grid.faces(1)[:, None]
    sx, sy = torch.sin(math.pi * x / x.amax()), torch.sin(math.pi * y / y.amax())
    psi = amplitude * 0.2 * sx**2 * sy**2 * (1 + sx * torch.cos(math.pi * x / x.amax()) + 0.3 * y)
    hx, hy = x[:, 1:2] - x[:, :1], y[:, :, 1:2] - y[:, :, :1]
    return solver.state_from_velocity((psi.diff(dim=2) / hy, -psi.diff(dim=1) / hx))


def max_difference(a: FlowState, b: FlowState) -> float:
    return max((u - v).abs().max().item() for u, v in zip(a.velocity, b.velocity, strict=True))


def seconds(value, batch=1):
    return torch.full((batch,), float(value), dtype=torch.float64)
