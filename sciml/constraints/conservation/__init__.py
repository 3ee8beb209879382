"""Conservation: totals imposed on any prediction, and changes that conserve by construction."""

from sciml.constraints.conservation.affine_projection import AffineProjection
from sciml.constraints.conservation.ensemble import mixture_covariance, mixture_moments
from sciml.constraints.conservation.flux_form import face_fluxes, flux_form, flux_update
from sciml.constraints.conservation.flux_layer import FluxForm
from sciml.constraints.conservation.gaussian_update import Posterior, gaussian_update
from sciml.constraints.conservation.linear_conservation import LinearConservation
from sciml.constraints.conservation.quadrature import cell_volumes, front_weights, trapezoid_weights

__all__ = [
    "AffineProjection",
    "FluxForm",
    "LinearConservation",
    "Posterior",
    "cell_volumes",
    "face_fluxes",
    "flux_form",
    "flux_update",
    "front_weights",
    "gaussian_update",
    "mixture_covariance",
    "mixture_moments",
    "trapezoid_weights",
]
