"""Layers that make an output obey. Empty so far: projections, conservation and mesh movers will live here."""
