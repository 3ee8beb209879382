"""Layers that several operators share, one idea per module."""
