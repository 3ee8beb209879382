"""Surrogates of weak problems: forward solutions and inversion."""

from sciml.surrogate.latent.inversion import Inversion, bands, invert
from sciml.surrogate.latent.observations import Observations, channel_names, channel_units
from sciml.surrogate.latent.posterior import Posterior, save_posterior, summarise
from sciml.surrogate.latent.surrogate import LatentSurrogate

__all__ = [
    "Inversion",
    "LatentSurrogate",
    "Observations",
    "Posterior",
    "bands",
    "channel_names",
    "channel_units",
    "invert",
    "save_posterior",
    "summarise",
]
