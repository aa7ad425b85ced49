"""Limits that a configuration and a command's flags share. It imports nothing, as `predict` also runs without JAX."""

LARGEST_CANVAS = 16_384
"""The longest side of a square that pictures are made into, in pixels; OpenCV's own limit is twice that."""
