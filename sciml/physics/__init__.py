"""Grids, difference stencils, boundary conditions, fast solvers and PDE residuals: torch only, differentiable, batched."""
