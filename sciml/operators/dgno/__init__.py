"""Deep generative neural operator: forward and inverse problems through one latent vector."""

from sciml.operators.dgno.operator import DGNO, LatentNormal

__all__ = ["DGNO", "LatentNormal"]
