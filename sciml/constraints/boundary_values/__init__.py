"""Boundary values: fields that obey Dirichlet, Neumann, Robin and periodic conditions, several at once."""

from sciml.constraints.boundary_values.layer import BoundaryValues

__all__ = ["BoundaryValues"]
